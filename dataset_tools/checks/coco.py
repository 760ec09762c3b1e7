"""What COCO files can hide from a reader: outlines that reach beyond their image are cut off without a word, and forms
of ``segmentation`` that are read here stop pycocotools.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataset_tools.checks.findings import Finding
from dataset_tools.errors import DatasetError
from dataset_tools.formats.coco_jsonl import annotations_file, load_json
from dataset_tools.formats.coco_rows import index_files
from dataset_tools.formats.outlines import flat_polygons

_SLACK = 1.0
"""Pixels by which a corner may lie outside: contours run along pixel borders."""


def check_polygons(root: Path) -> Iterator[Finding]:
    """Findings in the index files of ``coco`` and ``coco_jsonl``; what is unreadable there, reading reports."""
    strict = not annotations_file(root).is_file()
    for file in [root] if root.is_file() else [annotations_file(root), *index_files(root)]:
        try:
            content = load_json(file)
            images = {str(entry["id"]): entry for entry in content["images"]}
            entries = list(content["annotations"])
        except (DatasetError, OSError, ValueError, KeyError, TypeError):
            continue
        for entry in entries:
            try:
                image = images[str(entry["image_id"])]
                yield from _check_reach(entry, image)
                if strict:
                    yield from _check_form(entry, str(image["file_name"]))
            except (ValueError, KeyError, TypeError):
                continue


def _check_form(entry: dict[str, Any], image: str) -> Iterator[Finding]:
    segmentation = entry.get("segmentation")
    if not isinstance(segmentation, list):
        return
    if flat_polygons(segmentation) is not segmentation:
        what = "polygons are no lists of flat lists x, y, x, y, ..."
    elif any(isinstance(part, dict) for part in segmentation):
        what = "run-length codes lie in a list"
    else:
        return
    yield Finding("coco-segmentation", f"annotation {entry['id']}", what, image)


def _check_reach(entry: dict[str, Any], image: dict[str, Any]) -> Iterator[Finding]:
    segmentation = flat_polygons(entry.get("segmentation"))
    if not segmentation:
        left, top, across, down = entry["bbox"]
        segmentation = [[left, top, left + across, top, left + across, top + down]]
    polygons = segmentation if isinstance(segmentation, list) else []
    numbers = [polygon for polygon in polygons if isinstance(polygon, list) and len(polygon) >= 6]
    x = [value for polygon in numbers for value in polygon[::2]]
    y = [value for polygon in numbers for value in polygon[1::2]]
    width, height = image["width"], image["height"]
    if numbers and (min(x + y) < -_SLACK or max(x) > width + _SLACK or max(y) > height + _SLACK):
        reach = f"x {min(x):g} to {max(x):g}, y {min(y):g} to {max(y):g}"
        message = f"{reach} in an image of {width} x {height} pixels"
        yield Finding("mask-outside", f"annotation {entry['id']}", message, str(image["file_name"]))

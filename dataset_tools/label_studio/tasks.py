"""Samples as Label Studio tasks with predictions: existing datasets and proposals, back to the annotators."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dataset_tools import atomic
from dataset_tools.categories import CATEGORIES
from dataset_tools.label_studio import regions, shapes
from dataset_tools.records import Record, Sample

__all__ = ["tasks_of", "write_tasks"]


def tasks_of(
    sample: Sample, image_url: str, *, from_name: str = "mask", to_name: str = "image", model_version: str = "imported"
) -> Iterator[dict[str, Any]]:
    """One task per expression of an image, with its masks as a prediction of brush regions.

    Args:
        sample: image and records; objects without words make one task without an expression.
        image_url: what Label Studio loads, e.g. ``/data/local-files/?d=images/{path}``; ``{name}`` is the file name
            and ``{path}`` the file's path, both percent-encoded.
        from_name, to_name: names of the BrushLabels and Image tags of the labeling config.
        model_version: of the prediction.
    """
    name, location = sample.image.file_name, sample.image.location or sample.image.file_name
    url = image_url.format(name=quote(name), path=quote(location.lstrip("/")))
    wordless = [record for record in sample.records if not record.expression]
    groups = [[record] for record in sample.records if record.expression] + ([wordless] if wordless else [])
    for records in groups:
        first = records[0]
        data: dict[str, Any] = {"image": url, "expression": first.expression, "category": first.category}
        optional = {"split": first.split, "kind": first.kind, "scene": sample.image.scene}
        data.update({key: value for key, value in optional.items() if value is not None})
        if first.provenance.generated:
            data["generated"] = True
        found = [region for record in records for region in _regions(sample, record, from_name, to_name)]
        yield {"data": data, "predictions": [{"model_version": model_version, "score": 1.0, "result": found}]}


def _regions(sample: Sample, record: Record, from_name: str, to_name: str) -> Iterator[dict[str, Any]]:
    label = CATEGORIES[record.category].display if record.category in CATEGORIES else record.category
    for value in (value for mask in sample.masks(record) for value in shapes.written(mask, "brushlabels")):
        yield {
            "id": regions.new_id(), "from_name": from_name, "to_name": to_name, "type": "brushlabels",
            "origin": "prediction", "original_width": sample.image.width, "original_height": sample.image.height,
            "image_rotation": 0,
            "value": {**value, "brushlabels": [label]},
            **({"meta": {"text": regions.words(record.expression)}} if record.expression else {}),
        }  # fmt: skip


def write_tasks(path: Path, samples: Iterable[Sample], image_url: str, **names: str) -> int:
    """A JSON file that Label Studio imports, written task by task; returns the number of tasks."""
    count = 0
    with atomic.open_bytes(path) as file:
        file.write(b"[")
        for sample in samples:
            for task in tasks_of(sample, image_url, **names):
                file.write((b",\n" if count else b"\n") + json.dumps(task).encode())
                count += 1
        file.write(b"\n]\n")
    return count

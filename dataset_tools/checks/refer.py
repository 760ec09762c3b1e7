"""What REFER files can hide from a reader: ids, sentence lists, pickle protocol, segmentation dialect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dataset_tools.checks.findings import Finding
from dataset_tools.errors import DatasetError, MaskError
from dataset_tools.formats.refer import load_refs, ref_name
from dataset_tools.masks import from_coco

_PROTOCOL = 0x80
_IDS = ("ref_id", "ann_id", "image_id", "category_id")


def check_refer(root: Path) -> Iterator[Finding]:
    """Findings in ``rrsisd/refs(unc).p`` and ``rrsisd/instances.json`` of a REFER root."""
    file = root / "rrsisd" / "refs(unc).p"
    try:
        refs = load_refs(file)
        head = file.read_bytes()[:2]
    except DatasetError as error:
        yield Finding("unreadable", file.name, str(error))
        return
    if head[:1] == bytes([_PROTOCOL]) and head[1] > 2:
        yield Finding("refer-protocol", file.name, f"the pickle has protocol {head[1]}")
    seen: set[str] = set()
    for position, ref in enumerate(refs if isinstance(refs, list) else []):
        where = ref_name(ref, position)
        if not isinstance(ref, dict):
            yield Finding("row-unusable", where, f"a ref is a dict, got {type(ref).__name__}")
            continue
        yield from _check_ref(ref, where)
        if repr(ref.get("ref_id")) in seen:
            yield Finding("refer-duplicate-id", where, f"ref_id {ref.get('ref_id')!r:.80} occurs twice")
        seen.add(repr(ref.get("ref_id")))
    yield from _check_instances(root / "rrsisd" / "instances.json")


def _check_ref(ref: dict[str, Any], where: str) -> Iterator[Finding]:
    for key in _IDS:
        value = ref.get(key)
        if key in ref and type(value) is not int:
            yield Finding("refer-id", where, f"{key} is the {type(value).__name__} {value!r}", ref.get("file_name"))
    sentences, ids = ref.get("sentences"), ref.get("sent_ids")
    if not isinstance(sentences, list) or not sentences:
        yield Finding("refer-sentences", where, "sentences is empty", ref.get("file_name"))
    elif not isinstance(ids, list) or len(ids) != len(sentences):
        count = len(ids) if isinstance(ids, list) else "no"
        message = f"{count} sent_ids for {len(sentences)} sentences"
        yield Finding("refer-sentences", where, message, ref.get("file_name"))
    if isinstance(sentences, list) and len(sentences) > 1:
        yield Finding("refer-grouped", where, f"{len(sentences)} sentences", ref.get("file_name"))


def _check_instances(file: Path) -> Iterator[Finding]:
    try:
        content = json.loads(file.read_bytes())
        sizes = {image["id"]: (int(image["height"]), int(image["width"])) for image in content["images"]}
        annotations = content["annotations"]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        yield Finding("unreadable", file.name, f"{type(error).__name__} {error}")
        return
    for annotation in annotations if isinstance(annotations, list) else []:
        if not isinstance(annotation, dict):
            yield Finding("row-unusable", file.name, f"an annotation is an object, got {annotation!r:.80}")
            continue
        where = f"annotation {annotation.get('id')}"
        segmentation = annotation.get("segmentation")
        if not isinstance(segmentation, list) or not all(isinstance(part, dict) for part in segmentation):
            shown = "a polygon" if isinstance(segmentation, list) else f"a {type(segmentation).__name__}"
            yield Finding("refer-segmentation", where, f"segmentation is {shown}")
        elif len(segmentation) > 1 and annotation.get("image_id") in sizes:
            try:
                parts = [from_coco(part, *sizes[annotation["image_id"]]) for part in segmentation]
            except (MaskError, TypeError, ValueError):
                continue  # reading reports it, with the reason
            shared = int((np.sum(parts, axis=0) > 1).sum())
            if shared:
                yield Finding("refer-overlap", where, f"{len(parts)} codes share {shared} pixels")

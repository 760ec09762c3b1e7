"""Where a dataset's images lie on the map: ``tiles.jsonl`` beside its other files, as ``pslg dataset tile`` writes it.

Formats have no room for it, COCO's rows of images and ``coco_jsonl`` aside; so every format has the sidecar, a line for
each image that has a place, named as the format's own reader names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from dataset_tools import atomic
from dataset_tools.formats.items import Item
from dataset_tools.maps.tiles import INDEX, read_index
from dataset_tools.records import Sample, SourceImage

__all__ = ["PLACE_KEYS", "place_line", "place_of", "placed", "write_places"]

PLACE_KEYS = ("crs", "transform", "window", "scene_size")


def place_of(image: SourceImage) -> dict[str, Any]:
    """``crs``, ``transform``, and of a tile ``window`` and ``scene_size``; empty without a transform."""
    return {key: image.extra[key] for key in PLACE_KEYS if key in image.extra} if image.extra.get("transform") else {}


def place_line(item: Item, *, packed: bool) -> str:
    """An image's line of the sidecar, empty without a place; ``packed``: images keep the names that they came with."""
    image = item.sample.image
    place = place_of(image)
    if not place:
        return ""
    name = PurePosixPath(image.file_name if packed else item.image_path).name
    scene = {"scene": image.cut_from} if image.cut_from else {}
    return json.dumps({"file_name": name, **scene, **place}) + "\n"


def write_places(folder: Path, lines: Sequence[str]) -> None:
    """Write the sidecar if an image has a place."""
    if lines:
        atomic.write_text(folder / INDEX, "".join(lines))


def placed(folder: Path, samples: Iterable[Sample]) -> Iterator[Sample]:
    """``samples`` with what the sidecar of their dataset says, where they do not say it themselves.

    Raises:
        DatasetError: the sidecar is damaged.
    """
    index: Mapping[str, Mapping[str, Any]] = read_index(folder) if folder.is_dir() else {}
    for sample in samples:
        image = sample.image
        line = index.get(PurePosixPath(image.file_name).name)
        if line is None:
            yield sample
            continue
        place = {} if image.extra.get("transform") else {key: line[key] for key in PLACE_KEYS if key in line}
        scene = image.scene or line.get("scene")
        yield replace(sample, image=replace(image, scene=scene, extra={**image.extra, **place}))

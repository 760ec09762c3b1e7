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
from dataset_tools.records import PLACE_KEYS, Sample

__all__ = ["place_line", "placed", "write_places"]


def place_line(item: Item, *, packed: bool) -> str:
    """The line in the sidecar of an image with a place; ``packed``: images keep the names that they came with."""
    image = item.sample.image
    name = PurePosixPath(image.file_name if packed else item.image_path).name
    scene = {"scene": image.cut_from} if image.cut_from else {}
    return json.dumps({"file_name": name, **scene, **image.place}) + "\n"


def write_places(folder: Path, lines: Sequence[str]) -> None:
    """Write the sidecar."""
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

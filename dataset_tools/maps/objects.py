"""Objects of a scene, put together again from the tiles that show parts of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from dataset_tools.errors import DatasetError
from dataset_tools.label_studio.annotations import PREDICTED
from dataset_tools.maps.georeference import Georeference
from dataset_tools.maps.raster import georeference_of, is_map_file, opened
from dataset_tools.maps.tiles import read_index
from dataset_tools.masks import Mask
from dataset_tools.records import Sample

__all__ = ["MapObject", "TilePlace", "TilePlaces", "joined", "objects_of"]

_SAME_OBJECT = 0.5
"""IoU inside the overlap of two tiles from which masks there are taken for one object."""
_UPLOAD_PREFIX = 9
"""Label Studio puts eight characters and a hyphen before the names of uploaded files."""


@dataclass(frozen=True)
class TilePlace:
    """Where an image lies in its scene.

    Attributes:
        scene: the scene's name.
        size: (width, height) of the scene in pixels.
        window: (x, y, width, height) of the image in it.
        reference: of the SCENE, not of the image.
    """

    scene: str
    size: tuple[int, int]
    window: tuple[int, int, int, int]
    reference: Georeference


@dataclass(frozen=True)
class MapObject:
    """An object in a scene.

    Attributes:
        place: of the image it was seen in.
        x, y: place of the mask's upper left pixel in the scene.
        mask: bool[h, w], only as large as the object.
        category: display name.
        expression: the words; those of several records of one object joined by "; ".
        score: the model's score, None where there was none.
        annotator, model_version, task: as ``dataset_tools.records.Provenance`` has them.
        origin: likewise, or ``predicted`` where nobody has looked at it.
    """

    place: TilePlace
    x: int
    y: int
    mask: Mask
    category: str
    expression: str = ""
    score: float | None = None
    annotator: str | None = None
    model_version: str | None = None
    task: str | None = None
    origin: str | None = None

    def inside(self, x0: int, y0: int, x1: int, y1: int) -> Mask:
        """The mask of the part of the scene from (x0, y0) to before (x1, y1), bool[y1 - y0, x1 - x0]."""
        part = np.zeros((y1 - y0, x1 - x0), bool)
        height, width = self.mask.shape
        left, top = max(x0, self.x), max(y0, self.y)
        right, bottom = min(x1, self.x + width), min(y1, self.y + height)
        if left < right and top < bottom:
            part[top - y0 : bottom - y0, left - x0 : right - x0] = self.mask[
                top - self.y : bottom - self.y, left - self.x : right - self.x
            ]
        return part


class TilePlaces:
    """Knows where images lie: from what a dataset says of them, a folder of tiles, or the images themselves.

    Args:
        tiles: a folder written by ``pslg dataset tile``; None if there is none.
    """

    def __init__(self, tiles: Path | None = None) -> None:
        self._index = read_index(tiles) if tiles is not None else {}
        if tiles is not None and not self._index:
            raise DatasetError(f"{tiles} has no tiles.jsonl with tiles: name the folder that `pslg dataset tile` wrote")

    def of(self, sample: Sample) -> TilePlace:
        """Where the image of ``sample`` lies.

        Raises:
            DatasetError: nothing says so; the message names the image.
        """
        image = sample.image
        name = Path(image.file_name).name
        line = self._index.get(name) or self._index.get(name[_UPLOAD_PREFIX:]) or image.extra
        place = _of_line(line, image.scene or Path(name).stem, (image.width, image.height))
        if place is None and image.location and is_map_file(Path(image.location)):
            with opened(Path(image.location)) as dataset:
                own = georeference_of(dataset)
            if own is not None:
                place = _of_line(own.to_json(), Path(name).stem, (image.width, image.height))
        if place is None:
            raise DatasetError(f"{image.file_name}: nothing says where it lies; name the folder of its tiles (--tiles)")
        if place.window[2:] != (image.width, image.height):
            raise DatasetError(
                f"{image.file_name} has {image.width} x {image.height} pixels, its tile {place.window[2]} x"
                f" {place.window[3]}: these are not the tiles that were labelled"
            )
        return place


def _of_line(line: Mapping[str, Any], scene: str, size: tuple[int, int]) -> TilePlace | None:
    own = Georeference.from_json(line)
    if own is None:
        return None
    x, y, width, height = line.get("window") or (0, 0, *size)
    whole = line.get("scene_size") or (x + width, y + height)
    return TilePlace(
        str(line.get("scene") or scene), (int(whole[0]), int(whole[1])), (x, y, width, height), own.shifted(-x, -y)
    )


def objects_of(samples: Iterable[Sample], places: TilePlaces, left_out: list[str]) -> Iterator[MapObject]:
    """Every object of ``samples`` once, its expressions joined; what cannot be placed is named in ``left_out``."""
    from dataset_tools.categories import category_named

    for sample in samples:
        try:
            place = places.of(sample)
        except DatasetError as error:
            left_out.append(str(error))
            continue
        seen: dict[tuple[str, str], MapObject] = {}
        for record in sample.records:
            for target, mask in zip(record.targets, sample.masks(record), strict=True):
                key = (record.category, target.counts)
                if key in seen:
                    seen[key] = _with_words(seen[key], [record.expression])
                    continue
                rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                if not rows.size:
                    continue
                crop = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                origin = record.provenance
                seen[key] = MapObject(
                    place, place.window[0] + int(columns[0]), place.window[1] + int(rows[0]), crop.copy(),
                    category_named(record.category).display, record.expression, origin.score,
                    _text(origin.annotator), origin.model_version, _text(origin.task),
                    PREDICTED if origin.source == PREDICTED else origin.origin,
                )  # fmt: skip
        yield from seen.values()


def joined(objects: Sequence[MapObject]) -> list[MapObject]:
    """The objects with those that several tiles show put together.

    Two masks of one category from different tiles are one object if they agree in the part that both tiles show (IoU of
    at least 0.5 there). Neighbours that only touch, and parts on both sides of a cut without overlap, stay apart. The
    joined object keeps the words of all its parts and the other values of the largest that somebody accepted, if any.
    """
    from shapely import STRtree, box

    if not objects:
        return []
    boxes = [box(o.x, o.y, o.x + o.mask.shape[1], o.y + o.mask.shape[0]) for o in objects]
    same = DisjointSet(range(len(objects)))
    first, second = STRtree(boxes).query(boxes, predicate="intersects")
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        if i < j and _are_one(objects[i], objects[j]):
            same.merge(i, j)
    return [_union([objects[i] for i in sorted(group)]) for group in same.subsets()]


def _are_one(a: MapObject, b: MapObject) -> bool:
    if (a.place.scene, a.category) != (b.place.scene, b.category) or a.place.window == b.place.window:
        return False
    (ax, ay, aw, ah), (bx, by, bw, bh) = a.place.window, b.place.window
    x0, y0, x1, y1 = max(ax, bx), max(ay, by), min(ax + aw, bx + bw), min(ay + ah, by + bh)
    if x0 >= x1 or y0 >= y1:
        return False
    # Only the part of the overlap that either mask reaches: a scene's overlap may be a long strip.
    x0, y0 = max(x0, min(a.x, b.x)), max(y0, min(a.y, b.y))
    x1 = min(x1, max(a.x + a.mask.shape[1], b.x + b.mask.shape[1]))
    y1 = min(y1, max(a.y + a.mask.shape[0], b.y + b.mask.shape[0]))
    if x0 >= x1 or y0 >= y1:
        return False
    one, other = a.inside(x0, y0, x1, y1), b.inside(x0, y0, x1, y1)
    union = int((one | other).sum())
    return union > 0 and int((one & other).sum()) / union >= _SAME_OBJECT


def _union(parts: Sequence[MapObject]) -> MapObject:
    largest = max(parts, key=lambda part: (part.origin != PREDICTED, int(part.mask.sum())))
    if len(parts) == 1:
        return largest
    x0, y0 = min(p.x for p in parts), min(p.y for p in parts)
    x1, y1 = max(p.x + p.mask.shape[1] for p in parts), max(p.y + p.mask.shape[0] for p in parts)
    mask = np.zeros((y1 - y0, x1 - x0), bool)
    for part in parts:
        mask |= part.inside(x0, y0, x1, y1)
    whole = replace(largest, x=x0, y=y0, mask=mask)
    return _with_words(whole, [part.expression for part in parts])


def _with_words(item: MapObject, expressions: Iterable[str]) -> MapObject:
    words = dict.fromkeys([*item.expression.split("; "), *expressions])
    return replace(item, expression="; ".join(word for word in words if word))


def _text(value: object) -> str | None:
    return None if value is None else str(value)

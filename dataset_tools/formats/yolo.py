"""Exports for detectors: ultralytics' ``yolo-seg`` and ``yolo-obb``, and DOTA. They are written, not read.

    yolo-seg, yolo-obb: data.yaml    images/<split>/<file>    labels/<split>/<stem>.txt
    dota:               <split>/images/<file>                 <split>/labelTxt/<stem>.txt

A line of yolo is ``class x y x y ...`` in shares of the image's width and height, classes from 0 as in data.yaml; an
object is ONE polygon (its parts tied together by lines of no width), or the four corners of the smallest rectangle of
its mask. A line of DOTA is ``x y x y x y x y category difficult`` in pixels, blanks in a category as ``-``. An image
without objects has an empty file. Crowds stay behind: these formats have no word for them. An image whose records are
of several splits goes to the one held out furthest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import yaml

from dataset_tools import atomic
from dataset_tools.formats.coco import objects
from dataset_tools.formats.items import SPLITS, Contents, Item, Items, display_name, flat_name, image_split
from dataset_tools.formats.outlines import Corners, Loss, joined
from dataset_tools.masks import Mask, from_coco, smallest_rectangle, to_polygons

_TOLERANCE = 1.0
"""Pixels by which a yolo-seg polygon may leave the mask's outline."""


def _masks(item: Item) -> Iterator[tuple[str, Mask]]:
    height, width = item.sample.image.height, item.sample.image.width
    for category, target, _ in objects(item):
        if not target.crowd:
            yield category, from_coco({"size": [height, width], "counts": target.counts}, height, width)


def _crowds(items: Items) -> str:
    count = sum(target.crowd for item in items() for _, target, _ in objects(item))
    return f"; {count:,} crowds stay behind" if count else ""


class _YoloWriter:
    """What the two forms of yolo share."""

    def image_path(self, _number: int, file_name: str, split: str) -> str:
        """``images/<split>/<file>``."""
        return f"images/{split}/{flat_name(file_name)}"

    def files(self, _item: Item) -> Iterator[tuple[str, bytes]]:
        """Nothing: labels need the classes of the whole dataset."""
        yield from ()

    def _labels(self, root: Path, items: Items, ids: Mapping[str, int]) -> Iterator[tuple[Item, int, Mask, list[str]]]:
        """Every object with its class and the lines that its image's file will have; the caller adds the object's."""
        for item in items():
            lines: list[str] = []
            for category, mask in _masks(item):
                yield item, ids[category], mask, lines
            path = PurePosixPath("labels", *PurePosixPath(item.image_path).parts[1:]).with_suffix(".txt")
            _write(root / path, lines)
        splits = {image_split(item.sample) for item in items()}
        # ultralytics asks for train and val; a dataset without a val is validated on what it has.
        first = next(split for split in (*SPLITS, *sorted(splits)) if split in splits)
        parts = {split: f"images/{split if split in splits else first}" for split in ("train", "val")}
        more = {split: f"images/{split}" for split in sorted(splits - set(parts))}
        names = {number: display_name(name) for name, number in ids.items()}
        atomic.write_text(root / "data.yaml", yaml.safe_dump({**parts, **more, "names": names}, sort_keys=False))


class YoloSegWriter(_YoloWriter):
    """Writes ultralytics' polygons."""

    def finish(self, root: Path, items: Items, contents: Contents) -> str:
        """Labels and ``data.yaml``."""
        loss = Loss()
        for item, number, mask, lines in self._labels(root, items, contents.category_ids):
            polygon = joined(to_polygons(mask, _TOLERANCE))
            loss.add(mask, [polygon], item.sample.image.file_name)
            lines.append(_shares(number, np.reshape(polygon, (-1, 2)), mask))
        return f"{loss}{_crowds(items)}"


class YoloObbWriter(_YoloWriter):
    """Writes ultralytics' rotated boxes; ultralytics refuses corners outside of the image, so they are moved in."""

    def finish(self, root: Path, items: Items, contents: Contents) -> str:
        """Labels and ``data.yaml``."""
        filled = _Filled()
        for _, number, mask, lines in self._labels(root, items, contents.category_ids):
            corners = smallest_rectangle(mask)
            inside = np.clip(corners, 0, (mask.shape[1], mask.shape[0]))
            filled.add(mask, corners, cut=not np.allclose(inside, corners, atol=0.01))
            lines.append(_shares(number, inside, mask))
        return f"{filled}{_crowds(items)}"


class DotaWriter:
    """Writes DOTA's label files."""

    def image_path(self, _number: int, file_name: str, split: str) -> str:
        """``<split>/images/<file>``."""
        return f"{split}/images/{flat_name(file_name)}"

    def files(self, _item: Item) -> Iterator[tuple[str, bytes]]:
        """Nothing: the label files are written at the end, when it is known what was lost."""
        yield from ()

    def finish(self, root: Path, items: Items, _contents: Contents) -> str:
        """``<split>/labelTxt/<stem>.txt``."""
        filled = _Filled()
        for item in items():
            lines = []
            for category, mask in _masks(item):
                corners = smallest_rectangle(mask)
                filled.add(mask, corners)
                numbers = " ".join(f"{value + 0.0:.1f}" for value in np.round(corners.reshape(-1), 1))  # no -0.0
                lines.append(f"{numbers} {'-'.join(display_name(category).split())} 0")
            path = PurePosixPath(item.image_path)
            _write(root / path.parent.parent / "labelTxt" / f"{path.stem}.txt", lines)
        return f"{filled}{_crowds(items)}"


class _Filled:
    """How much of their rectangles masks fill."""

    def __init__(self) -> None:
        self._objects, self._cut, self._total = 0, 0, 0.0

    def add(self, mask: Mask, corners: Corners, cut: bool = False) -> None:
        sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
        self._objects += 1
        self._cut += cut
        self._total += float(mask.sum()) / max(1.0, float(sides[0] * sides[1]))

    def __str__(self) -> str:
        cut = f"; {self._cut:,} reached beyond their image and are cut to it" if self._cut else ""
        mean = self._total / max(1, self._objects)
        return f"{self._objects:,} masks became rectangles, of which they fill {mean:.1%} on average{cut}"


def _shares(number: int, corners: Corners, mask: Mask) -> str:
    shares = corners / (mask.shape[1], mask.shape[0])
    return " ".join([str(number), *(f"{value:.6f}" for value in shares.reshape(-1))])


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

"""An expression asked of a whole scene that is too large to be one image: found in tiles, chosen over the scene.

"The largest ship" means the scene, not a tile: every tile and one reduced view of the whole are searched for objects,
and the relation program then runs once, over all of them. Where the scene has a coordinate reference system directions
are the map's: "north of" goes by its transform, not by rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from backend.pipeline.grounding.box_colors import color_in_box
from backend.pipeline.grounding.compact.answering import answer
from backend.pipeline.grounding.compact.detections import TILE, TILE_OVERLAP, Detection, is_cut, without_repeats
from backend.pipeline.grounding.compact.grounder import CompactGrounder
from backend.pipeline.pslg_sam import PslgSam
from backend.pipeline.types import Abstention, Grounding, Image
from dataset_tools.categories import category_named
from dataset_tools.colors import Rgb
from dataset_tools.errors import ConfigError
from dataset_tools.expressions.parser import parse
from dataset_tools.geometry import Box
from dataset_tools.maps.georeference import Georeference
from dataset_tools.maps.objects import MapObject, TilePlace
from dataset_tools.maps.scene import MapScene
from dataset_tools.maps.tiles import windows
from dataset_tools.masks import Mask

__all__ = ["SceneAnswer", "prelabel_scene"]

_WHOLE_SIDE = 2048
"""Long side in pixels of the reduced view of the whole, in which objects longer than half an overlap are found."""
_LARGEST_CROP = 4096
_CROP_MARGIN = 96
_METRES_PER_DEGREE = 111_320.0

Track = Callable[[str, Sequence[Any]], Iterable[Any]]
"""Goes through a sequence, for a progress bar that says what it is."""


@dataclass(frozen=True)
class SceneAnswer:
    """What an expression means in a scene: its objects, or why there are none."""

    objects: tuple[MapObject, ...]
    abstention: Abstention | None
    detections: int


def prelabel_scene(
    pipeline: PslgSam,
    scene: MapScene,
    expression: str,
    journal: Path | None = None,
    track: Track = lambda _what, items: items,
) -> SceneAnswer:
    """One object per thing that ``expression`` describes in ``scene``, in the scene's own pixels.

    Args:
        pipeline: one whose grounder detects objects (kind ``compact``).
        scene: open.
        expression: as for ``PslgSam.prelabel``.
        journal: file in which what the tiles held is kept until the end, so that a run that was stopped goes on; None:
            nothing is kept.
        track: see ``Track``.

    Raises:
        ConfigError: the pipeline's grounder reads the expression and the image as one, so that it cannot be asked of
            tiles.
    """
    grounder = pipeline.grounder
    if not isinstance(grounder, CompactGrounder):
        raise ConfigError(
            f"{pipeline.config.name} cannot search scenes in tiles; take a config whose grounder is of kind compact, or"
            " cut the scene first (pslg dataset tile)"
        )
    query = parse(expression, grounder.known_categories)
    refusal = grounder.refusal(query)
    if refusal is not None:
        return SceneAnswer((), refusal, 0)
    key = [scene.source, scene.width, scene.height, list(scene.bands), scene.stretch, pipeline.model_version]
    with closing(_TileJournal(journal, key)) as kept:
        found = without_repeats(list(_detections(grounder, scene, kept, track)))
    upright = _Upright(scene)
    of_map = [Detection(upright.box(d.box), d.category, d.score) for d in found]
    in_scene = {d.box: f.box for d, f in zip(of_map, found, strict=True)}

    def color_of(box: Box) -> Rgb | None:
        where = in_scene.get(box)
        if where is None:
            return None
        crop, x, y, factor = _crop(scene, where)
        return color_in_box(crop, _scaled(where.shifted(-x, -y), factor))

    result = answer(query, of_map, grounder.calibration, upright.size, color_of)
    if result.abstention is not None:
        return SceneAnswer((), result.abstention, len(found))
    place = TilePlace(
        scene.name, (scene.width, scene.height), (0, 0, scene.width, scene.height),
        scene.reference or Georeference(None, (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)),
    )  # fmt: skip
    objects = []
    for grounding in track("outlining", result.groundings):
        where = in_scene[grounding.box]
        item = _outlined(pipeline, scene, grounding, where, place, expression)
        if item is not None:
            objects.append(item)
    return SceneAnswer(tuple(objects), None, len(found))


def _outlined(
    pipeline: PslgSam, scene: MapScene, grounding: Grounding, box: Box, place: TilePlace, expression: str
) -> MapObject | None:
    crop, x, y, factor = _crop(scene, box)
    inside = Grounding(_scaled(box.shifted(-x, -y), factor), grounding.score, grounding.category)
    for prelabel in pipeline.segment(crop, (inside,), expression):
        mask: Mask = prelabel.mask
        if factor != 1.0:
            size = round(crop.shape[1] / factor), round(crop.shape[0] / factor)
            mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
        tight = Box.of_mask(mask)
        x0, y0, x1, y1 = (int(value) for value in tight)
        return MapObject(
            place, x + x0, y + y0, mask[y0:y1, x0:x1].copy(), category_named(prelabel.category or "").display,
            expression, round(float(prelabel.score), 4), None, pipeline.model_version, None, "predicted",
        )  # fmt: skip
    return None


def _crop(scene: MapScene, box: Box) -> tuple[Image, int, int, float]:
    """What surrounds ``box``: uint8[h, w, 3] RGB, its place (x, y) in the scene, its pixels per pixel of the scene."""
    margin = max(_CROP_MARGIN, round(0.5 * max(box.width, box.height)))
    x0, y0 = max(0, math.floor(box.x0) - margin), max(0, math.floor(box.y0) - margin)
    x1, y1 = min(scene.width, math.ceil(box.x1) + margin), min(scene.height, math.ceil(box.y1) + margin)
    width, height = x1 - x0, y1 - y0
    factor = min(1.0, _LARGEST_CROP / max(width, height))
    size = None if factor == 1.0 else (max(1, round(width * factor)), max(1, round(height * factor)))
    return _on_white(scene.read((x0, y0, width, height), size)), x0, y0, factor


def _scaled(box: Box, factor: float) -> Box:
    return Box(*(value * factor for value in box))


def _on_white(pixels: Any) -> Image:
    """RGB of uint8[H, W, 4] RGBA, white where there is nothing, as images are read everywhere."""
    rgb: Image = np.ascontiguousarray(pixels[..., :3])
    soft = pixels[..., 3] < 255
    if soft.any():
        opacity = pixels[soft][:, 3:].astype(np.float32) / 255
        rgb[soft] = np.rint(rgb[soft] * opacity + 255 * (1 - opacity))
    return rgb


def _detections(grounder: CompactGrounder, scene: MapScene, kept: _TileJournal, track: Track) -> Iterator[Detection]:
    """Everything found in tiles and in the reduced whole, in pixels of the scene; repeats included."""
    places = list(windows(scene.width, scene.height, TILE, TILE_OVERLAP))
    whole = len(places) > 1
    if whole:
        factor = min(1.0, _WHOLE_SIDE / max(scene.width, scene.height))
        size = max(1, round(scene.width * factor)), max(1, round(scene.height * factor))
        window = (0, 0, scene.width, scene.height)
        for found in kept.get_or(window, lambda: grounder.detections(_on_white(scene.read(window, size)))):
            box = _scaled(found.box, 1 / factor)
            if max(box.width, box.height) > TILE_OVERLAP / 2:
                yield Detection(box, found.category, found.score)
    for tile in track("searching", places):
        x, y, width, height = tile

        def search(where: tuple[int, int, int, int] = tile) -> Sequence[Detection]:
            pixels = scene.read(where)
            return grounder.detections(_on_white(pixels)) if pixels[..., 3].any() else ()

        for found in kept.get_or(tile, search):
            box = found.box.shifted(x, y)
            if not whole or not is_cut(box, Box(x, y, x + width, y + height), scene.width, scene.height):
                yield Detection(box, found.category, found.score)


class _Upright:
    """The scene as a map shows it: north up, east to the right, in pixels of equal length on the ground."""

    def __init__(self, scene: MapScene) -> None:
        self._reference = scene.reference if scene.reference and scene.reference.crs else None
        if self._reference is None:
            self.size = (scene.height, scene.width)
            return
        _, y = self._reference.position(scene.width / 2, scene.height / 2)
        stretch = math.cos(math.radians(y)) if _is_geographic(self._reference.crs) else 1.0
        pixel = self._reference.pixel[1]
        self._scale = (stretch / pixel, 1 / pixel)
        self._left, self._top = 0.0, 0.0
        bounds = self._corners(Box(0, 0, scene.width, scene.height))
        self._left, self._top = bounds.x0, bounds.y0
        self.size = (max(1, round(bounds.height)), max(1, round(bounds.width)))

    def box(self, box: Box) -> Box:
        """The box around ``box`` on the map."""
        return box if self._reference is None else self._corners(box)

    def _corners(self, box: Box) -> Box:
        assert self._reference is not None  # noqa: S101 - for the type checker
        corners = [self._reference.position(x, y) for x in (box.x0, box.x1) for y in (box.y0, box.y1)]
        xs = [x * self._scale[0] - self._left for x, _ in corners]
        ys = [-y * self._scale[1] - self._top for _, y in corners]
        return Box(min(xs), min(ys), max(xs), max(ys))


def _is_geographic(crs: str | None) -> bool:
    from rasterio.crs import CRS

    return bool(CRS.from_user_input(crs).is_geographic)


class _TileJournal:
    """What each tile held, one JSON line a tile, below a line that says what it belongs to."""

    def __init__(self, path: Path | None, key: list[Any]) -> None:
        self._path = path
        self._known: dict[tuple[int, ...], list[Detection]] = {}
        self._file = None
        if path is None:
            return
        head = json.dumps({"scene": key})
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        if lines and lines[0] == head:
            for text in lines[1:]:
                try:
                    line = json.loads(text)
                    self._known[tuple(line["window"])] = [Detection(Box(*b), c, s) for b, c, s in line["found"]]
                except (ValueError, KeyError, TypeError):
                    break  # cut off by a kill
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")
        self._file.write(head + "\n")
        for window, found in self._known.items():
            self._write(window, found)

    def get_or(self, window: tuple[int, ...], search: Callable[[], Sequence[Detection]]) -> Sequence[Detection]:
        """What ``window`` held, searched now if it is not known yet."""
        if window not in self._known:
            self._known[window] = list(search())
            self._write(window, self._known[window])
        return self._known[window]

    def _write(self, window: tuple[int, ...], found: Sequence[Detection]) -> None:
        if self._file is not None:
            rows = [[[round(float(v), 3) for v in d.box], d.category, round(d.score, 5)] for d in found]
            self._file.write(json.dumps({"window": list(window), "found": rows}) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file; ``pslg prelabel`` deletes it once the answer is written."""
        if self._file is not None:
            self._file.close()

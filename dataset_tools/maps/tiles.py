"""Tiles of large images, with the transform that leads back: name, scene and window are kept for every tile.

``tiles.jsonl`` beside the tiles holds one object per tile::

    {"file_name": "city_0_960.png", "scene": "city", "source": "city.tif", "scene_size": [24000, 18000],
     "window": [0, 960, 1024, 1024], "bands": [1, 2, 3], "stretch": null, "gsd": null,
     "crs": "EPSG:32614", "transform": [0.3, 0.0, 620000.0, 0.0, -0.3, 3349712.0]}

``window`` is (x, y, width, height) in pixels of the scene as it was read (after ``gsd``); ``transform`` is the tile's
own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dataset_tools import atomic
from dataset_tools.errors import DatasetError
from dataset_tools.maps.scene import MapScene, Window, open_scene

__all__ = ["INDEX", "read_index", "tile", "windows"]

INDEX = "tiles.jsonl"
_SAME = ("source", "scene_size", "window", "bands", "stretch", "gsd", "crs", "transform")
"""What must be as it was for a tile that is there to be kept."""


def windows(width: int, height: int, side: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """(x, y, width, height) of tiles that cover an image; the last row and column are moved inwards to be whole."""

    def starts(length: int) -> list[int]:
        if length <= side:
            return [0]
        count = -(-(length - overlap) // (side - overlap))
        return [round(k * (length - side) / (count - 1)) for k in range(count)]

    for y in starts(height):
        for x in starts(width):
            yield x, y, min(side, width), min(side, height)


def tile(
    source: Path | str,
    folder: Path,
    side: int = 1024,
    overlap: int = 64,
    *,
    bands: Sequence[int] | None = None,
    gsd: float | None = None,
    track: Callable[[Sequence[Window]], Iterable[Window]] = iter,
    note: Callable[[str], object] = lambda _text: None,
) -> list[Path]:
    """Cut a scene into PNG tiles ``<stem>_<x>_<y>.png`` and write one line per tile to ``tiles.jsonl``.

    Where the scene holds nothing (nodata, mask, transparency) a tile is transparent; tiles that hold nothing, and tiles
    of one colour (the fill around an oblique scene), are left out. A run that was stopped goes on where it was.

    Args:
        source: as for ``dataset_tools.maps.scene.open_scene``; memory does not grow with the size of map files.
        folder: where the tiles go.
        side: in pixels.
        overlap: of neighbouring tiles in pixels, at least; below ``side``.
        bands, gsd: as for ``open_scene``.
        track: goes through the windows, for a progress bar.
        note: called with what a person should know of how the scene is read.

    Returns:
        The scene's tiles, those of an earlier run included.

    Raises:
        DatasetError: the scene is unreadable, the sizes do not fit, or the folder holds tiles of another scene with the
            same name.
    """
    if not 0 <= overlap < side:
        raise DatasetError(f"the overlap ({overlap}) must be at least 0 and below the side ({side})")
    folder.mkdir(parents=True, exist_ok=True)
    with open_scene(source, bands=bands, gsd=gsd) as scene:
        for sentence in scene.notes:
            note(f"{scene.source}: {sentence}")
        there = _tidy(folder)
        _refuse_another(scene, there, folder)
        made = []
        places = list(windows(scene.width, scene.height, side, overlap))
        # One line is appended as soon as its tile is whole, so that nothing is done twice after a kill.
        with (folder / INDEX).open("a", encoding="utf-8") as index:
            for window in track(places):
                line = _line(scene, window, gsd)
                file = folder / str(line["file_name"])
                before = there.get(file.name)
                if before is None or any(before.get(key) != line[key] for key in _SAME) or not file.is_file():
                    pixels = scene.read(window)
                    if _is_nothing(pixels):
                        continue
                    atomic.write_bytes(file, _png(pixels))
                    index.write(json.dumps(line) + "\n")
                    index.flush()
                made.append(file)
    _tidy(folder)
    return made


def read_index(folder: Path) -> dict[str, dict[str, Any]]:
    """Lines of ``folder``'s ``tiles.jsonl`` by file name, the last of each; a line cut off at the end is passed over.

    Raises:
        DatasetError: a line that is not the last is no JSON object with a file name.
    """
    path = folder / INDEX
    texts = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found: dict[str, dict[str, Any]] = {}
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            found[str(line["file_name"])] = line
        except (ValueError, KeyError, TypeError) as error:
            if number < len(texts):
                raise DatasetError(
                    f"{path} line {number} is no tile's line ({text[:60]!r}): repair or delete it"
                ) from error
    return found


def _line(scene: MapScene, window: tuple[int, int, int, int], gsd: float | None) -> dict[str, Any]:
    x, y, _, _ = window
    reference = scene.reference.shifted(x, y) if scene.reference else None
    return {
        "file_name": f"{scene.name}_{x}_{y}.png", "scene": scene.name, "source": scene.source,
        "scene_size": [scene.width, scene.height], "window": list(window), "bands": list(scene.bands),
        "stretch": list(scene.stretch) if scene.stretch else None, "gsd": gsd,
        **(reference.to_json() if reference else {"crs": None, "transform": None}),
    }  # fmt: skip


def _refuse_another(scene: MapScene, there: dict[str, dict[str, Any]], folder: Path) -> None:
    """Two scenes with one name would overwrite each other's tiles."""
    crs = scene.reference.crs if scene.reference else None
    for line in there.values():
        if line.get("scene") == scene.name and (line.get("source"), line.get("crs")) != (scene.source, crs):
            raise DatasetError(
                f"{folder} holds tiles of another scene called {scene.name} ({line.get('source')},"
                f" CRS {line.get('crs')}; this one is {scene.source}, CRS {crs}): choose another --out"
            )


def _tidy(folder: Path) -> dict[str, dict[str, Any]]:
    """Write the index anew, one whole line a tile, without tiles that are gone, and return it."""
    kept = {name: line for name, line in sorted(read_index(folder).items()) if (folder / name).is_file()}
    atomic.write_text(folder / INDEX, "".join(json.dumps(line) + "\n" for line in kept.values()))
    return kept


def _is_nothing(pixels: npt.NDArray[np.uint8]) -> bool:
    seen = pixels[..., 3] > 0
    if not seen.any():
        return True
    colors = pixels[seen]
    return bool((colors == colors[0]).all())


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A PNG of uint8[H, W, 4] RGBA, without the fourth channel where nothing is transparent."""
    opaque = bool((pixels[..., 3] == 255).all())
    encoded, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGR if opaque else cv2.COLOR_RGBA2BGRA))
    assert encoded  # noqa: S101 - PNG takes every 8-bit array
    return bytes(data)

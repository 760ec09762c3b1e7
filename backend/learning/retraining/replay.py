"""Images that keep a training from forgetting what the base model knows, and those on which the gate checks that.

They come from a research data set where the settings name one, else they are drawn; either way the two parts have no
image in common, and the same settings give the same images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dataset_tools import formats
from dataset_tools.errors import ConfigError, DatasetError, MaskError
from dataset_tools.formats import coco_jsonl
from dataset_tools.labelled import LabelledImage, read

__all__ = ["Replay", "check_replay", "drawn_scenes", "read_replay"]

TRAINING, GATE = 48, 24
"""Images to learn from and to measure on, at most: each costs time in every job."""
_PARTS = ("train", "val")
_DRAWN = (500_000, 600_000)  # seeds of the drawn scenes of the two parts


@dataclass(frozen=True)
class Replay:
    """Replay images: to learn from, to measure on, and what they are in words."""

    training: Sequence[LabelledImage]
    gate: Sequence[LabelledImage]
    description: str


def check_replay(folder: Path | None) -> None:
    """Look whether ``read_replay`` will have images, without reading annotations where the format allows that: a server
    does so whenever it starts. No image is opened.

    Args:
        folder: a dataset folder with the parts train and val; None for drawn scenes.

    Raises:
        ConfigError: the folder is missing or malformed, lacks a part, a part is empty, or an image file is missing.
    """
    if folder is None:
        return
    with _named(folder):
        if formats.detect(folder) != "coco_jsonl":
            _read_parts(folder)
            return
        splits = coco_jsonl.look(folder)
        for part in _PARTS:
            if part not in splits:
                raise DatasetError(f"there is no split {part!r}; split.json has {sorted(splits)}")
            if not splits[part]:
                raise DatasetError(f"its part {part!r} has no images")


def read_replay(folder: Path | None, drawn: Path) -> Replay:
    """The replay images of a server.

    Args:
        folder: a dataset folder with the parts train and val; None draws scenes.
        drawn: folder where drawn scenes are kept.

    Raises:
        ConfigError: the folder cannot be read; see ``check_replay``.
    """
    if folder is None:
        parts = [drawn_scenes(drawn, count, seed) for count, seed in zip((TRAINING, GATE), _DRAWN, strict=True)]
        return Replay(parts[0], parts[1], f"{TRAINING} and {GATE} drawn scenes")
    with _named(folder):
        training, gate = _read_parts(folder)
    return Replay(_some(training, TRAINING), _some(gate, GATE), f"{folder}, parts train and val")


def _read_parts(folder: Path) -> list[list[LabelledImage]]:
    """The images of both parts."""
    parts = []
    for part in _PARTS:
        images = read(folder, part)
        if not images:
            raise DatasetError(f"its part {part!r} has no images")
        missing = [image.path for image in images if not image.path.is_file()]
        if missing:
            raise DatasetError(f"{len(missing)} image files are missing, e.g. {missing[0]}")
        parts.append(images)
    return parts


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """What is wrong with the folder is a matter of the setting that names it."""
    try:
        yield
    except (DatasetError, MaskError, OSError) as error:
        raise ConfigError(
            f"PSLG_TRAIN_REPLAY names {folder}, which is of no use to a training: {error}; name a dataset"
            " folder with the parts train and val, or leave it out for drawn scenes"
        ) from error


def _some(images: Sequence[LabelledImage], count: int) -> list[LabelledImage]:
    """``count`` of the images, always the same."""
    chosen = np.random.default_rng(0).permutation(len(images))[:count]
    return [images[index] for index in sorted(chosen)]


def drawn_scenes(
    folder: Path, count: int, seed: int = 0, *, width: int = 800, height: int = 600
) -> list[LabelledImage]:
    """Drawn scenes with their expressions.

    Args:
        folder: where the scenes are written (``dataset_tools.synthetic.write``); a folder that already holds these
            scenes is read.
        count: number of scenes.
        seed: of the first scene; each following scene has the next one.
        width, height: size in pixels, at least 128.
    """
    from dataset_tools import synthetic

    target = folder / f"scenes_{seed}_{count}_{width}x{height}"
    if not (target / "expressions.jsonl").is_file():  # written last
        draw = partial(synthetic.draw_scene, width=width, height=height)
        synthetic.write(target, map(draw, range(seed, seed + count)), seed)
    return read(target)

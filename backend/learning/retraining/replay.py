"""Images that keep a training from forgetting what the base model knows, and those on which the gate checks that.

They come from a research data set where the settings name one, else they are drawn; either way the two parts have no
image in common, and the same settings give the same images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataset_tools.errors import ConfigError, DatasetError, MaskError
from dataset_tools.formats import coco_jsonl

if TYPE_CHECKING:
    from backend.learning.examples import LabelledImage

__all__ = ["Replay", "check_replay", "read_replay"]

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
    """Look whether ``read_replay`` will have images; no image is opened.

    Args:
        folder: a ``coco_jsonl`` folder with the parts train and val; None for drawn scenes.

    Raises:
        ConfigError: the folder is missing or malformed, lacks a part, a part is empty, or an image file is missing.
    """
    if folder is None:
        return
    with _named(folder):
        for part in _PARTS:
            if not coco_jsonl.read(folder, part).images:
                raise DatasetError(f"its part {part!r} has no images")


def read_replay(folder: Path | None, drawn: Path) -> Replay:
    """The replay images of a server.

    Args:
        folder: a ``coco_jsonl`` folder with the parts train and val; None draws scenes.
        drawn: folder where drawn scenes are kept.

    Raises:
        ConfigError: the folder cannot be read; see ``check_replay``.
    """
    from backend.learning.examples import read_coco_jsonl, synthetic_examples

    if folder is None:
        parts = [synthetic_examples(drawn, count, seed) for count, seed in zip((TRAINING, GATE), _DRAWN, strict=True)]
        return Replay(parts[0], parts[1], f"{TRAINING} and {GATE} drawn scenes")
    check_replay(folder)
    with _named(folder):
        training, gate = (read_coco_jsonl(folder, part) for part in _PARTS)
    return Replay(_some(training, TRAINING), _some(gate, GATE), f"{folder}, parts train and val")


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """What is wrong with the folder is a matter of the setting that names it."""
    try:
        yield
    except (DatasetError, MaskError, OSError) as error:
        raise ConfigError(
            f"PSLG_TRAIN_REPLAY names {folder}, which is of no use to a training: {error}; name a coco_jsonl folder"
            " with the parts train and val, or leave it out for drawn scenes"
        ) from error


def _some(images: Sequence[LabelledImage], count: int) -> list[LabelledImage]:
    """``count`` of the images, always the same."""
    chosen = np.random.default_rng(0).permutation(len(images))[:count]
    return [images[index] for index in sorted(chosen)]

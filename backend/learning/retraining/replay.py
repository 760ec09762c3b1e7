"""Images that keep a training from forgetting what the base model knows, and those on which the gate checks that.

They come from a research data set where the settings name one, else they are drawn; either way the two parts have no
image in common, and the same settings give the same images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from backend.learning.examples import LabelledImage

__all__ = ["Replay", "read_replay"]

TRAINING, GATE = 48, 24
"""Images to learn from and to measure on, at most: each costs time in every job."""
_DRAWN = (500_000, 600_000)  # seeds of the drawn scenes of the two parts


@dataclass(frozen=True)
class Replay:
    """Replay images: to learn from, to measure on, and what they are in words."""

    training: Sequence[LabelledImage]
    gate: Sequence[LabelledImage]
    description: str


def read_replay(folder: Path | None, state_dir: Path) -> Replay:
    """The replay images of a server.

    Args:
        folder: a ``coco_jsonl`` folder with the parts train and val; None draws scenes.
        state_dir: where drawn scenes are kept.

    Raises:
        DatasetError: the folder cannot be read.
    """
    from backend.learning.examples import read_coco_jsonl, synthetic_examples

    if folder is None:
        parts = [
            synthetic_examples(state_dir / "replay", count, seed)
            for count, seed in zip((TRAINING, GATE), _DRAWN, strict=True)
        ]
        return Replay(parts[0], parts[1], f"{TRAINING} and {GATE} drawn scenes")
    training, gate = (read_coco_jsonl(folder, split) for split in ("train", "val"))
    return Replay(_some(training, TRAINING), _some(gate, GATE), f"{folder}, parts train and val")


def _some(images: Sequence[LabelledImage], count: int) -> list[LabelledImage]:
    """``count`` of the images, always the same."""
    chosen = np.random.default_rng(0).permutation(len(images))[:count]
    return [images[index] for index in sorted(chosen)]

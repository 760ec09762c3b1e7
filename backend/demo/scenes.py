"""The demo's own data: drawn scenes with their true masks and referring expressions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from dataset_tools import synthetic

SEEDS = range(7_000_200, 7_000_212)
"""Far from the seeds of the scenes that the compact models were trained on."""
SCALE = 1.2
"""Of all objects: rather large, so that they can be seen in a contact sheet."""


def write_scenes(folder: Path, progress: Callable[[], object]) -> None:
    """Draw the scenes and write them as a ``coco_jsonl`` folder.

    Args:
        folder: where to.
        progress: called after each scene.
    """

    def drawn() -> Iterator[synthetic.Scene]:
        for seed, theme in zip(SEEDS, itertools.cycle(synthetic.THEMES)):
            yield synthetic.draw_scene(seed, theme=theme, scale=SCALE)
            progress()

    synthetic.write(folder, drawn())

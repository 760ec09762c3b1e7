"""Labelled images of bright rectangles on dark ground, written to disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from backend.pipeline.types import Box
from dataset_tools.labelled import LabelledImage, LabelledObject
from tests.training.segmenter.test_training import rectangle


def labelled_rectangles(folder: Path, count: int, seed: int = 0) -> list[LabelledImage]:
    """``count`` images of 100 x 120 pixels, each with one rectangle that is labelled vehicle or harbor."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for number in range(count):
        x, y = rng.integers(5, 60, 2)
        width, height = rng.integers(15, 35, 2)
        image, mask = rectangle(100, 120, Box(float(x), float(y), float(x + width), float(y + height)))
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), image)
        objects = (LabelledObject.of(("vehicle", "harbor")[number % 2], mask),)
        images.append(LabelledImage(path, 100, 120, objects))
    return images

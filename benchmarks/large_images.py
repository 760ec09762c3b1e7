"""Small objects in large images, read whole and in tiles: ``python -m benchmarks.large_images --data DIR --split val``.

Large images are made of the images of one part of a ``coco_jsonl`` folder, laid side by side in a grid and no smaller
than they were. Printed per object size and reading: how many true objects are found (box IoU of at least 0.5, a
probability of at least the answering one), how many boxes match none, and the seconds per image.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backend.pipeline.grounding.compact.detections import PADDING_VALUE, Detection, detect, detect_anywhere
from backend.pipeline.grounding.compact.detector_file import load_detector
from backend.pipeline.grounding.compact.network import Calibration
from backend.pipeline.types import Image
from backend.pipeline.weights.folders import SHIPPED_FOLDER
from backend.training.grounder.data import TrainingImage, load_folder
from dataset_tools.geometry import Box

SIZES = (("below 32 px", 0.0, 32.0), ("32 to 128 px", 32.0, 128.0), ("above 128 px", 128.0, np.inf))
"""Name, least and greatest longer side of the true box in pixels."""
Truth = list[tuple[str, Box]]


def mosaic(images: Sequence[TrainingImage], columns: int) -> tuple[Image, Truth]:
    """The images in rows of ``columns``, and the category and box of every object."""
    height = max(image.image.shape[0] for image in images)
    width = max(image.image.shape[1] for image in images)
    rows = -(-len(images) // columns)
    canvas = np.full((rows * height, columns * width, 3), PADDING_VALUE, np.uint8)
    truth: Truth = []
    for index, image in enumerate(images):
        y, x = (index // columns) * height, (index % columns) * width
        canvas[y : y + image.image.shape[0], x : x + image.image.shape[1]] = image.image
        truth += [(o.category, o.box.shifted(x, y)) for o in image.objects]
    return canvas, truth


def counts(found: Sequence[Detection], truth: Truth, calibration: Calibration) -> dict[str, list[int]]:
    """Size -> [true objects found, true objects, boxes that match none]; a box is of the size that it has itself."""
    sure = [d for d in found if calibration.probability(d.category, d.score) >= calibration.answer]
    result = {name: [0, 0, 0] for name, *_ in SIZES}
    used: set[int] = set()
    for category, box in truth:
        ratios = [d.box.iou(box) if d.category == category and k not in used else 0.0 for k, d in enumerate(sure)]
        hit = bool(ratios) and max(ratios) >= 0.5
        if hit:
            used.add(int(np.argmax(ratios)))
        result[_size(box)][0] += hit
        result[_size(box)][1] += 1
    for k, detection in enumerate(sure):
        # Buildings are outlined in none of these images.
        result[_size(detection.box)][2] += k not in used and detection.category != "building"
    return result


def _size(box: Box) -> str:
    return next(name for name, low, high in SIZES if low <= max(box.width, box.height) < high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="coco_jsonl folder with split.json")
    parser.add_argument("--split", default="val")
    parser.add_argument("--weights", type=Path, default=SHIPPED_FOLDER / "compact_grounder" / "model.safetensors")
    parser.add_argument("--columns", type=int, default=4, help="images a row, and rows")
    arguments = parser.parse_args()
    images = load_folder(arguments.data, arguments.split, 4096, {})
    detector, calibration = load_detector(arguments.weights)
    readings: dict[str, Callable[..., list[Detection]]] = {"whole": detect, "tiles": detect_anywhere}
    totals = {name: {size: np.zeros(3, int) for size, *_ in SIZES} for name in readings}
    seconds = dict.fromkeys(readings, 0.0)
    sides, per_mosaic = [], arguments.columns**2
    groups = [images[start : start + per_mosaic] for start in range(0, len(images), per_mosaic)]
    for group in groups:
        canvas, truth = mosaic(group, arguments.columns)
        sides.append(f"{canvas.shape[1]} x {canvas.shape[0]}")
        for name, read in readings.items():
            start = time.perf_counter()
            mirrored = calibration.mirrored
            found = read(detector, canvas, calibration.scales, 0.05, mirrored=mirrored, bfloat16=True)
            seconds[name] += time.perf_counter() - start
            for size, values in counts(found, truth, calibration).items():
                totals[name][size] += values
    report: dict[str, Any] = {"images": sides}
    for name in readings:
        sizes = {
            size: {"n": int(total), "found": round(hit / max(total, 1), 3), "wrong boxes": int(wrong)}
            for size, (hit, total, wrong) in totals[name].items()
        }
        report[name] = {**sizes, "seconds per image": round(seconds[name] / len(groups), 2)}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

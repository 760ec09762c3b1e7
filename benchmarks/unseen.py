"""The compact segmenter on what its training never saw.

    python -m benchmarks.unseen --data DIR --weights FILE --out DIR

``--weights`` come from ``pslg train compact-segmenter`` with ``train_unseen_stage1.yaml``, then ``train_unseen.yaml``
(``backend/weights/compact_segmenter``), which leave out airplanes, harbors and buildings: none is ever a target, drawn
ones included. Two questions, both with true boxes, without CFPG and MBO, every annotated object once:

- left-out categories: the objects of nwpu_vhr10's part ``test``, by category;
- another dataset: buildings of inria_512 in three folds of other places; the weights are fine-tuned on two of them
  (``train_buildings.yaml``, the last step's weights, nothing chosen) and measured on the third, before and after.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backend.pipeline.segmentation.compact_sam import load_compact_segmenter
from backend.pipeline.segmentation.sam import SamSegmenter
from backend.pipeline.types import Prompts
from backend.pipeline.weights.folders import SHIPPED_FOLDER
from backend.training.run import load_recipe
from backend.training.segmenter.run import run_segmenter_training
from dataset_tools import atomic
from dataset_tools.labelled import LabelledImage, read
from dataset_tools.metrics import iou

FINE_TUNING = SHIPPED_FOLDER / "compact_segmenter" / "train_buildings.yaml"
PLACES = {"austin2 and austin3": ("austin2", "austin3"), "austin4": ("austin4",), "austin7": ("austin7",)}
"""Folds of inria_512: neighbouring crops of one tile stay together."""


def mean_ious(
    segmenter: SamSegmenter, images: Sequence[LabelledImage], names: Collection[str]
) -> dict[str, dict[str, Any]]:
    """``n`` and ``mIoU`` of every category over the objects of the images ``names``, each with its true box."""
    values = defaultdict(list)
    for image in images:
        if image.name not in names:
            continue
        pixels = image.pixels()
        for item in image.objects:
            window = segmenter.window_for(item.box, (image.height, image.width))
            found = segmenter.decode(segmenter.embed(pixels, window), Prompts(box=item.box)).mask
            values[item.category].append(iou(found, item.mask()))
    return {name: {"n": len(ious), "mIoU": float(np.mean(ious))} for name, ious in sorted(values.items())}


def left_out_categories(folder: Path, weights: Path) -> dict[str, dict[str, Any]]:
    """``mean_ious`` on the part ``test`` of ``folder``."""
    images = read(folder, "test")
    return mean_ious(load_compact_segmenter(weights), images, {image.name for image in images})


def folds(folder: Path, weights: Path, out: Path, overrides: list[str]) -> dict[str, dict[str, Any]]:
    """Fold -> number of buildings, mIoU with ``weights`` and after fine-tuning on the other folds."""
    images = read(folder)
    result = {}
    for place, prefixes in PLACES.items():
        held_out = sorted(image.name for image in images if image.name.startswith(prefixes))
        config = load_recipe(FINE_TUNING, overrides)
        config |= {"init": str(weights), "data": {folder.name: {"validation": held_out}}}
        run = out / place.replace(" ", "_")
        tuned = run / "model.safetensors"
        if not tuned.exists():
            run_segmenter_training(folder.parent, run, config, resume=run.exists())
        before, after = (
            mean_ious(load_compact_segmenter(file), images, held_out)["building"] for file in (weights, tuned)
        )
        result[place] = {"n": after["n"], "before": before["mIoU"], "mIoU": after["mIoU"]}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds nwpu_vhr10 and inria_512")
    parser.add_argument("--weights", type=Path, required=True, help="model.safetensors of the leave-out training")
    parser.add_argument("--out", type=Path, required=True, help="folder of the three fine-tuning runs and unseen.json")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"left out": left_out_categories(arguments.data / "nwpu_vhr10", arguments.weights)}
    buildings = folds(arguments.data / "inria_512", arguments.weights, arguments.out, arguments.overrides)
    total = sum(fold["n"] for fold in buildings.values())
    report["buildings"] = {
        "folds": buildings,
        "before": sum(fold["n"] * fold["before"] for fold in buildings.values()) / total,
        "mIoU": sum(fold["n"] * fold["mIoU"] for fold in buildings.values()) / total,
        "mean of folds": float(np.mean([fold["mIoU"] for fold in buildings.values()])),
    }
    text = json.dumps(report, indent=1)
    atomic.write_text(arguments.out / "unseen.json", text)
    print(text)


if __name__ == "__main__":
    main()

"""The compact segmenter on what its training never saw.

    python -m benchmarks.unseen --data DIR --weights FILE --out DIR [--sets nwpu_vhr10 isaid_512] [--categories A B ...]

``--weights`` come from ``pslg train compact-segmenter --set exclude_categories=[A,B,...]``: none of these is ever a
target, drawn ones included. Two questions, both with true boxes, without CFPG and MBO, every annotated object once:

- left-out categories: whole objects of at least 10 x 10 px in the part ``test`` of each of ``--sets``, by category;
- another dataset (``--folds``; the weights must not have seen buildings): buildings of inria_512 in three folds of
  other places; the weights are fine-tuned on two of them (``train_buildings.yaml``, the last step's weights)
  and measured on the third, before and after.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from itertools import groupby
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
from dataset_tools.categories import canonical
from dataset_tools.labelled import LabelledImage, LabelledObject, read, whole_objects
from dataset_tools.metrics import iou

FINE_TUNING = SHIPPED_FOLDER / "compact_segmenter" / "train_buildings.yaml"
PLACES = {"austin2 and austin3": ("austin2", "austin3"), "austin4": ("austin4",), "austin7": ("austin7",)}
"""Folds of inria_512: neighbouring crops of one tile stay together."""


def mean_ious(
    segmenter: SamSegmenter, images: Sequence[LabelledImage], names: Collection[str]
) -> dict[str, dict[str, Any]]:
    """``n`` and ``mIoU`` of every category over the objects of the images ``names``, each with its true box."""
    return _mean_ious(segmenter, [(image, item) for image in images if image.name in names for item in image.objects])


def _mean_ious(
    segmenter: SamSegmenter, objects: Sequence[tuple[LabelledImage, LabelledObject]]
) -> dict[str, dict[str, Any]]:
    values = defaultdict(list)
    for image, of_image in groupby(objects, key=lambda pair: pair[0]):
        pixels = image.pixels()
        for _, item in of_image:
            window = segmenter.window_for(item.box, (image.height, image.width))
            found = segmenter.decode(segmenter.embed(pixels, window), Prompts(box=item.box)).mask
            values[item.category].append(iou(found, item.mask()))
    return {name: {"n": len(ious), "mIoU": float(np.mean(ious))} for name, ious in sorted(values.items())}


def left_out_categories(folder: Path, weights: Path, categories: Collection[str]) -> dict[str, dict[str, Any]]:
    """``mean_ious`` of whole objects of ``categories`` (empty: of all) in the part ``test``, and ``all`` of them."""
    found = [
        (image, item)
        for image, item in whole_objects(read(folder, "test"), whole=True, min_side=10)
        if not categories or canonical(item.label) in categories
    ]
    result = _mean_ious(load_compact_segmenter(weights), found)
    count = sum(row["n"] for row in result.values())
    return result | {
        "all": {"n": count, "mIoU": sum(row["n"] * row["mIoU"] for row in result.values()) / max(1, count)}
    }


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
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the sets")
    parser.add_argument("--weights", type=Path, required=True, help="model.safetensors of the leave-out training")
    parser.add_argument("--out", type=Path, required=True, help="folder of unseen.json and the fine-tuning runs")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--sets", nargs="+", default=["nwpu_vhr10"], help="folders below --data with a part test")
    parser.add_argument("--categories", nargs="+", default=[], help="canonical names that were left out (default: all)")
    parser.add_argument("--folds", action="store_true", help="fine-tune on and measure buildings of inria_512, too")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "left out": {
            name: left_out_categories(arguments.data / name, arguments.weights, arguments.categories)
            for name in arguments.sets
        }
    }
    if arguments.folds:
        report["buildings"] = _buildings(arguments)
    text = json.dumps(report, indent=1)
    atomic.write_text(arguments.out / "unseen.json", text)
    print(text)


def _buildings(arguments: argparse.Namespace) -> dict[str, Any]:
    buildings = folds(arguments.data / "inria_512", arguments.weights, arguments.out, arguments.overrides)
    total = sum(fold["n"] for fold in buildings.values())
    return {
        "folds": buildings,
        "before": sum(fold["n"] * fold["before"] for fold in buildings.values()) / total,
        "mIoU": sum(fold["n"] * fold["mIoU"] for fold in buildings.values()) / total,
        "mean of folds": float(np.mean([fold["mIoU"] for fold in buildings.values()])),
    }


if __name__ == "__main__":
    main()

"""Shows on a CPU that LQVG learns: a reduced width must overfit 32 images of data/nwpu_vhr10.

    python -m benchmarks.lqvg_overfit --data FOLDER/nwpu_vhr10 --out runs/lqvg_overfit

Trains ``backend/training/lqvg/lqvg_reduced.yaml`` (random weights, a byte-level BPE made from the expressions) on the
first 32 training images that have an expression with one target, two expressions of different targets where there are
two,
and measures on the same expressions: what is shown is that the training loop can learn them, not how good the network
is on other images. The images are filled up to squares, as DIOR-RSVG's are: training pads below and on the right,
inference around the middle, and what was learned by heart does not survive such a shift.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from PIL import Image
from tokenizers import ByteLevelBPETokenizer

from backend.commands.train_lqvg import CONFIGS
from backend.training.lqvg.run import run_lqvg_training
from backend.training.run import load_recipe
from dataset_tools.formats import coco_jsonl
from dataset_tools.image_files import read


def subset(data: Path, folder: Path, images: int, per_image: int) -> list[str]:
    """Write the chosen images and expressions as a coco_jsonl folder; returns the expressions."""
    if (folder / "split.json").is_file():
        return [e.expression for e in coco_jsonl.read(folder).expressions]
    folder.mkdir(parents=True)
    chosen: dict[str, list[dict[str, Any]]] = {}
    train = set(json.loads((data / "split.json").read_text(encoding="utf-8"))["train"])
    for line in (data / "expressions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["image"] not in train or len(row["ann_ids"]) != 1:
            continue
        rows = chosen.setdefault(row["image"], [])
        # different targets in one image: without the words they cannot be told apart
        if len(rows) < per_image and row["ann_ids"] not in [other["ann_ids"] for other in rows]:
            rows.append(row)
    names = sorted(chosen)[:images]
    rows = [row for name in names for row in chosen[name]]
    (folder / "images").mkdir()
    index = json.loads((data / "annotations.json").read_text(encoding="utf-8"))
    index["images"] = [image for image in index["images"] if image["file_name"] in names]
    for image in index["images"]:
        side = max(image["width"], image["height"])
        square = Image.new("RGB", (side, side), (124, 116, 104))  # about 0 after normalisation
        square.paste(Image.fromarray(read(data / "images" / image["file_name"])))
        square.save(folder / "images" / image["file_name"], quality=95)
        image["width"] = image["height"] = side
    kept = {image["id"] for image in index["images"]}
    index["annotations"] = [one for one in index["annotations"] if one["image_id"] in kept]
    (folder / "annotations.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "expressions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "split.json").write_text(json.dumps({"train": names, "val": names}), encoding="utf-8")
    return [row["expression"] for row in rows]


def overfit(data: Path, out: Path, images: int, per_image: int, resume: bool, overrides: list[str]) -> None:
    """Train on ``images`` images and print the figures of the log."""
    config = load_recipe(CONFIGS / "lqvg_reduced.yaml", overrides)
    expressions = subset(data, out / "data", images, per_image)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        map(str.lower, expressions),
        vocab_size=int(config["architecture"]["vocabulary"]),
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        show_progress=False,
    )
    tokenizer.save_model(str(out))
    print(f"{images} images, {len(expressions)} expressions")
    start = time.perf_counter()
    weights = run_lqvg_training(out / "data", out, out / "run", config, device="cpu", resume=resume)
    print(f"{time.perf_counter() - start:.0f} s, weights {weights}, curves {out / 'run' / 'curves.png'}")
    for line in (out / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines():
        if '"validation"' in line:
            print(line)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--per-image", type=int, default=2, help="expressions of one image, for different targets")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUT")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    overfit(options.data, options.out, options.images, options.per_image, options.resume, options.overrides)

"""Train and measure what tells grass, trees, water, pavement, bare ground, shadow, roofs and courts apart.

    python -m benchmarks.surfaces DATA [--out FILE] [--folds N]

DATA is the folder of the sets nwpu_vhr10, isaid_512 and inria_256; only their parts `train` are read.
``tests/data/surface_points.csv`` holds the surface under 2,131 points of 133 of their images, written down by looking
at them (``grass|bare``: dry grass, either is right). The building masks of inria_256 say of further cells whether they
are a roof.

Printed is, by surface, the share of the points that the networks of ``dataset_tools.expressions.surfaces`` read right,
trained without the images that they are asked about: by the first network alone and by both. ``--out`` trains on all
images and writes the weights.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from dataset_tools import atomic, image_files
from dataset_tools.expressions.surfaces import CLASSES, answered, cell_features, with_context
from dataset_tools.formats import coco_jsonl

POINTS = Path(__file__).parents[1] / "tests" / "data" / "surface_points.csv"
OUTLINED = "inria_256"
CELLS = 150
"""Cells of each image with building masks."""
OF_MASKS = 0.2
"""A cell of them counts that much of a labelled point."""
EPOCHS = 40
Floats = npt.NDArray[np.float32]
Name = tuple[str, str]
"""(set, image)"""
Weights = dict[str, Floats]


@dataclass(frozen=True)
class Lesson:
    """Cells of one image, and what may be right.

    Attributes:
        name: set and image.
        features: float32[h, w, F], of all cells.
        rows, columns: int[N], the cells.
        allowed: float32[N, 9], 1 for each class that may be right.
        weight: of each cell.
    """

    name: Name
    features: Floats
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    allowed: Floats
    weight: float


def allowed(surface: str) -> Floats:
    """float32[9] of a ``surface`` as written in the points; ``-roof`` is anything but that."""
    names = surface.removeprefix("-").split("|")
    return np.array([(name in names) != surface.startswith("-") for name in CLASSES], np.float32)


def lesson(root: Path, name: Name, wanted: Sequence[tuple[float, float, str]], weight: float) -> Lesson:
    """The cells of (x, y, surface) in pixels."""
    image = image_files.read(root / name[0] / "images" / name[1])
    features = cell_features(image)
    down, across = features.shape[:2]
    at = np.array([(x, y) for x, y, _ in wanted]) * (across, down) / (image.shape[1], image.shape[0])
    columns, rows = np.minimum(at.astype(np.int64), (across - 1, down - 1)).T
    return Lesson(name, features, rows, columns, np.stack([allowed(surface) for *_, surface in wanted]), weight)


def by_points(root: Path) -> list[Lesson]:
    """The images whose surfaces were written down."""
    found: dict[Name, list[tuple[float, float, str]]] = defaultdict(list)
    with POINTS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found[row["set"], row["image"]].append((float(row["x"]), float(row["y"]), row["surface"]))
    return [lesson(root, name, wanted, 1.0) for name, wanted in found.items()]


def by_masks(root: Path) -> list[Lesson]:
    """Images whose buildings are outlined, without those that the sentences are about."""
    kept = set()
    for file in (POINTS.with_name("sentences.jsonl"), root / "free_expressions.jsonl"):
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        kept |= {(row["set"], row["image"]) for row in map(json.loads, lines)}
    rng = np.random.default_rng(3)
    data = coco_jsonl.read(root / OUTLINED)
    found = []
    for image in json.loads((root / OUTLINED / "split.json").read_text("utf-8"))["train"]:
        entry = data.image(image)
        if (OUTLINED, image) in kept or not entry.annotations:
            continue
        mask = np.any([a.mask() for a in entry.annotations], axis=0).astype(np.uint8)
        square = np.ones((5, 5), np.uint8)
        inner, outer = cv2.erode(mask, square), cv2.dilate(mask, square)
        places = rng.integers(0, (entry.width, entry.height), (CELLS, 2))
        wanted = [
            (float(x), float(y), "roof" if inner[y, x] else "-roof")
            for x, y in places
            if inner[y, x] or not outer[y, x]
        ]
        found.append(lesson(root, (OUTLINED, image), wanted, OF_MASKS))
    return found


def fit(values: Floats, right: Floats, weight: Floats, hidden: int) -> Weights:
    """A network of one hidden layer that gives what may be right as much probability as it can."""
    torch.manual_seed(0)
    mean, spread = values.mean(axis=0), values.std(axis=0) + 1e-3
    layers = nn.Sequential(nn.Linear(values.shape[1], hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, 9))
    x, y, w = (torch.tensor(a, dtype=torch.float32) for a in ((values - mean) / spread, right, weight))
    optimizer = torch.optim.AdamW(layers.parameters(), lr=5e-3, weight_decay=0.3)
    parts = -(-len(x) // 256)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * parts)
    for _ in range(EPOCHS):
        order = torch.randperm(len(x))
        for start in range(0, len(x), 256):
            part = order[start : start + 256]
            inputs = functional.dropout(x[part] + 0.15 * torch.randn_like(x[part]), 0.1)
            met = (layers(inputs).softmax(dim=1) * y[part]).sum(dim=1).clamp_min(1e-6).log()
            optimizer.zero_grad()
            (-(met * w[part]).sum() / w[part].sum()).backward()
            optimizer.step()
            schedule.step()
    state = {key: value.detach().numpy() for key, value in layers.state_dict().items()}
    scaled = state["0.weight"] / spread
    return {
        "0.weight": scaled,
        "0.bias": state["0.bias"] - scaled @ mean,
        "1.weight": state["3.weight"],
        "1.bias": state["3.bias"],
    }


def said(weights: Weights, values: Floats) -> Floats:
    """float32[h, w, 9] by a network of :func:`fit`."""
    return answered(values, {f"x.{key}": value for key, value in weights.items()}, "x")


def in_context(one: Lesson, first: Weights) -> Floats:
    """What the second network reads of the lesson's cells."""
    return with_context(one.features, said(first, one.features))[one.rows, one.columns]


def train(lessons: Sequence[Lesson], folds: int = 3) -> tuple[Weights, Weights]:
    """Both networks. What the second one learns from is what a first one says that does not know the image."""
    right = np.concatenate([one.allowed for one in lessons])
    weight = np.concatenate([np.full(len(one.rows), one.weight, np.float32) for one in lessons])
    values = [one.features[one.rows, one.columns] for one in lessons]
    fold = np.concatenate([np.full(len(one.rows), index % folds) for index, one in enumerate(lessons)])
    first = fit(np.concatenate(values), right, weight, 48)
    seen: list[Floats] = [np.empty(0, np.float32)] * len(lessons)
    for asked in range(folds):
        others = fold != asked
        stranger = fit(np.concatenate(values)[others], right[others], weight[others], 48)
        for index, one in enumerate(lessons):
            if index % folds == asked:
                seen[index] = in_context(one, stranger)
    return first, fit(np.concatenate(seen), right, weight, 32)


def measured(lessons: Sequence[Lesson], folds: int) -> dict[str, dict[str, float]]:
    """By networks used and surface, the share of points read right."""
    order = np.random.default_rng(0).permutation(len(lessons))
    right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for fold in range(folds):
        asked = [lessons[i] for i in order[fold::folds] if lessons[i].weight == 1.0]
        names = {one.name for one in asked}
        first, second = train([one for one in lessons if one.name not in names])
        for one in asked:
            both = said(second, in_context(one, first)[None])[0]
            alone = said(first, one.features[one.rows, one.columns][None])[0]
            for reader, shares in {"first": alone, "both": both}.items():
                best = one.allowed[np.arange(len(shares)), shares.argmax(axis=1)] > 0
                for may, good in zip(one.allowed, best, strict=True):
                    kind = "|".join(name for name, fits in zip(CLASSES, may, strict=True) if fits)
                    right[reader][kind].append(bool(good))
                    right[reader]["all"].append(bool(good))
    return {
        reader: {kind: round(float(np.mean(values)), 3) for kind, values in sorted(kinds.items())}
        for reader, kinds in right.items()
    }


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the weights here.")
@click.option("--folds", default=5, show_default=True, help="Parts of the images asked about in turn; 0: none.")
def main(data: Path, out: Path | None, folds: int) -> None:
    """Train the networks that read surfaces, and measure them."""
    torch.set_num_threads(1)
    lessons = [*by_points(data), *by_masks(data)]
    click.echo(f"{sum(len(one.rows) for one in lessons)} cells of {len(lessons)} images")
    if out is not None:
        first, second = train(lessons)
        arrays: dict[str, Any] = {
            f"{name}.{key}": value.astype(np.float16)
            for name, network in (("first", first), ("second", second))
            for key, value in network.items()
        }
        with atomic.open_bytes(out) as file:
            np.savez(file, **arrays)
        click.echo(f"written: {out}")
    if folds:
        for reader, shares in measured(lessons, folds).items():
            click.echo(f"{reader:6s} " + "  ".join(f"{kind} {share}" for kind, share in shares.items()))


if __name__ == "__main__":
    main()

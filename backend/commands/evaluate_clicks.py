"""``pslg evaluate-clicks``: NoC, the mean number of clicks until a mask is good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

THRESHOLDS = (0.80, 0.85)


@click.command("evaluate-clicks")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="coco_jsonl folder: images/, annotations.json, optional split.json.",
)
@click.option("--config", default="compact", show_default=True, help="Shipped config's name or a YAML file.")
@click.option("--split", default=None, metavar="NAME|FILE", help="A name in split.json or a file of image names.")
@click.option("--limit", type=click.IntRange(1), default=None, help="Only so many objects, spread over the images.")
@click.option("--cap", type=click.IntRange(1), default=20, show_default=True, help="Most clicks per object.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on stdout.")
def evaluate_clicks(data: Path, config: str, split: str | None, limit: int | None, cap: int, as_json: bool) -> None:
    """Count the clicks until the IoU reaches 0.80 and 0.85 (NoC).

    Every object gets its first click in its deepest point and each further one in the deepest point of the largest
    error region. An object that never gets there counts with the cap.
    """
    import json

    from backend.errors import DatasetError
    from backend.pipeline import load_pipeline
    from dataset_tools.errors import DatasetError as FormatError
    from dataset_tools.formats import coco_jsonl

    try:
        dataset = coco_jsonl.read(data, split)
    except FormatError as error:
        raise DatasetError(str(error)) from error
    pipeline = load_pipeline(config)
    summary = measure(pipeline.segmenter, dataset, limit, cap)
    summary |= {
        "convention": f"no box; next click in the deepest point of the largest error region; cap {cap}; >=",
        "model_version": pipeline.model_version,
    }
    if as_json:
        click.echo(json.dumps(summary))
        return
    for name, value in summary.items():
        if name != "by_category":
            click.echo(f"{name:12} {value:.4f}" if isinstance(value, float) else f"{name:12} {value}")
    click.echo(f"{'category':20} {'NoC@0.80':>9} {'NoC@0.85':>9} {'n':>5}")
    for category, part in summary["by_category"].items():
        click.echo(f"{category:20} {part['NoC@0.80']:9.2f} {part['NoC@0.85']:9.2f} {part['n']:5}")


def measure(segmenter: Any, dataset: Any, limit: int | None, cap: int) -> dict[str, Any]:
    """NoC of ``segmenter`` over the annotations of a read ``coco_jsonl`` folder, in total and by category."""
    import time

    import cv2
    import numpy as np
    from tqdm import tqdm

    from backend.errors import ImageError
    from backend.learning.click_evaluation import click_ious, summarize_clicks
    from dataset_tools.categories import canonical

    pairs = [(entry, annotation) for entry in dataset.images for annotation in entry.annotations]
    if limit is not None and limit < len(pairs):
        pairs = [pairs[index] for index in np.linspace(0, len(pairs) - 1, limit).round().astype(int)]
    started = time.perf_counter()
    sequences: dict[str, list[list[float]]] = {}
    loaded, image = None, np.zeros((0, 0, 3), np.uint8)
    for entry, annotation in tqdm(pairs, desc="objects", unit="object"):
        if loaded != entry.path:
            pixels = cv2.imread(str(entry.path), cv2.IMREAD_COLOR)
            if pixels is None:
                raise ImageError(f"cannot read the image {entry.path}: it is missing or damaged")
            image, loaded = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8), entry.path
        target = annotation.mask()
        if target.any():
            ious = click_ious(segmenter, image, target, cap, enough=max(THRESHOLDS))
            sequences.setdefault(canonical(annotation.category) or annotation.category, []).append(ious)
    every = [ious for part in sequences.values() for ious in part]
    return {
        **summarize_clicks(every, THRESHOLDS, cap),
        "by_category": {name: summarize_clicks(part, THRESHOLDS, cap) for name, part in sorted(sequences.items())},
        "seconds": round(time.perf_counter() - started, 2),
    }

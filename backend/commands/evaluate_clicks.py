"""``pslg evaluate-clicks``: NoC, the mean number of clicks until a mask is good."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataset_tools.errors import DatasetError

if TYPE_CHECKING:
    from backend.evaluation.clicks import ClickTarget

THRESHOLDS = (0.80, 0.85)


@click.command("evaluate-clicks")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="A coco_jsonl folder or a REFER root.")
@click.option("--config", default="compact", show_default=True, help="A shipped pipeline config or a YAML file.")
@click.option("--split", help="A split of the dataset, or a file of image names; default: everything.")
@click.option("--limit", type=click.IntRange(min=1), help="Only so many objects, spread evenly over the dataset.")
@click.option("--cap", type=click.IntRange(min=1), default=20, show_default=True, help="Most clicks per object.")
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object to stdout.")
def evaluate_clicks(data: Path, config: str, split: str | None, limit: int | None, cap: int, as_json: bool) -> None:
    """Count the clicks until the IoU reaches 0.80 and 0.85 (NoC).

    Every object gets its first click in its deepest point and each further one in the deepest point of the largest
    error region. An object that never gets there counts with the cap.
    """
    import json

    from tqdm import tqdm

    from backend.commands.prelabel import read_image
    from backend.evaluation.clicks import evaluate_clicks as measure
    from backend.pipeline import load_pipeline

    targets = _read_targets(data, split)
    if limit is not None and limit < len(targets):
        targets = [targets[index * len(targets) // limit] for index in range(limit)]
    pipeline = load_pipeline(config)
    bar = tqdm(targets, desc=pipeline.model_version, unit="object")
    report: dict[str, Any] = {"data": data.name, "split": split, "limit": limit}
    report |= measure(pipeline.segmenter, bar, read_image, THRESHOLDS, cap)
    report |= {"convention": f"clicks only, no box; IoU at image size, >=; cap {cap}"}
    report |= {"model_version": pipeline.model_version}
    click.echo(json.dumps(report) if as_json else _table(report))


def _read_targets(data: Path, split: str | None) -> list[ClickTarget]:
    """Every object of a coco_jsonl folder or a REFER root once, of one split if given."""
    from backend.evaluation.clicks import ClickTarget
    from dataset_tools.formats import coco_jsonl, refer
    from dataset_tools.records import local_path

    targets = []
    if (data / "rrsisd").is_dir():
        for sample in refer.read(data):
            for record in sample.records:
                if split is None or record.split == split:
                    path = local_path(sample.image)
                    targets.append(ClickTarget(path, record.category, partial(sample.union, record)))
    else:
        chosen: str | Path | None = Path(split) if split is not None and Path(split).is_file() else split
        for image in coco_jsonl.read(data, chosen).images:
            targets += [ClickTarget(image.path, one.category, one.mask) for one in image.annotations]
    if not targets:
        raise DatasetError(f"{data} has no objects" + (f" in the split {split!r}" if split else ""))
    return targets


def _table(report: dict[str, Any]) -> str:
    names = [name for name in report["total"] if name != "n"]
    lines = [f"{'':20}{'n':>6}" + "".join(f"{name:>13}" for name in names)]
    rows = {"all objects": report["total"], **report["by_category"]}
    for label, values in rows.items():
        lines.append(f"{label:20}{values['n']:>6}" + "".join(f"{values[name]:13.2f}" for name in names))
    lines += ["", f"convention: {report['convention']}", f"seconds per object: {report['seconds']:.3f}"]
    lines.append(f"model: {report['model_version']}, data: {report['data']}, split: {report['split'] or 'everything'}")
    return "\n".join(lines)

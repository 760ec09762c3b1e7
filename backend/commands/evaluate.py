"""``pslg evaluate``: the paper's metrics of a config on a dataset."""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backend.commands.options import check_picture_path, data_option, limit_option, split_option, write_picture
from dataset_tools.metrics import CONVENTIONS, Convention
from dataset_tools.shared_options import bands_option

if TYPE_CHECKING:
    from backend.evaluation.expressions import Outcome
    from backend.pipeline import PipelineConfig
    from backend.pipeline.types import Image, Mask, Prelabels
    from dataset_tools.labelled import Question

_GALLERY_SIZE = 24


class _Gallery:
    """Keeps the worst cases as pictures while they go by."""

    def __init__(self, convention: Convention) -> None:
        self._convention = convention
        self._kept: list[tuple[float, int, Image]] = []
        self._count = 0

    def add(self, outcome: Outcome, image: Image, found: Prelabels, target: Mask) -> None:
        """Look at one outcome; draw it only if it is among the worst so far."""
        from dataset_tools.overlays import OverlayObject, panel

        iou = outcome.iou(self._convention)
        self._count += 1
        if len(self._kept) == _GALLERY_SIZE and -self._kept[0][0] <= iou:
            return
        objects = [OverlayObject(item.mask, item.box, item.point, f"{item.score:.2f}") for item in found]
        detail = f"IoU {iou:.2f}, {outcome.question.kind}, {outcome.question.image.path.name}"
        if found.abstained is not None:
            detail += f", no mask: {found.abstained.code}"
        words = outcome.question.expression.text
        picture = panel(image, objects, words, detail, truth=target if target.any() else None)
        entry = (-iou, -self._count, picture)
        if len(self._kept) < _GALLERY_SIZE:
            heapq.heappush(self._kept, entry)
        else:
            heapq.heapreplace(self._kept, entry)

    def sheet(self) -> Image:
        """The contact sheet, worst first."""
        from dataset_tools.overlays import contact_sheet

        return contact_sheet(
            [picture for _, _, picture in sorted(self._kept, key=lambda entry: entry[:2], reverse=True)]
        )


def _table(report: dict[str, Any]) -> str:
    """The figures for people: one row per group."""
    names = ("mIoU", "oIoU", "P@0.5", "P@0.6", "P@0.7", "P@0.8", "P@0.9")
    rows: list[tuple[str, dict[str, Any]]] = [("all with a target", report), ("single target", report["single_target"])]
    rows.append(("  small (< 32 x 32 px)", report["small_objects"]))
    rows += [(f"  kind {kind}", values) for kind, values in report["by_kind"].items()]
    rows += [(f"  {category}", values) for category, values in report["by_category"].items()]
    if "instances" in report:
        rows.append(("objects, each once", report["instances"]))
        rows += [(f"  {category}", values) for category, values in report["instances"]["by_category"].items()]
    lines = [f"{'':28}{'n':>6}" + "".join(f"{name:>8}" for name in names)]
    for label, values in rows:
        lines.append(f"{label:28}{values['n']:>6}" + "".join(f"{100 * values[name]:8.1f}" for name in names))
    absent, present, grounding = report["absent"], report["present"], report["grounding"]
    lines += [
        "",
        f"boxes: {report['boxes']};"
        f" P@0.5 of the boxes of single targets: {100 * grounding['P@0.5']:.1f} (n {grounding['n']})",
        *_choices(report["choices"]),
        f"absent objects: abstained from {absent['abstained']} of {absent['n']};"
        f" present objects: answered {present['answered']} of {present['n']}",
        f"seconds per expression: {report['seconds']:.3f}, with stored embeddings {report['seconds_embedded']:.3f};"
        f" CPU seconds {report['cpu_seconds']:.3f} and {report['cpu_seconds_embedded']:.3f}",
        f"convention: {report['convention']}",
        f"model: {report['model_version']}, data: {report['data']}, split: {report['split'] or 'everything'}"
        + (f", {report['limit']} expressions spread evenly" if report["limit"] else ""),
    ]
    return "\n".join(lines)


def _choices(choices: dict[str, Any]) -> list[str]:
    """How often exactly the objects meant were chosen: of all, and by style where the rows name one."""
    lines = []
    for name, values in {"objects chosen": choices, **choices["by_style"]}.items():
        parts = [f"{key} {100 * values[key]:.1f}" for key in ("right", "wrong", "abstained")]
        offered = f"{100 * values['offered']:.1f} of those with the objects among the candidates"
        lines.append(f"{name}: {', '.join(parts)}, {offered} (n {values['n']})")
    return lines


def _side_by_side(reports: Sequence[dict[str, Any]]) -> str:
    """The figures of several configs on the same expressions: one column per model."""
    shares = ("mIoU", "oIoU", "P@0.5", "P@0.6", "P@0.7", "P@0.8", "P@0.9")
    first = reports[0]
    rows: list[tuple[str, list[str]]] = [("model", [report["model_version"] for report in reports])]
    rows += [(name, [f"{100 * report[name]:.1f}" for report in reports]) for name in shares]
    groups = [("single target", "single_target"), ("small (< 32 x 32 px)", "small_objects")]
    rows += [(f"mIoU, {label}", [f"{100 * report[key]['mIoU']:.1f}" for report in reports]) for label, key in groups]
    for group in ("by_kind", "by_category"):
        for name in first[group]:
            values = [report[group].get(name) for report in reports]
            rows.append((f"mIoU, {name}", ["-" if v is None else f"{100 * v['mIoU']:.1f}" for v in values]))
    counts = (("absent, abstained", "absent", "abstained"), ("present, answered", "present", "answered"))
    rows += [(label, [f"{report[k][v]} of {report[k]['n']}" for report in reports]) for label, k, v in counts]
    rows.append(("seconds per expression", [f"{report['seconds']:.3f}" for report in reports]))
    width = max(12, *(len(cell) for _, cells in rows for cell in cells)) + 2
    lines = [f"{label:28}" + "".join(f"{cell:>{width}}" for cell in cells) for label, cells in rows]
    lines += [
        "",
        f"n {first['n']}, boxes: {first['boxes']}, convention: {first['convention']}, data: {first['data']}, split:"
        f" {first['split'] or 'everything'}"
        + (f", {first['limit']} expressions spread evenly" if first["limit"] else ""),
    ]
    return "\n".join(lines)


@click.command()
@data_option
@click.option(
    "--config",
    "configs",
    multiple=True,
    default=["compact"],
    show_default=True,
    help="A shipped pipeline config or a YAML file. Repeated: side by side, on the same expressions.",
)
@click.option(
    "--boxes",
    type=click.Choice(["predicted", "ground-truth"]),
    default="predicted",
    show_default=True,
    help="ground-truth measures stage 2 alone.",
)
@click.option("--box-jitter", type=click.FloatRange(0, 0.5), default=0.0, help="Move each side of such a box (share).")
@split_option
@click.option(
    "--expressions",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Ask these of a coco_jsonl folder instead of its own (JSON lines as in expressions.jsonl; rows whose `set` is"
    " another folder are passed over, `style` splits the table of choices).",
)
@click.option("--whole", is_flag=True, help="Only expressions whose objects no border cuts, where the data says so.")
@click.option(
    "--min-side", type=click.FloatRange(min=0), default=0, help="Only objects at least so wide and so high (pixels)."
)
@limit_option("expressions")
@click.option(
    "--convention",
    type=click.Choice(list(CONVENTIONS)),
    default="native",
    show_default=True,
    help="How pixels are counted: at image size, as RMSIN's or as SegEarth-R1's test script.",
)
@click.option(
    "--foreground-points/--no-foreground-points", default=True, help="CFPG, as the config says or not at all."
)
@click.option("--boundary/--no-boundary", default=True, help="MBO, as the config says or not at all.")
@click.option(
    "--gallery",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=check_picture_path,
    help=f"Write the {_GALLERY_SIZE} worst cases as a contact sheet.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help='Print exactly one JSON object to stdout; of several configs {"configs": [one for each]}.',
)
@bands_option
def evaluate(
    data: Path,
    configs: tuple[str, ...],
    boxes: str,
    box_jitter: float,
    split: str | None,
    expressions: Path | None,
    whole: bool,
    min_side: float,
    limit: int | None,
    convention: str,
    foreground_points: bool,
    boundary: bool,
    gallery: Path | None,
    as_json: bool,
) -> None:
    """Measure a config, or several, on a dataset: mIoU, oIoU, P@X over every expression that has a target."""
    from backend.evaluation.expressions import read_questions
    from backend.pipeline import load_config
    from dataset_tools.labelled import about_whole_objects, spread

    asked = about_whole_objects(read_questions(data, split, expressions), whole=whole, min_side=min_side)
    asked = spread(asked, limit)
    if gallery is not None and len(configs) > 1:
        raise click.UsageError("--gallery shows the worst cases of one --config; run it once for each")
    if boxes == "ground-truth":
        asked = [question for question in asked if question.targets]
    checked = [
        load_config(config).ablated(foreground_points=foreground_points, boundary=boundary) for config in configs
    ]
    reports = []
    for config in checked:
        worst = _Gallery(CONVENTIONS[convention]) if gallery is not None else None
        report = {"data": data.name, "split": split, "limit": limit, "whole": whole, "min_side": min_side}
        report |= _measured(config, asked, boxes, box_jitter, CONVENTIONS[convention], worst)
        if expressions is not None:
            report["expressions"] = expressions.name
        reports.append(report)
        if gallery is not None and worst is not None:
            write_picture(gallery, worst.sheet())
    if as_json:
        click.echo(json.dumps(reports[0] if len(reports) == 1 else {"configs": reports}))
    else:
        click.echo(_table(reports[0]) if len(reports) == 1 else _side_by_side(reports))


def _measured(
    config: PipelineConfig,
    asked: Sequence[Question],
    boxes: str,
    box_jitter: float,
    convention: Convention,
    worst: _Gallery | None,
) -> dict[str, Any]:
    """The figures of one config; its models are gone when the next one's are loaded."""
    from backend.evaluation.expressions import evaluate as measure
    from backend.pipeline import load_pipeline
    from dataset_tools.image_files import read
    from dataset_tools.progress import Bar

    pipeline = load_pipeline(config)
    with Bar(total=len(asked), unit="expression", desc=pipeline.model_version) as bar:
        result = measure(
            pipeline,
            asked,
            read,
            boxes="ground-truth" if boxes == "ground-truth" else "predicted",
            box_jitter=box_jitter,
            convention=convention,
            progress=bar.update,
            seen=worst.add if worst is not None else lambda *_: None,
        )
    return result.report()

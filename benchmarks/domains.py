"""How good a config is on several sets of images, side by side: ``python -m benchmarks.domains --data A B ...``.

One column per set, each a ``coco_jsonl`` folder. Every row is measured with the machinery of ``pslg evaluate`` and
``pslg evaluate-clicks``; a set without what a row needs has no figure there:

    end to end mIoU            expressions with a target, "all ..." included; new words are those outside RRSIS-D and
                               building (helicopter, swimming pool, ...)
    P@0.5                      of these
    box found P@0.5            expressions with one target
    present answered           share of expressions with a target that got an answer
    absent left                share of expressions without one that got none
    crowds mIoU                ``crowds.jsonl``: "all the ..." of at least 50 objects, union of the masks
    kinds P@0.5                ``vehicles.jsonl``: cars and trucks apart
    true boxes mIoU            stage 2 alone, every object once
    clicks to 0.80, 0.85       NoC, at most 20
    first expression s         on an image that was not seen before
    next expression s          another one on the same image, whose boxes are known then
    embedded s                 of that without embedding the windows: their objects were outlined before
    ECE                        what the pre-labels' scores say against the share whose IoU reaches 0.85
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backend.commands.evaluate_clicks import THRESHOLDS
from backend.evaluation.clicks import evaluate_clicks
from backend.evaluation.expressions import Boxes, Evaluation, Outcome, evaluate, read_questions
from backend.pipeline import PslgSam, load_pipeline
from dataset_tools import image_files
from dataset_tools.categories import CATEGORIES, canonical
from dataset_tools.labelled import Question, about_whole_objects, spread
from dataset_tools.metrics import CONVENTIONS, summarize

FEWEST_IN_A_CROWD = 50
GOOD = 0.85
"""IoU from which a pre-label counts as accepted unchanged, as ``pslg calibrate-score`` takes it."""
KNOWN_WORDS = frozenset(list(CATEGORIES)[: list(CATEGORIES).index("building") + 1])
PARTS = ("expressions", "crowds", "kinds", "boxes", "clicks")
NATIVE = CONVENTIONS["native"]


def measured(pipeline: PslgSam, asked: Sequence[Question], boxes: Boxes = "predicted") -> tuple[Evaluation, float]:
    """The evaluation of ``asked`` and the expected calibration error of its scores."""
    scores: list[tuple[float, bool]] = []

    def seen(outcome: Outcome, _image: object, found: Any, _target: object) -> None:
        if len(found) and outcome.overlap is not None:
            scores.append((min(item.score for item in found), outcome.iou(NATIVE) >= GOOD))

    done = evaluate(pipeline, asked, image_files.read, boxes=boxes, convention=NATIVE, seen=seen)
    return done, expected_calibration_error(scores)


def expected_calibration_error(scores: Sequence[tuple[float, bool]], bins: int = 10) -> float:
    """Mean distance, weighted by count, between score and share of good ones in ``bins`` equal bins of the score."""
    error = 0.0
    for number in range(bins):
        inside = [(s, good) for s, good in scores if min(int(s * bins), bins - 1) == number]
        if inside:
            error += abs(sum(s for s, _ in inside) - sum(good for _, good in inside))
    return error / max(1, len(scores))


def seconds_rows(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Mean seconds of the first expression of each image, and of the others; those of one image in succession."""
    seen: set[Path] = set()
    firsts: list[Outcome] = []
    others: list[Outcome] = []
    for one in outcomes:
        path = one.question.image.path
        (others if path in seen else firsts).append(one)
        seen.add(path)
    rows = {"first expression s": float(np.mean([one.spent.wall for one in firsts]))} if firsts else {}
    if others:
        rows["next expression s"] = float(np.mean([one.spent.wall for one in others]))
        rows["embedded s"] = float(np.mean([one.spent_embedded.wall for one in others]))
    return rows


def expression_rows(pipeline: PslgSam, asked: Sequence[Question]) -> dict[str, Any]:
    """Rows over a set's expressions."""
    done, error = measured(pipeline, asked)
    report = done.report()
    words = {True: "known words mIoU", False: "new words mIoU"}
    rows = {
        "n": report["n"],
        "end to end mIoU": report["mIoU"],
        "P@0.5": report["P@0.5"],
        "single target mIoU": report["single_target"]["mIoU"],
        "box found P@0.5": report["grounding"]["P@0.5"],
        "present answered": _share(report["present"], "answered"),
        "absent left": _share(report["absent"], "abstained"),
        "ECE": error,
        **seconds_rows(done.outcomes),
        "by_category": {name: {"n": v["n"], "mIoU": v["mIoU"]} for name, v in report["by_category"].items()},
        "by_kind": {name: {"n": v["n"], "mIoU": v["mIoU"]} for name, v in report["by_kind"].items()},
    }
    for known, name in words.items():
        of = [o for o in done.outcomes if o.overlap and (canonical(o.question.label) in KNOWN_WORDS) == known]
        if of:
            rows[name] = summarize([o.overlap for o in of if o.overlap], NATIVE)["mIoU"]
            rows[f"{name} n"] = len(of)
    return rows


def crowd_rows(pipeline: PslgSam, asked: Sequence[Question]) -> dict[str, Any]:
    """Rows over expressions that name a crowd."""
    report = measured(pipeline, asked)[0].report()
    return {"crowds n": report["n"], "crowds mIoU": report["mIoU"]}


def kind_rows(pipeline: PslgSam, asked: Sequence[Question]) -> dict[str, Any]:
    """Rows over expressions that tell kinds apart."""
    report = measured(pipeline, asked)[0].report()
    return {
        "kinds n": report["n"],
        "kinds P@0.5": report["P@0.5"],
        "kinds mIoU": report["mIoU"],
        "kinds box found P@0.5": report["grounding"]["P@0.5"],
    }


def box_rows(pipeline: PslgSam, asked: Sequence[Question]) -> dict[str, Any]:
    """Stage 2 on true boxes."""
    objects = measured(pipeline, [question for question in asked if question.targets], "ground-truth")[0].report()[
        "instances"
    ]
    return {"true boxes n": objects["n"], "true boxes mIoU": objects["mIoU"]}


def click_rows(pipeline: PslgSam, asked: Sequence[Question]) -> dict[str, Any]:
    """Clicks on every object that ``asked`` name."""
    targets = {(q.image.path, t.id): (q.image, t) for q in asked for t in q.targets}
    ordered = [targets[key] for key in sorted(targets, key=lambda key: key[0])]
    total = evaluate_clicks(pipeline, ordered, image_files.read, THRESHOLDS, 20)["total"]
    return {"clicks n": total["n"], **{f"clicks to {t:.2f}": total[f"NoC@{t:.2f}"] for t in THRESHOLDS}}


def rows_of(pipeline: PslgSam, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All rows of the set in ``folder``."""

    split = options.split if (folder / "split.json").is_file() else None

    def asked(file: str | None) -> list[Question]:
        read = read_questions(folder, split, None if file is None else folder / file)
        if file == "crowds.jsonl":
            return spread([q for q in read if len(q.targets) >= FEWEST_IN_A_CROWD], options.limit)
        return spread(about_whole_objects(read, whole=options.whole, min_side=options.min_side), options.limit)

    parts: Mapping[str, tuple[str | None, Callable[[PslgSam, Sequence[Question]], dict[str, Any]]]] = {
        "expressions": (None, expression_rows),
        "crowds": ("crowds.jsonl", crowd_rows),
        "kinds": ("vehicles.jsonl", kind_rows),
        "boxes": (None, box_rows),
        "clicks": (None, click_rows),
    }
    rows: dict[str, Any] = {}
    for name in options.rows:
        file, measure = parts[name]
        if file is None or (folder / file).is_file():
            print(f"{folder.name}: {name} ...", file=sys.stderr, flush=True)
            rows |= measure(pipeline, asked(file))
    return rows


def table(report: Mapping[str, Any]) -> str:
    """One row per figure, one column per set."""
    sets: Mapping[str, Mapping[str, Any]] = report["sets"]
    names = list(dict.fromkeys(row for rows in sets.values() for row, v in rows.items() if not isinstance(v, dict)))
    lines = [f"{report['model_version']:28}" + "".join(f"{name:>16}" for name in sets)]
    for row in names:
        cells = (rows.get(row) for rows in sets.values())
        lines.append(f"{row:28}" + "".join(f"{_cell(value):>16}" for value in cells))
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


def _share(part: Mapping[str, int], key: str) -> float | None:
    return part[key] / part["n"] if part["n"] else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="coco_jsonl folders")
    parser.add_argument("--config", default="compact", help="a shipped pipeline config or a YAML file")
    parser.add_argument("--split", default="test", help="of the sets that have splits (default: test)")
    parser.add_argument("--rows", nargs="+", choices=PARTS, default=PARTS, help="only these (default: all)")
    parser.add_argument("--whole", action="store_true", help="only expressions whose objects no border cuts")
    parser.add_argument("--min-side", type=float, default=0.0, help="only objects at least so wide and high (pixels)")
    parser.add_argument("--limit", type=int, help="at most so many expressions a row, spread evenly")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    pipeline = load_pipeline(options.config)
    keys = ("config", "split", "whole", "min_side", "limit")
    report = {
        **{key: getattr(options, key) for key in keys},
        "model_version": pipeline.model_version,
        "sets": {folder.name: rows_of(pipeline, folder, options) for folder in options.data},
    }
    print(json.dumps(report) if options.json else table(report))


if __name__ == "__main__":
    main()

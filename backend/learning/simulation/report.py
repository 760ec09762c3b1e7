"""What a simulation showed: curves over labelled tasks, and each goal with its number."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset_tools import atomic

__all__ = ["goals", "read_results", "table", "write_report"]

FIGURES = (
    ("all", "mIoU", "mIoU, all test tasks"),
    ("unknown", "mIoU", "mIoU, unknown categories"),
    ("known", "mIoU", "mIoU, known categories"),
    ("all", "P@0.5", "P@0.5, all test tasks"),
    ("all", "clicks", "clicks per object to IoU 0.85"),
    ("all", "accepted", "good enough to accept"),
)
FEW_OBJECTS = 40
"""Labelled objects of each unknown category with which it should reach half of the known ones' mIoU."""

Rounds = list[dict[str, Any]]
Results = dict[str, dict[int, Rounds]]


def read_results(out: Path) -> Results:
    """Strategy -> seed -> rounds, round 0 first; of a simulation that still runs only the seeds that got farthest."""
    base = json.loads((out / "base.json").read_text(encoding="utf-8"))
    strategies = json.loads((out / "settings.json").read_text(encoding="utf-8"))["strategies"]
    results: Results = {}
    for strategy in strategies:
        for folder in sorted(out.glob(f"{strategy}_*")):
            rounds: Rounds = [base]
            while (path := folder / f"round_{len(rounds)}.json").is_file():
                rounds.append(json.loads(path.read_text(encoding="utf-8")))
            if len(rounds) > 1:
                results.setdefault(strategy, {})[int(folder.name.rsplit("_", 1)[1])] = rounds
    for strategy, seeds in results.items():
        most = max(map(len, seeds.values()))
        results[strategy] = {seed: rounds for seed, rounds in seeds.items() if len(rounds) == most}
    return results


def write_report(out: Path, unknown: Sequence[str]) -> dict[str, Any]:
    """Write ``results.json`` and ``curves.png`` into the folder of a simulation; returns what the former holds."""
    results = read_results(out)
    report = {
        "unknown": sorted(unknown),
        "goals": goals(results, unknown),
        "strategies": {
            strategy: {f"{part} {name}": _mean_and_spread(seeds, part, name) for part, name, _ in FIGURES}
            | {"labels": labels_of(next(iter(seeds.values()))), "seeds": len(seeds)}
            for strategy, seeds in results.items()
        },
        "cpu_seconds_per_round": _seconds(results),
    }
    atomic.write_text(out / "results.json", json.dumps(report, indent=1) + "\n")
    _plot(results, out / "curves.png")
    return report


def goals(results: Results, unknown: Sequence[str]) -> dict[str, Any]:
    """The figures that the goals are about, means over seeds.

    - ``few_objects``: by strategy, the last round in which no unknown category had more than ``FEW_OBJECTS`` labelled
      objects: their mIoU over the known categories' in that round.
    - ``labels_for_random``: by strategy, the labels with which it reaches random's final mIoU (between two rounds the
      line between them), as a share of random's.
    - ``clicks_saved``: by strategy, the share of clicks per object saved from before the first to after the last round.
    - ``accepted_gained``: by strategy, by how much the share of pre-labels that are good enough to accept rose.
    - ``forgotten``: by strategy, mIoU that the known categories lost from before the first to after the last round.
    """
    names = ("few_objects", "labels_for_random", "clicks_saved", "accepted_gained", "forgotten")
    found: dict[str, Any] = {name: {} for name in names}
    random = results.get("random")
    target = None if random is None else _curve(random, "all", "mIoU")[-1]
    for strategy, seeds in results.items():
        ratios = []
        for rounds in seeds.values():
            few = [r for r in rounds if max((r["objects"].get(name, 0) for name in unknown), default=0) <= FEW_OBJECTS]
            figures = few[-1]["figures"]
            if "unknown" in figures:
                ratios.append(figures["unknown"]["mIoU"] / max(figures["known"]["mIoU"], 1e-9))
        found["few_objects"][strategy] = _rounded(np.mean(ratios)) if ratios else None
        curve, labels = _curve(seeds, "all", "mIoU"), labels_of(next(iter(seeds.values())))
        if target is not None and random is not None and strategy != "random":
            needed = _labels_to(curve, labels, target)
            total = labels_of(next(iter(random.values())))[-1]
            found["labels_for_random"][strategy] = None if needed is None else _rounded(needed / total)
        clicks = _curve(seeds, "all", "clicks")
        found["clicks_saved"][strategy] = _rounded(1 - clicks[-1] / clicks[0]) if clicks[0] else None
        good = _curve(seeds, "all", "accepted")
        found["accepted_gained"][strategy] = _rounded(good[-1] - good[0])
        known = _curve(seeds, "known", "mIoU")
        found["forgotten"][strategy] = _rounded(known[0] - known[-1])
    return found


_ASKED = (
    ("few_objects", "unknown categories' mIoU as a share of the known ones', 40 objects each", "0.5", "0.7"),
    ("clicks_saved", "clicks per object saved, first to last round", "0.15", "0.30"),
    ("labels_for_random", "labels needed for random's final mIoU, as a share", "0.60", "0.45"),
    ("accepted_gained", "pre-labels good enough to accept (IoU >= 0.85), last round against first", "0.06", "0.15"),
    ("forgotten", "known categories' mIoU forgotten", "0.01", "0.01"),
)
"""Name of a goal, what it says, its floor and its goal."""
_FIRST = {1: ("0.10", "0.25"), 5: ("0.30", "0.45"), 10: ("0.40", "0.55"), 40: ("0.55", "0.70")}
"""The same for P@0.5 of a new category after so many accepted objects."""


def table(
    results: Results, first: Sequence[Mapping[str, Any]], minutes: float | None, unknown: Sequence[str]
) -> list[str]:
    """Lines of a Markdown table: every goal with its floor and what came out, mean and range over seeds.

    Args:
        results: of the rounds.
        first: rows of ``first_objects``.
        minutes: CPU minutes of a training after 24 images; None: not measured.
        unknown: the new categories.
    """
    lines = [
        "| measured on unseen images | floor | goal | mean (lowest to highest seed) |",
        "| --- | --- | --- | --- |",
    ]
    for count, (floor, goal) in _FIRST.items():
        by_seed: dict[int, list[float]] = {}
        for row in first:
            if row["objects"] == count:
                by_seed.setdefault(row["seed"], []).append(row["P@0.5"])
        value = _range([float(np.mean(values)) for values in by_seed.values()])
        said = f"{value}, {len({row['category'] for row in first if row['objects'] == count})} categories"
        lines.append(f"| new category, P@0.5 after {count} accepted object(s) | {floor} | {goal} | {said} |")
    seeds = sorted({seed for found in results.values() for seed in found})
    single = [
        goals({name: {seed: found[seed]} for name, found in results.items() if seed in found}, unknown)
        for seed in seeds
    ]
    for name, what, floor, goal in _ASKED:
        parts = []
        for strategy in results:
            values = [one[name].get(strategy) for one in single]
            known = [value for value in values if value is not None]
            if known:
                parts.append(f"{strategy} {_range(known)}")
        lines.append(f"| {what} | {floor} | {goal} | {'; '.join(parts) or 'none'} |")
    spent = "not measured" if minutes is None else f"{minutes:.2f}"
    lines.append(f"| training after 24 images, CPU minutes | 2 | 1 | {spent} |")
    return lines


def _range(values: Sequence[float]) -> str:
    if not values:
        return "none"
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f}; {len(values)} seed(s))"


def labels_of(rounds: Rounds) -> list[int]:
    """Labelled tasks after each round."""
    return [int(value) for value in np.cumsum([len(one["labelled"]) for one in rounds])]


def _labels_to(curve: Sequence[float], labels: Sequence[int], target: float) -> float | None:
    for k in range(len(curve)):
        if curve[k] >= target:
            if k == 0:
                return float(labels[0])
            share = (target - curve[k - 1]) / (curve[k] - curve[k - 1])
            return float(labels[k - 1] + share * (labels[k] - labels[k - 1]))
    return None


def _curve(seeds: Mapping[int, Rounds], part: str, name: str) -> list[float]:
    """Means over the seeds, as far as all of them got."""
    return [value["mean"] for value in _mean_and_spread(seeds, part, name)]


def _mean_and_spread(seeds: Mapping[int, Rounds], part: str, name: str) -> list[dict[str, float]]:
    done = min(len(rounds) for rounds in seeds.values())
    result = []
    for number in range(done):
        values = [rounds[number]["figures"].get(part, {}).get(name, 0.0) for rounds in seeds.values()]
        result.append({"mean": _rounded(np.mean(values)), "low": _rounded(min(values)), "high": _rounded(max(values))})
    return result


def _seconds(results: Results) -> float:
    spent = [one["seconds"] for seeds in results.values() for rounds in seeds.values() for one in rounds[1:]]
    return _rounded(np.mean(spent)) if spent else 0.0


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)


def _plot(results: Results, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout="constrained")
    for panel, (part, name, title) in zip(figure.subplots(2, 3).flat, FIGURES, strict=True):
        for strategy, seeds in results.items():
            curve = _mean_and_spread(seeds, part, name)
            labels = labels_of(next(iter(seeds.values())))[: len(curve)]
            (line,) = panel.plot(
                labels,
                [point["mean"] for point in curve],
                label=strategy,
                marker="o",
                markersize=3,
                linestyle="--" if strategy == "random" else "-",
                color="black" if strategy == "random" else None,
            )
            low, high = ([point[end] for point in curve] for end in ("low", "high"))
            panel.fill_between(labels, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
        panel.set_title(title)
        panel.set_xlabel("labelled tasks")
        panel.grid(alpha=0.3)
    figure.axes[0].legend()
    with atomic.open_bytes(path) as file:
        figure.savefig(file, format="png", dpi=80)

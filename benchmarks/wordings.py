"""How often people's own sentences find their object among the true boxes.

    python -m benchmarks.wordings FILE [--root DIR] [--part tune] [--json] [--failures]

FILE has one JSON object per line: ``set`` (a ``coco_jsonl`` folder below DIR), ``image``, ``category``, ``ann_ids``,
``expression``, ``style`` (terse or natural), ``understood`` (a second reader picked exactly the target) and ``part``.
Only rows that were understood count. Every annotated object of the image is a candidate, with what the pipeline
measures of it in the image. Printed are, by style, the shares of ``n`` sentences answered with exactly the target
(``right``), with anything else (``wrong``) and not at all (``abstained``), and of the abstained the share whose targets
are all among the candidates that are offered (``offered``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from backend.pipeline.grounding.box_colors import color_in_box
from dataset_tools import image_files
from dataset_tools.categories import CATEGORIES, canonical
from dataset_tools.expressions.appearance import View, look_at, view_of
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.relations import Choice, LabelledBox, choose
from dataset_tools.formats import coco_jsonl

OFFERED = 4
"""So many candidates are shown at most where there is no answer."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Situation:
    """The objects of one image: annotation ids, candidates in the same order, (height, width) in pixels, the view."""

    ids: tuple[int, ...]
    boxes: tuple[LabelledBox, ...]
    size: tuple[int, int]
    view: View


@dataclass(frozen=True)
class Answered:
    """A row, its choice, and whether that is right, wrong or abstained."""

    row: Row
    choice: Choice
    verdict: str
    offered: bool


def read_rows(path: Path, part: str | None = None) -> list[Row]:
    """The rows of FILE that count."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    return [row for row in rows if row["understood"] and part in (None, row["part"])]


def situations(rows: Iterable[Row], root: Path) -> dict[tuple[str, str], Situation]:
    """What there is to choose from in the images of ``rows``, by set and image."""
    wanted: dict[str, set[str]] = {}
    for row in rows:
        wanted.setdefault(row["set"], set()).add(row["image"])
    found = {}
    for name, images in wanted.items():
        data = coco_jsonl.read(root / name)
        for image in sorted(images):
            found[name, image] = situation(data.image(image))
    return found


def situation(entry: coco_jsonl.ImageEntry) -> Situation:
    """The true boxes of one image, measured as the pipeline measures its detections."""
    pixels = image_files.read(entry.path)
    boxes = []
    for annotation in entry.annotations:
        name = canonical(annotation.category) or annotation.category.replace("_", " ")
        mask = annotation.mask()
        known = mask if mask.any() else None
        boxes.append(
            LabelledBox(
                annotation.box,
                name,
                color=color_in_box(pixels, annotation.box),
                area=float(mask.sum()) or None,
                look=look_at(pixels, annotation.box, known),
            )
        )
    return Situation(tuple(a.id for a in entry.annotations), tuple(boxes), (entry.height, entry.width), view_of(pixels))


def answers(rows: Iterable[Row], found: Mapping[tuple[str, str], Situation]) -> Iterator[Answered]:
    """Every row answered."""
    for row in rows:
        scene = found[row["set"], row["image"]]
        own = {box.category for box in scene.boxes} - CATEGORIES.keys()
        choice = choose(parse(row["expression"], own), scene.boxes, scene.size, scene.view)
        ids = [scene.ids[i] for i in choice.indices]
        offered = False
        if choice.code is not None:
            verdict = "abstained"
            offered = set(row["ann_ids"]) <= set(ids[:OFFERED])
        else:
            verdict = "right" if set(ids) == set(row["ann_ids"]) else "wrong"
        yield Answered(row, choice, verdict, offered)


def table(answered: Iterable[Answered]) -> dict[str, dict[str, float | int]]:
    """``n``, ``right``, ``wrong``, ``abstained`` and ``offered`` by style."""
    by_style: dict[str, list[Answered]] = {"terse": [], "natural": []}
    for item in answered:
        by_style.setdefault(item.row["style"], []).append(item)
    result: dict[str, dict[str, float | int]] = {}
    for style, items in by_style.items():
        counts = {
            verdict: sum(item.verdict == verdict for item in items) for verdict in ("right", "wrong", "abstained")
        }
        offered = sum(item.offered for item in items)
        result[style] = {
            "n": len(items),
            **{verdict: round(count / max(len(items), 1), 4) for verdict, count in counts.items()},
            "offered": round(offered / max(counts["abstained"], 1), 4),
        }
    return result


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the sets. [default: FILE's folder]",
)
@click.option("--part", help="Only the rows of this part.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object to stdout.")
@click.option("--failures", is_flag=True, help="List every sentence that is not answered right (not with --json).")
def main(file: Path, root: Path | None, part: str | None, as_json: bool, failures: bool) -> None:
    """Answer the sentences of FILE with true boxes."""
    rows = read_rows(file, part)
    done = list(answers(rows, situations(rows, root or file.parent)))
    result = table(done)
    if as_json:
        click.echo(json.dumps(result))
        return
    for style, values in result.items():
        click.echo(f"{style:8s} " + "  ".join(f"{key} {value}" for key, value in values.items()))
    for item in done:
        if failures and item.verdict != "right":
            row, code = item.row, item.choice.code or "wrong"
            click.echo(f"{row['id']} {row['set']}/{row['image']} {row['category']} [{code}] {row['expression']}")


if __name__ == "__main__":
    main()

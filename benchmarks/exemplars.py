"""How well "find more like this" works: categories that a grounder does not know, after 1, 5 and 10 accepted objects.

    python -m benchmarks.exemplars --data FOLDER --split train --categories helicopter,swimmingpool --json

Of each category some images are drawn: from the first ones objects are accepted one after the other, the others
measure, end to end from the words to the masks. The category's word is replaced by one that no lexicon holds, so that
the detector's outputs for it are never used. ``--unseen`` also takes away the features that these outputs are made of,
as of a category that the detector took for background when it learnt; what its backbone and its boxes have learnt from
such objects stays, so that figures still flatter. ``--gallery`` shows what the first images are answered.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from backend.commands.options import write_picture
from backend.evaluation.expressions import evaluate
from backend.learning.simulation.first_objects import whole_objects
from backend.learning.simulation.words import renamed
from backend.pipeline import PslgSam, load_pipeline
from backend.pipeline.config import load_config
from backend.pipeline.grounding.compact.exemplars import CompactMatcher, GrounderWithExemplars
from backend.pipeline.grounding.compact.grounder import CompactGrounder
from backend.pipeline.grounding.exemplars import Lesson
from backend.pipeline.types import Image, hash_image
from dataset_tools.categories import category_named
from dataset_tools.errors import ConfigError
from dataset_tools.labelled import LabelledImage, Question, questions, read, spread
from dataset_tools.metrics import CONVENTIONS
from dataset_tools.overlays import OverlayObject, contact_sheet, panel

WORD = "quibble"
"""What the categories are called: no word of the lexicon."""
ALL = f"all the {WORD}s"
_PICTURED = 4
"""Unseen images of each category in a gallery."""


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Dataset folder.")
@click.option("--split", default="train", show_default=True)
@click.option("--categories", default="helicopter,swimmingpool,roundabout,soccerfield", show_default=True)
@click.option("--config", default="compact", show_default=True)
@click.option("--weights", help="Other weights of the compact grounder.")
@click.option("--objects", default="1,5,10", show_default=True, help="Accepted objects after which is measured.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--images", default=12, show_default=True, help="Unseen images of each category.")
@click.option("--expressions", default=24, show_default=True, help="Expressions of each category, at most.")
@click.option("--unseen", is_flag=True, help="Without the features that the detector's own outputs are made of.")
@click.option("--shown", help="Split whose objects are accepted; the same images are never asked. [default: --split]")
@click.option("--gallery", type=click.Path(path_type=Path), help="Contact sheet: the first seed's first unseen images.")
@click.option("--json", "as_json", is_flag=True)
def main(
    data: Path,
    split: str,
    categories: str,
    config: str,
    weights: str | None,
    objects: str,
    seeds: int,
    images: int,
    expressions: int,
    unseen: bool,
    shown: str | None,
    gallery: Path | None,
    as_json: bool,
) -> None:
    """Print P@0.5, mIoU and seconds by category and number of accepted objects."""
    loaded = load_config(config)
    if weights:
        loaded = loaded.model_copy(update={"grounder": loaded.grounder.model_copy(update={"weights": weights})})
    pipeline = load_pipeline(loaded)
    grounder = pipeline.grounder
    if not isinstance(grounder, CompactGrounder):
        raise ConfigError("only the compact grounder finds more like what was accepted")
    matcher = CompactMatcher(_without_heat(grounder) if unseen else grounder)
    found = read(data, split)
    pool = read(data, shown) if shown and shown != split else found
    counts = [int(part) for part in objects.split(",")]
    rows: list[Mapping[str, Any]] = []
    panels: list[Image] = []
    for category in categories.split(","):
        for seed in range(seeds):
            draw = Draw.of(found, pool, category, seed, images, expressions)
            taught = {count: Taught.by(pipeline, matcher, draw.shown, category, count) for count in counts}
            for row in _measured(draw, taught):
                rows.append(row)
                click.echo(_line(row), err=True)
            if gallery is not None and not seed:
                panels += _panels(draw, taught)
    if gallery is not None:
        write_picture(gallery, contact_sheet(panels, columns=len(counts)))
    summary = {str(count): _summary([row for row in rows if row["objects"] == count]) for count in counts}
    if as_json:
        click.echo(json.dumps({"summary": summary, "rows": rows}))
        return
    for count, figures in summary.items():
        click.echo(f"{count} objects: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))


def _line(row: Mapping[str, Any]) -> str:
    return (
        f"{row['category']:14} seed {row['seed']}, {row['objects']:3} objects: P@0.5 {row['P@0.5']:.2f}, mIoU"
        f" {row['mIoU']:.3f}, answered {row['answered']:.2f}, {row['found']:.1f} found per image"
        f" ({row['n']} expressions, each image learnt in {row['learn_seconds']:.2f} CPU s)"
    )


def _without_heat(grounder: CompactGrounder) -> CompactGrounder:
    """The same boxes and backbone, but what the heat looks for is nothing."""
    detector = copy.deepcopy(grounder.detector)
    with torch.no_grad():
        detector.heat.conv.weight.zero_()
    return CompactGrounder(detector, grounder.calibration, bfloat16=grounder.bfloat16)


@dataclass(frozen=True)
class Draw:
    """What a seed draws of a category: images whose objects are accepted, and others, of which ``asked`` is asked."""

    category: str
    seed: int
    shown: Sequence[LabelledImage]
    unseen: Sequence[LabelledImage]
    asked: Sequence[Question]

    @classmethod
    def of(
        cls,
        found: Sequence[LabelledImage],
        pool: Sequence[LabelledImage],
        category: str,
        seed: int,
        images: int,
        expressions: int,
    ) -> Draw:
        """``images`` of ``found`` measure; those of ``pool`` that are left are shown."""
        holding = [image for image in found if whole_objects(image, category)]
        random = np.random.default_rng(seed)
        order = random.permutation(len(holding))
        unseen = [_renamed(holding[index], category) for index in order[:images]]
        if pool is found:
            rest = [holding[index] for index in order[images:]]
        else:
            others = [image for image in pool if whole_objects(image, category)]
            rest = [others[index] for index in random.permutation(len(others))]
        asked = spread([question for question in questions(unseen) if question.expression.objects], expressions)
        return cls(category, seed, rest, unseen, asked)


@dataclass(frozen=True)
class Taught:
    """The pipeline after ``accepted`` objects in ``images`` images, and CPU seconds that an image took."""

    model: PslgSam
    accepted: int
    images: int
    seconds: float

    @classmethod
    def by(
        cls, pipeline: PslgSam, matcher: CompactMatcher, shown: Sequence[LabelledImage], category: str, count: int
    ) -> Taught:
        """An image is complete where all its objects are among the first ``count``."""
        lessons: list[Lesson] = []
        accepted, seconds = 0, 0.0
        for image in shown:
            if accepted >= count:
                break
            whole = whole_objects(image, category)
            chosen = whole[: count - accepted]
            complete = len(chosen) == sum(item.category == category for item in image.objects)
            others = [item.box for item in image.objects if item.category != category][:20]
            boxes = [image.objects[index].box for index in chosen]
            pixels = image.pixels()
            started = time.process_time()
            lessons.append(matcher.learn(pixels, boxes, others, complete=complete, key=image.key))
            seconds += time.process_time() - started
            accepted += len(chosen)
        grounder = pipeline.grounder
        assert isinstance(grounder, CompactGrounder)
        taught = GrounderWithExemplars(grounder, matcher, {WORD: lessons})
        model = PslgSam(taught, pipeline.segmenter, pipeline.config, pipeline.model_version)
        return cls(model, accepted, len(lessons), seconds / max(1, len(lessons)))


def _measured(draw: Draw, taught: Mapping[int, Taught]) -> Iterator[dict[str, Any]]:
    """A row for each number of objects. Image by image, so that the matcher looks at each once."""
    convention = CONVENTIONS["native"]
    ious: dict[int, list[float]] = {count: [] for count in taught}
    boxes: dict[int, list[int]] = {count: [] for count in taught}
    for image in draw.unseen:
        pixels = image.pixels()
        asked = [question for question in draw.asked if question.image is image]
        for count, one in taught.items():
            outcomes = evaluate(one.model, asked, partial(_given, pixels), convention=convention).outcomes
            ious[count] += [outcome.iou(convention) for outcome in outcomes]
            boxes[count].append(len(one.model.ground(pixels, ALL, key=hash_image(pixels)).groundings))
    for count, one in taught.items():
        found = np.array(ious[count])
        yield {
            "category": draw.category,
            "seed": draw.seed,
            "objects": count,
            "accepted": one.accepted,
            "images": one.images,
            "n": len(found),
            "P@0.5": float((found >= 0.5).mean()),
            "mIoU": float(found.mean()),
            "answered": float((found > 0).mean()),
            "found": float(np.mean(boxes[count])),
            "learn_seconds": one.seconds,
        }


def _given(pixels: Image, _: Path) -> Image:
    """The pixels themselves, which were read already: the matcher knows them again."""
    return pixels


def _panels(draw: Draw, taught: Mapping[int, Taught]) -> list[Image]:
    """Of the first unseen images, everything that is found after each number of objects, and the truth in white."""
    found = []
    for image in draw.unseen[:_PICTURED]:
        pixels = image.pixels()
        masks = [item.mask() for item in image.objects if item.category == WORD]
        truth = np.logical_or.reduce(masks)
        for count, one in taught.items():
            answer = one.model.prelabel(pixels, ALL)
            drawn = [OverlayObject(item.mask, item.box, label=f"{item.scores['grounding']:.2f}") for item in answer]
            title = f"{category_named(draw.category).display}, {count} accepted: {len(drawn)} of {len(masks)}"
            found.append(panel(pixels, drawn, title, image.path.name, truth=truth))
    return found


def _renamed(image: LabelledImage, category: str) -> LabelledImage:
    """The image with the expressions about the category, which is called ``WORD`` in them."""
    other = renamed(image, {category: WORD})
    return replace(other, expressions=tuple(one for one in other.expressions if one.objects and one.label == WORD))


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = ("P@0.5", "mIoU", "answered", "found")
    return {name: float(np.mean([row[name] for row in rows])) for name in names}


if __name__ == "__main__":
    main()

"""A project's whole way with a word that no lexicon holds: lessons, a training, the gate, what comes back.

    python -m benchmarks.new_word --data FOLDER --category swimmingpool --images 24 --held-out 8 --json

Images of one part are labelled with the true outlines of a category under an invented word; the base weights' outputs
for the category are taken out, so that nothing but the labels finds it (the features below have still seen it: figures
flatter). The version that comes out is judged by the promotion gate, as the server does, against the base weights; what
the lessons alone give on the same held-out images stands beside it.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml

from backend.evaluation.expressions import evaluate
from backend.learning.retraining.gate import compare
from backend.learning.retraining.project import train_project
from backend.learning.retraining.replay import read_replay
from backend.learning.retraining.verdict import Rules
from backend.learning.simulation.first_objects import whole_objects
from backend.learning.simulation.words import renamed
from backend.pipeline import load_pipeline
from backend.pipeline.config import load_config
from backend.pipeline.grounding.compact.detector_file import save_without
from backend.pipeline.grounding.exemplars import LIKE, digest, lessons_of
from backend.pipeline.weights import require
from dataset_tools.categories import category_named
from dataset_tools.image_files import read as read_image
from dataset_tools.labelled import LabelledImage, questions, read
from dataset_tools.metrics import CONVENTIONS

WORD = "quibble"


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Dataset folder.")
@click.option("--split", default="train", show_default=True)
@click.option("--category", default="swimmingpool", show_default=True)
@click.option("--images", default=24, show_default=True, help="Labelled images to learn from.")
@click.option("--held-out", default=8, show_default=True, help="Labelled images of the gate.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(data: Path, split: str, category: str, images: int, held_out: int, seed: int, as_json: bool) -> None:
    """Print what the gate says, the most objects of an answer, and CPU minutes."""
    holding = [image for image in read(data, split) if whole_objects(image, category)]
    order = np.random.default_rng(seed).permutation(len(holding))[: images + held_out]
    labelled = [_labelled(holding[index], category) for index in order]
    with tempfile.TemporaryDirectory() as folder:
        report = _measured(Path(folder), category, labelled[:images], labelled[images:])
    click.echo(json.dumps(report) if as_json else "\n".join(f"{name}: {value}" for name, value in report.items()))


def _labelled(image: LabelledImage, category: str) -> LabelledImage:
    """What a project holds of the image: every object of the category, under the word, and the expressions about it."""
    other = renamed(image, {category: WORD})
    kept = [index for index, item in enumerate(other.objects) if item.category == WORD]
    place = {index: number for number, index in enumerate(kept)}
    expressions = tuple(
        replace(one, objects=tuple(place[index] for index in one.objects))
        for one in other.expressions
        if one.objects and one.label == WORD
    )
    objects = tuple(other.objects[index] for index in kept)
    return replace(other, objects=objects, expressions=expressions, complete=frozenset({WORD}))


def _measured(
    folder: Path, category: str, training: list[LabelledImage], held_out: list[LabelledImage]
) -> dict[str, Any]:
    config = load_config("compact")
    assert config.grounder.weights is not None
    save_without(require(config.grounder.weights), [category], folder / "grounder.safetensors")
    values = config.model_dump(mode="json")
    values["grounder"]["weights"] = str(folder / "grounder.safetensors")
    (folder / "base.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    base = load_pipeline(folder / "base.yaml")
    matcher, known = base.exemplar_matcher(), base.grounder.known_categories
    assert matcher is not None and known is not None  # noqa: PT018 - the compact grounder's
    started = time.process_time()
    lessons = lessons_of(matcher, training, known)
    taught = time.process_time() - started
    serving = base.with_exemplars(lessons, f"{base.model_version}{LIKE}{digest(lessons)}")
    replay = read_replay(None, folder / "replay")
    started = time.process_time()
    trained = train_project(folder / "base.yaml", training, replay.training, folder / "version")
    spent = time.process_time() - started
    version = load_pipeline(trained.config)
    plural = category_named(WORD).plural
    most = {
        name: max(len(one.ground(i.pixels(), f"all the {plural}", key=i.key).groundings) for i in held_out)
        for name, one in (("lessons", serving), ("version", version))
    }
    rules = Rules(images=min(5, len(held_out)))
    gate = compare(base, version, held_out, replay.gate[:10], training=training, rules=rules)
    convention = CONVENTIONS["native"]
    by_lessons = evaluate(serving, questions(held_out), read_image, convention=convention).outcomes
    return {
        "labelled objects": sum(len(image.objects) for image in training),
        "most objects in a labelled image": max(len(image.objects) for image in (*training, *held_out)),
        "most objects found in a held-out image": most,
        "held-out mIoU by lessons alone": float(np.mean([one.iou(convention) for one in by_lessons])),
        "CPU seconds of a lesson": round(taught / len(training), 2),
        "CPU minutes of the training": round(spent / 60, 2),
        "gate": asdict(gate),
    }


if __name__ == "__main__":
    main()

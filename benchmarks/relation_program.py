"""How often the relation program picks the right object, with true boxes and with a poor detector's in their place.

    python -m benchmarks.relation_program FOLDER/nwpu_vhr10 [--split test] [--failures]

Prints the share of expressions answered with exactly the annotated objects, by kind, then the same for all
expressions of one object while boxes are dropped, added and moved; ``--failures`` lists every expression that goes
wrong on true boxes.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.relations import Choice, LabelledBox, choose
from dataset_tools.geometry import Box
from dataset_tools.labelled import LabelledImage, Question, questions, read

Candidates = Mapping[str, Sequence[tuple[int, LabelledBox]]]
"""Name of the image -> (place among its objects, candidate); -1 for a false box."""


@dataclass(frozen=True)
class Detector:
    """How a made-up detector errs.

    Attributes:
        dropped: share of true boxes that it misses.
        added: false boxes per true one, of its category and size, anywhere in the image.
        moved: most that a border is off, as a share of the box's side.
        true_scores, false_scores: range that scores are drawn from.
    """

    dropped: float = 0.0
    added: float = 0.0
    moved: float = 0.0
    true_scores: tuple[float, float] = (1.0, 1.0)
    false_scores: tuple[float, float] = (1.0, 1.0)


PERFECT = Detector()
POOR = Detector(0.2, 0.2, 0.1, (0.5, 1.0), (0.1, 0.5))
DETECTORS = {
    "true boxes": PERFECT,
    "borders off by up to 10 %, scores 0.5 to 1": Detector(moved=0.1, true_scores=(0.5, 1.0)),
    "20 % dropped": Detector(dropped=0.2),
    "20 % false ones added, as certain as the true": Detector(added=0.2),
    "20 % false ones added, scores 0.1 to 0.5": Detector(added=0.2, true_scores=(0.5, 1.0), false_scores=(0.1, 0.5)),
    "all of it, false ones as certain as the true": Detector(0.2, 0.2, 0.1),
    "all of it, false ones with scores 0.1 to 0.5": POOR,
}


def candidates(images: Sequence[LabelledImage], detector: Detector, seed: int = 0) -> Candidates:
    """What ``detector`` finds in every image."""
    rng = random.Random(seed)
    found: dict[str, list[tuple[int, LabelledBox]]] = {}
    for image in images:
        boxes = found[image.name] = []
        for place, item in enumerate(image.objects):
            category, box = item.category, item.box
            if rng.random() >= detector.dropped:
                left, top, right, bottom = (rng.uniform(-detector.moved, detector.moved) for _ in range(4))
                moved = Box(
                    box.x0 + left * box.width,
                    box.y0 + top * box.height,
                    box.x1 + right * box.width,
                    box.y1 + bottom * box.height,
                )
                boxes.append((place, LabelledBox(moved, category, rng.uniform(*detector.true_scores))))
            if rng.random() < detector.added:
                x, y = rng.uniform(0, image.width - box.width), rng.uniform(0, image.height - box.height)
                false = Box(x, y, x + box.width, y + box.height)
                boxes.append((-1, LabelledBox(false, category, rng.uniform(*detector.false_scores))))
    return found


def answer(question: Question, found: Candidates) -> tuple[bool, Choice]:
    """Whether exactly the annotated objects are chosen (for ``absent``: none), and the choice."""
    image, expression = question.image, question.expression
    boxes = found[image.name]
    choice = choose(parse(expression.text), [box for _, box in boxes], (image.height, image.width))
    if not expression.objects:
        return choice.code == "absent", choice
    return choice.code is None and {boxes[i][0] for i in choice.indices} == set(expression.objects), choice


def shares(images: Sequence[LabelledImage], found: Candidates) -> dict[str, tuple[int, int]]:
    """Kind -> (right, of); ``one object`` sums up all kinds but all and absent, ``one object, detected`` those whose
    object is among the boxes.
    """
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for question in questions(images):
        good, _ = answer(question, found)
        groups = [question.kind]
        if question.kind not in ("all", "absent"):
            groups.append("one object")
            if question.expression.objects[0] in {place for place, _ in found[question.image.name]}:
                groups.append("one object, detected")
        for group in groups:
            right[group] += good
            total[group] += 1
    return {group: (right[group], count) for group, count in total.items()}


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", help="Only the images of this part of split.json.")
@click.option("--failures", is_flag=True, help="List every expression that goes wrong on true boxes.")
def main(data: Path, split: str | None, failures: bool) -> None:
    """Measure the relation program on the dataset folder DATA."""
    images = read(data, split, masks=False)
    for kind, (right, count) in shares(images, candidates(images, PERFECT)).items():
        click.echo(f"{kind:22s} {right:5d} of {count:5d}  {right / count:.4f}")
    click.echo("\nExpressions of one object            all      object detected")
    for name, detector in DETECTORS.items():
        table = shares(images, candidates(images, detector))
        everything, detected = (table[group][0] / table[group][1] for group in ("one object", "one object, detected"))
        click.echo(f"{everything:8.3f} {detected:8.3f}  {name}")
    if failures:
        click.echo()
        found = candidates(images, PERFECT)
        for question in questions(images):
            good, choice = answer(question, found)
            if not good:
                name, expression = question.image.name, question.expression
                chosen = [found[name][i][0] for i in choice.indices]
                wanted = list(expression.objects)
                click.echo(f"{name} {expression.text!r}: {wanted}, got {chosen} {choice.code or ''}")


if __name__ == "__main__":
    main()

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

import click

from dataset_tools.categories import canonical
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.relations import Choice, LabelledBox, choose
from dataset_tools.formats.coco_jsonl import CocoJsonl, Expression, read
from dataset_tools.geometry import Box

Candidates = Mapping[str, Sequence[tuple[int, LabelledBox]]]
"""File name -> (annotation id, candidate); -1 for a false box."""


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


def candidates(data: CocoJsonl, detector: Detector, seed: int = 0) -> Candidates:
    """What ``detector`` finds in every image of ``data``."""
    rng = random.Random(seed)
    found: dict[str, list[tuple[int, LabelledBox]]] = {}
    for image in data.images:
        boxes = found[image.file_name] = []
        for annotation in image.annotations:
            category, box = canonical(annotation.category) or annotation.category, annotation.box
            if rng.random() >= detector.dropped:
                left, top, right, bottom = (rng.uniform(-detector.moved, detector.moved) for _ in range(4))
                moved = Box(
                    box.x0 + left * box.width,
                    box.y0 + top * box.height,
                    box.x1 + right * box.width,
                    box.y1 + bottom * box.height,
                )
                boxes.append((annotation.id, LabelledBox(moved, category, rng.uniform(*detector.true_scores))))
            if rng.random() < detector.added:
                x, y = rng.uniform(0, image.width - box.width), rng.uniform(0, image.height - box.height)
                false = Box(x, y, x + box.width, y + box.height)
                boxes.append((-1, LabelledBox(false, category, rng.uniform(*detector.false_scores))))
    return found


def answer(data: CocoJsonl, row: Expression, found: Candidates) -> tuple[bool, Choice]:
    """Whether exactly the annotated objects of ``row`` are chosen (for ``absent``: none), and the choice."""
    image = data.image(row.image)
    boxes = found[row.image]
    choice = choose(parse(row.expression), [box for _, box in boxes], (image.height, image.width))
    if not row.ann_ids:
        return choice.code == "absent", choice
    return choice.code is None and {boxes[i][0] for i in choice.indices} == set(row.ann_ids), choice


def shares(data: CocoJsonl, found: Candidates) -> dict[str, tuple[int, int]]:
    """Kind -> (right, of); ``one object`` sums up all kinds but all and absent, ``one object, detected`` those whose
    object is among the boxes.
    """
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for row in data.expressions:
        good, _ = answer(data, row, found)
        groups = [row.kind]
        if row.kind not in ("all", "absent"):
            groups.append("one object")
            if row.ann_ids[0] in {ann_id for ann_id, _ in found[row.image]}:
                groups.append("one object, detected")
        for group in groups:
            right[group] += good
            total[group] += 1
    return {group: (right[group], count) for group, count in total.items()}


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False))
@click.option("--split", help="Only the images of this part of split.json.")
@click.option("--failures", is_flag=True, help="List every expression that goes wrong on true boxes.")
def main(data: str, split: str | None, failures: bool) -> None:
    """Measure the relation program on the coco_jsonl folder DATA."""
    folder = read(data, split)
    for kind, (right, count) in shares(folder, candidates(folder, PERFECT)).items():
        click.echo(f"{kind:22s} {right:5d} of {count:5d}  {right / count:.4f}")
    click.echo("\nExpressions of one object            all      object detected")
    for name, detector in DETECTORS.items():
        table = shares(folder, candidates(folder, detector))
        everything, detected = (table[group][0] / table[group][1] for group in ("one object", "one object, detected"))
        click.echo(f"{everything:8.3f} {detected:8.3f}  {name}")
    if failures:
        click.echo()
        found = candidates(folder, PERFECT)
        for row in folder.expressions:
            good, choice = answer(folder, row, found)
            if not good:
                chosen = [found[row.image][i][0] for i in choice.indices]
                click.echo(f"{row.image} {row.expression!r}: {list(row.ann_ids)}, got {chosen} {choice.code or ''}")


if __name__ == "__main__":
    main()

"""Referring expressions for annotated objects: suggestions for annotators, and more text for a dataset.

Every proposed expression is true of its object with a clear margin, in words that people use for overhead images (see
:mod:`dataset_tools.expressions.rule_made.wordings`), and is unambiguous: the parser and the relation program find
exactly its object again among all annotated ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dataset_tools import colors
from dataset_tools.categories import canonical
from dataset_tools.expressions.appearance import View, look_at, view_of
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.relations import LabelledBox, choose
from dataset_tools.expressions.rule_made.wordings import Scenery
from dataset_tools.geometry import Box

__all__ = ["GENERATOR", "Proposal", "propose", "propose_for_boxes"]

GENERATOR = "dataset_tools.expressions.proposals"
"""Provenance of every proposal; goes with it into Label Studio and into datasets."""

_MARGIN = 0.25
"""How far the object must be ahead of the next one for the relation program."""
_MAX_WORDS = 16
"""Loaders of the field cut expressions off after 18 word pieces."""


@dataclass(frozen=True)
class Proposal:
    """A generated expression.

    Attributes:
        expression: the words.
        category: canonical category of the objects.
        kind: what it goes by: single, color, size, region, extreme, order, group, shape, surface, relation, near, all.
        targets: indices of the objects it refers to; several for kind ``all``.
        margin: how far they are ahead of the other objects, in [0, 1].
        generator: provenance, always :data:`GENERATOR`.
    """

    expression: str
    category: str
    kind: str
    targets: tuple[int, ...]
    margin: float
    generator: str = GENERATOR


def propose(
    masks: Sequence[npt.NDArray[np.bool_]],
    categories: Sequence[str],
    image: npt.NDArray[np.uint8] | None = None,
    *,
    seed: int = 0,
    per_object: int = 5,
) -> list[Proposal]:
    """Expressions for the objects of one image.

    Args:
        masks: bool[H, W] each, all of one size.
        categories: as many labels, in any spelling that ``categories.canonical`` knows.
        image: uint8[H, W, 3] RGB; without it no colours are named.
        seed: of the choice among wordings; the same input and seed give the same proposals.
        per_object: at most so many for one object, of different kinds as far as possible.

    Objects with an empty mask or an unknown label get no expression. Expressions for all objects of a category come
    last.

    Raises:
        ValueError: there are not as many masks as labels, or their sizes differ.
    """
    if len(masks) != len(categories):
        raise ValueError(f"propose needs one label per mask, got {len(masks)} masks and {len(categories)} labels")
    sizes = {mask.shape for mask in masks}
    if len(sizes) > 1:
        raise ValueError(f"all masks of an image must be of one size, got {sorted(sizes)}")
    kept = [(i, canonical(label)) for i, label in enumerate(categories) if masks[i].any()]
    named = [(i, category) for i, category in kept if category is not None]
    objects = [
        LabelledBox(
            Box.of_mask(masks[i]),
            category,
            color=None if image is None else colors.color_of_mask(image, masks[i]),
            area=float(masks[i].sum()),
            look=None if image is None else look_at(image, Box.of_mask(masks[i]), masks[i]),
        )
        for i, category in named
    ]
    if not objects:
        return []
    height, width = masks[0].shape
    view = None if image is None else view_of(image)
    found = propose_for_boxes(objects, (height, width), view, seed=seed, per_object=per_object)
    return [replace(proposal, targets=tuple(named[i][0] for i in proposal.targets)) for proposal in found]


def propose_for_boxes(
    objects: Sequence[LabelledBox],
    image_size: tuple[int, int],
    view: View | None = None,
    *,
    seed: int = 0,
    per_object: int = 5,
) -> list[Proposal]:
    """As :func:`propose`, of objects of canonical categories in an image of ``image_size`` (height, width).

    ``view``: what else is seen in it, for "on the grass".
    """
    rng = np.random.default_rng(seed)
    scenery = Scenery(objects, image_size, view)
    proposals: list[Proposal] = []
    for index in range(len(objects)):
        wordings = list(dict.fromkeys(scenery.of_one(index)))
        order = [wordings[i] for i in rng.permutation(len(wordings))]
        rounds = sorted(range(len(order)), key=lambda i: [kind for kind, _ in order[:i]].count(order[i][0]))
        accepted = 0
        for i in rounds:  # one of each kind first, then second ones
            if accepted >= per_object:
                break
            kind, text = order[i]
            proposal = _checked(kind, text, (index,), objects, image_size, view)
            if proposal is not None:
                proposals.append(proposal)
                accepted += 1
    for members in scenery.groups.values():
        for text in scenery.of_all(members):
            proposal = _checked("all", text, tuple(members), objects, image_size, view)
            if proposal is not None:
                proposals.append(proposal)
    return proposals


def _checked(
    kind: str,
    text: str,
    targets: tuple[int, ...],
    objects: Sequence[LabelledBox],
    image_size: tuple[int, int],
    view: View | None,
) -> Proposal | None:
    """The proposal if the relation program finds its targets again, and nothing else."""
    query = parse(text)
    choice = choose(query, objects, image_size, view)
    category = objects[targets[0]].category
    if query.category != category or len(text.split()) > _MAX_WORDS:
        return None
    if choice.code is not None or sorted(choice.indices) != sorted(targets) or choice.margin < _MARGIN:
        return None
    return Proposal(text, category, kind, targets, choice.margin)

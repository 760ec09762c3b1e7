"""What grounders of any noun share: the words a detector is asked for, and the choice among what it finds.

A detector is asked for nouns alone (what the expression asks for and what it relates that to): position, order and
relation words mislead it. ``dataset_tools.expressions.relations`` applies those to its boxes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from backend.pipeline.grounding.box_colors import color_in_box
from backend.pipeline.types import Abstention, GroundedMask, Grounding, GroundingResult, Image, Mask
from dataset_tools.categories import CATEGORIES
from dataset_tools.expressions.appearance import look_at, view_of
from dataset_tools.expressions.landmarks import mentions_surroundings
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.query import Among, Constraint, Group, Query, Relation
from dataset_tools.expressions.relations import LabelledBox, choose
from dataset_tools.geometry import Box

__all__ = [
    "Found",
    "OpenVocabularyGrounder",
    "Phrase",
    "TransformersDetector",
    "choose_among",
    "labelled_boxes",
    "of_sentence",
    "phrases_of",
    "with_nouns_as_categories",
]

_MOST_OFFERED = 4


@dataclass(frozen=True)
class Phrase:
    """Words for the detector.

    Attributes:
        words: a noun, lower case.
        name: what a box found by them is called: a canonical category, or the noun itself if it names none.
    """

    words: str
    name: str


@dataclass(frozen=True)
class Found:
    """Everything a detector sees of some phrases.

    Attributes:
        boxes: best first.
        outlines: per box what makes the object's outline, for detectors that see it; else empty.
        absent: names of phrases that the detector itself says are not in the image -> how sure it is that they are,
            in [0, 1].
    """

    boxes: Sequence[LabelledBox]
    outlines: Sequence[Callable[[], GroundedMask]] = ()
    absent: dict[str, float] | None = None


class OpenVocabularyGrounder(ABC):
    """Implements ``Grounder`` for any noun around ``find``; safe to call from several threads if that is."""

    known_categories: frozenset[str] | None = None

    @abstractmethod
    def find(self, image: Image, phrases: Sequence[Phrase], *, key: str | None = None) -> Found:
        """Everything in ``image`` uint8[H, W, 3] RGB that one of the phrases names; ``key`` as of ``ground``."""

    def ground(
        self, image: Image, expression: str, *, key: str | None = None, labels: Collection[str] = ()
    ) -> GroundingResult:
        """The boxes that ``expression`` describes in ``image`` uint8[H, W, 3] RGB, or why there are none.

        ``labels`` as of ``Grounder.ground``: without them "green" in "the green roof" is a colour, whatever a project
        calls its objects.
        """
        query = with_nouns_as_categories(parse(expression, labels))
        found = Found(()) if query.category is None else self.find(image, phrases_of(query), key=key)
        return choose_among(image, query, found)


class TransformersDetector(OpenVocabularyGrounder):
    """An :class:`OpenVocabularyGrounder` around a network of transformers.

    Args:
        model: the network, on its device and in evaluation mode.
        processor: its processor.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model
        self._processor = processor
        self._device = next(model.parameters()).device


def choose_among(image: Image, query: Query, found: Found) -> GroundingResult:
    """What ``query`` describes of what was found in ``image`` uint8[H, W, 3] RGB, by the relation program."""
    candidates = list(found.boxes)
    if query.mentions_color:
        candidates = [replace(one, color=color_in_box(image, one.box)) for one in candidates]
    if query.mentions_looks:
        masks: list[Mask | None] = [outline().mask for outline in found.outlines]
        masks = masks or [None] * len(candidates)
        candidates = [replace(c, look=look_at(image, c.box, m)) for c, m in zip(candidates, masks, strict=True)]
    view = view_of(image) if mentions_surroundings(query) else None
    choice = choose(query, candidates, (image.shape[0], image.shape[1]), view)
    groundings = [Grounding(c.box, c.score, c.category if c.category in CATEGORIES else None) for c in candidates]
    considered = tuple(g for g, c in zip(groundings, candidates, strict=True) if c.category == query.category)
    if choice.code is not None:
        closest = tuple(groundings[i] for i in choice.indices) or considered
        unread = choice.unread if choice.code == "unknown-word" else ()
        message = choice.message
        if choice.code == "absent" and query.category in (found.absent or {}):
            presence = (found.absent or {})[query.category]
            message += f" The detector holds it for absent (presence {presence:.2f})."
        return GroundingResult((), Abstention(choice.code, message, closest, unread), considered)
    if found.outlines:
        groundings = [replace(g, outline=outline) for g, outline in zip(groundings, found.outlines, strict=True)]
    return GroundingResult(tuple(groundings[i] for i in choice.indices), None, considered)


def of_sentence(image: Image, expression: str, query: Query, groundings: tuple[Grounding, ...]) -> GroundingResult:
    """What a model that reads whole sentences has found for ``expression``: all, one of it, or that there is none."""
    if not groundings:
        message = f"The model finds nothing in the image that fits {expression.strip()[:120]!r}."
        return GroundingResult((), Abstention("absent", message))
    if len(groundings) > 1 and not query.is_all and query.count in (None, 1):
        return _one_of(image, query, groundings)
    return GroundingResult(groundings, None, groundings)


def _one_of(image: Image, query: Query, groundings: tuple[Grounding, ...]) -> GroundingResult:
    """Several boxes of a model that reads sentences, where one was asked for: the relation program picks, or says that
    it cannot.
    """
    if query.category is not None and query.constraints:
        outlines = [one.outline for one in groundings if one.outline is not None]
        boxes = [LabelledBox(one.box, query.category, one.score) for one in groundings]
        result = choose_among(image, query, Found(boxes, outlines if len(outlines) == len(boxes) else ()))
        if result.abstention is None:
            return GroundingResult(result.groundings, None, groundings)
    message = f"The model finds {len(groundings)} objects that fit: say which one, or ask for all."
    return GroundingResult((), Abstention("ambiguous", message, groundings[:_MOST_OFFERED]), groundings)


def labelled_boxes(
    boxes: Tensor, by_name: dict[str, Tensor], image_size: tuple[int, int], threshold: float, overlap: float
) -> tuple[list[LabelledBox], list[int]]:
    """The boxes of a detector that are kept, best first, and their rows.

    Args:
        boxes: float32[N, 4], x0, y0, x1, y1 as shares of the image; clipped to it.
        by_name: name -> float32[N], how likely each box is one of that name, in [0, 1]; each box takes the likeliest.
        image_size: (height, width) in pixels; boxes thinner than a pixel are dropped.
        threshold: lowest score.
        overlap: IoU above which the weaker of two boxes of one name is dropped.
    """
    if not by_name:
        return [], []
    names = list(by_name)
    scores, kinds = torch.stack([by_name[name] for name in names], dim=1).max(dim=1)
    height, width = image_size
    pixels = boxes.clamp(0.0, 1.0) * torch.tensor([width, height, width, height], device=boxes.device)
    kept = ((scores >= threshold) & (pixels[:, 2:] - pixels[:, :2] >= 1.0).all(dim=1)).nonzero()[:, 0]
    rows = kept[batched_nms(pixels[kept], scores[kept], kinds[kept], overlap)].tolist()
    return [LabelledBox(Box(*pixels[i].tolist()), names[int(kinds[i])], float(scores[i])) for i in rows], rows


def phrases_of(query: Query) -> tuple[Phrase, ...]:
    """What the detector has to find to answer ``query``: the noun as written and the category's usual name, then the
    same for everything it refers to, each once.
    """
    found: list[Phrase] = []
    if query.category is not None:
        category = CATEGORIES.get(query.category)
        usual = (category.display, category.plural) if category else ()
        found += [Phrase(query.noun, query.category)] if query.noun and query.noun not in usual else []
        found += [Phrase(category.display, query.category)] if category else []
    for part in query.parts:
        found += phrases_of(part)
    return tuple(dict.fromkeys(found))


def with_nouns_as_categories(query: Query) -> Query:
    """The query with every unknown noun taken as a category of its own: an open vocabulary knows it."""
    category = query.category or query.noun or None
    constraints = tuple(map(_with_nouns_in, query.constraints))
    return replace(query, category=category, unknown_words=(), constraints=constraints)


def _with_nouns_in(constraint: Constraint) -> Constraint:
    if isinstance(constraint, Among):
        return replace(constraint, pool=with_nouns_as_categories(constraint.pool))
    if isinstance(constraint, Relation):
        return replace(constraint, targets=tuple(map(with_nouns_as_categories, constraint.targets)))
    if isinstance(constraint, Group):
        place, members = (tuple(map(_with_nouns_in, part)) for part in (constraint.place, constraint.members))
        return replace(constraint, place=place, members=members)
    return constraint

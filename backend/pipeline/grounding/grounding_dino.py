"""Grounding DINO as a grounder: an open-vocabulary detector finds what the words name, relations pick among it.

The detector is asked for nouns alone (what the expression asks for and what it relates that to): position, order and
relation words mislead it. ``dataset_tools.expressions.relations`` applies those to its boxes. Model and processor come
from transformers (``from_pretrained``); Liu et al., arXiv 2303.05499.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torchvision.ops import batched_nms

from backend.pipeline.grounding.box_colors import color_in_box
from backend.pipeline.types import Abstention, Grounding, GroundingResult, Image
from dataset_tools.categories import CATEGORIES
from dataset_tools.errors import WeightsError
from dataset_tools.expressions.appearance import look_at, view_of
from dataset_tools.expressions.landmarks import mentions_surroundings
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.query import Among, Constraint, Group, Query, Relation
from dataset_tools.expressions.relations import LabelledBox, choose
from dataset_tools.geometry import Box

__all__ = ["GroundingDinoGrounder", "Phrase", "load_grounding_dino", "phrases_of"]

_MODEL_TYPES = ("grounding-dino", "mm-grounding-dino")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Phrase:
    """Words for the detector.

    Attributes:
        words: a noun, lower case.
        name: what a box found by them is called: a canonical category, or the noun itself if it names none.
    """

    words: str
    name: str


class GroundingDinoGrounder:
    """Implements ``Grounder`` for any noun; safe to call from several threads.

    Args:
        model: a GroundingDinoForObjectDetection of transformers.
        processor: its processor, with a fast tokenizer.
        box_threshold: lowest score of a box, in [0, 1].
        overlap_threshold: IoU above which the weaker of two boxes of one name is dropped.
        device: where to run, for example ``cpu`` or ``cuda:0``.
    """

    known_categories: frozenset[str] | None = None

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        box_threshold: float = 0.3,
        overlap_threshold: float = 0.7,
        device: str = "cpu",
    ) -> None:
        self._model = model.to(device).eval()
        self._processor = processor
        self._box_threshold = box_threshold
        self._overlap_threshold = overlap_threshold
        self._device = torch.device(device)

    def ground(
        self,
        image: Image,
        expression: str,
        *,
        key: str | None = None,  # noqa: ARG002 - the protocol's signature
    ) -> GroundingResult:
        """The boxes that ``expression`` describes in ``image`` uint8[H, W, 3] RGB, or why there are none."""
        query = _with_nouns_as_categories(parse(expression))
        candidates = [] if query.category is None else self.detect(image, phrases_of(query))
        if query.mentions_color:
            candidates = [replace(found, color=color_in_box(image, found.box)) for found in candidates]
        if query.mentions_looks:
            candidates = [replace(found, look=look_at(image, found.box)) for found in candidates]
        view = view_of(image) if mentions_surroundings(query) else None
        choice = choose(query, candidates, (image.shape[0], image.shape[1]), view)
        groundings = [Grounding(c.box, c.score, c.category if c.category in CATEGORIES else None) for c in candidates]
        considered = tuple(g for g, c in zip(groundings, candidates, strict=True) if c.category == query.category)
        if choice.code is not None:
            closest = tuple(groundings[i] for i in choice.indices) or considered
            unread = choice.unread if choice.code == "unknown-word" else ()
            return GroundingResult((), Abstention(choice.code, choice.message, closest, unread), considered)
        return GroundingResult(tuple(groundings[i] for i in choice.indices), None, considered)

    @torch.inference_mode()
    def detect(self, image: Image, phrases: Sequence[Phrase]) -> list[LabelledBox]:
        """Everything in ``image`` uint8[H, W, 3] RGB that one of the phrases names, best first.

        A box goes to the phrase of its likeliest word; that word's probability is its score. Boxes are clipped to the
        image; the phrase's name is their category.
        """
        text = " ".join(f"{phrase.words}." for phrase in phrases)
        inputs = self._processor(images=image, text=text, return_tensors="pt").to(self._device)
        output = self._model(**inputs)
        likely = output.logits[0].float().sigmoid()  # [queries, tokens]
        tokens = self._tokens_of(text, phrases, min(inputs["input_ids"].shape[1], likely.shape[1]))
        spoken = [(phrase.name, likely[:, own].amax(dim=1)) for phrase, own in zip(phrases, tokens, strict=True) if own]
        if not spoken:
            return []
        names = list(dict.fromkeys(name for name, _ in spoken))
        by_name = torch.stack([torch.stack([p for n, p in spoken if n == name]).amax(dim=0) for name in names], dim=1)
        scores, kinds = by_name.max(dim=1)
        height, width = image.shape[:2]
        middle, extent = output.pred_boxes[0].float().split(2, dim=1)
        boxes = torch.cat([middle - extent / 2, middle + extent / 2], dim=1).clamp(0.0, 1.0)
        boxes = boxes * torch.tensor([width, height, width, height], device=self._device)
        kept = ((scores >= self._box_threshold) & (boxes[:, 2:] - boxes[:, :2] >= 1.0).all(dim=1)).nonzero()[:, 0]
        kept = kept[batched_nms(boxes[kept], scores[kept], kinds[kept], self._overlap_threshold)]
        return [LabelledBox(Box(*boxes[i].tolist()), names[int(kinds[i])], float(scores[i])) for i in kept.tolist()]

    def _tokens_of(self, text: str, phrases: Sequence[Phrase], count: int) -> list[list[int]]:
        """Per phrase the indices of its tokens among the first ``count`` of ``text``; the model reads no more."""
        offsets = self._processor.tokenizer(text, return_offsets_mapping=True)["offset_mapping"][:count]
        found = []
        start = 0
        for phrase in phrases:
            stop = start + len(phrase.words)
            found.append([i for i, (first, last) in enumerate(offsets) if start <= first < last <= stop])
            start = stop + 2
        return found


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


def _with_nouns_as_categories(query: Query) -> Query:
    """The query with every unknown noun taken as a category of its own: an open vocabulary knows it."""
    category = query.category or query.noun or None
    constraints = tuple(map(_with_nouns_in, query.constraints))
    return replace(query, category=category, unknown_words=(), constraints=constraints)


def _with_nouns_in(constraint: Constraint) -> Constraint:
    if isinstance(constraint, Among):
        return replace(constraint, pool=_with_nouns_as_categories(constraint.pool))
    if isinstance(constraint, Relation):
        return replace(constraint, targets=tuple(map(_with_nouns_as_categories, constraint.targets)))
    if isinstance(constraint, Group):
        place, members = (tuple(map(_with_nouns_in, part)) for part in (constraint.place, constraint.members))
        return replace(constraint, place=place, members=members)
    return constraint


def load_grounding_dino(
    weights: Path | str, *, device: str = "cpu", box_threshold: float = 0.3, overlap_threshold: float = 0.7
) -> GroundingDinoGrounder:
    """The grounder of a transformers model.

    Args:
        weights: a folder as ``save_pretrained`` writes it (config, safetensors, processor and tokenizer), or a
            repository id on the Hugging Face hub, which needs the network once.
        device: where the model runs.
        box_threshold: lowest score of a box, in [0, 1].
        overlap_threshold: IoU above which the weaker of two boxes of one name is dropped.

    Raises:
        WeightsError: the folder is missing, incomplete, damaged, or holds another kind of model.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForZeroShotObjectDetection, AutoProcessor

    folder = Path(weights)
    if not folder.is_dir() and (isinstance(weights, Path) or not _HUB_ID.fullmatch(weights)):
        raise WeightsError(
            f"{weights} is no folder with a Grounding DINO of transformers; give one that holds config.json, "
            "model.safetensors and the tokenizer (`pslg weights download grounding_dino_tiny`)"
        )
    source, here = (str(folder), True) if folder.is_dir() else (str(weights), False)
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=here)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{source} has no usable config.json: {error}") from error
    if config.model_type not in _MODEL_TYPES:
        raise WeightsError(
            f"{source} holds a {config.model_type!r} model; a Grounding DINO is of type 'grounding-dino'"
        )
    try:
        processor = AutoProcessor.from_pretrained(source, local_files_only=here)
        model, report = AutoModelForZeroShotObjectDetection.from_pretrained(
            source, local_files_only=here, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"{source} is incomplete or damaged: {error}") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise WeightsError(f"{source} lacks {len(missing)} tensors of the model, for example {missing[0]}")
    return GroundingDinoGrounder(
        model, processor, box_threshold=box_threshold, overlap_threshold=overlap_threshold, device=device
    )

"""Florence-2's referring task as a grounder: the whole sentence goes in, polygons come out.

It has neither scores nor an answer for "there is none" other than no polygon. Model, processor and the reading of the
answer are those of transformers; Xiao et al., arXiv 2311.06242.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import torch

from backend.pipeline.devices import placed
from backend.pipeline.grounding.open_vocabulary import Found, choose_among, of_sentence, with_nouns_as_categories
from backend.pipeline.types import GroundedMask, Grounding, GroundingResult, Image
from backend.pipeline.weights.transformers_folders import load_model, load_processor, require_type
from dataset_tools.categories import canonical
from dataset_tools.errors import ConfigError
from dataset_tools.expressions.parser import parse
from dataset_tools.geometry import Box
from dataset_tools.masks import from_coco

__all__ = ["Florence2Grounder", "load_florence2"]

_TASK = "<REFERRING_EXPRESSION_SEGMENTATION>"


class Florence2Grounder:
    """Implements ``Grounder`` for any sentence; one sentence at a time, whatever the threads.

    Args:
        model: ``Florence2ForConditionalGeneration``, on its device.
        processor: its processor.
        score: of every answer.
        max_tokens: longest answer; a polygon's corner takes two.
        beams: answers followed at the same time, of which the likeliest is taken.
    """

    known_categories: frozenset[str] | None = None
    outlines = True

    def __init__(self, model: Any, processor: Any, *, score: float, max_tokens: int, beams: int) -> None:
        self._model = model
        self._processor = processor
        self._device = next(model.parameters()).device
        self._score = score
        self._max_tokens = max_tokens
        self._beams = beams
        self._lock = threading.Lock()

    def ground(
        self,
        image: Image,
        expression: str,
        *,
        key: str | None = None,  # noqa: ARG002 - the protocol's signature
        labels: Collection[str] = (),
    ) -> GroundingResult:
        """What ``expression`` describes in ``image`` uint8[H, W, 3] RGB, or why there is nothing; ``labels`` as of
        ``Grounder.ground``.
        """
        query = with_nouns_as_categories(parse(expression, labels))
        if query.is_empty:
            return choose_among(image, query, Found(()))
        category = canonical(query.category or "")
        found = []
        for polygons in self._polygons(image, expression):
            box = _around(polygons).clip(image.shape[1], image.shape[0])
            if box.area > 0:
                outline = partial(_outlined, polygons, (image.shape[0], image.shape[1]))
                found.append(Grounding(box, self._score, category, outline))
        return of_sentence(image, expression, query, tuple(found))

    @torch.inference_mode()
    def _polygons(self, image: Image, expression: str) -> list[list[list[float]]]:
        """Per object its polygons x, y, x, y, ... in pixels of ``image``; those of less than three corners are none."""
        # Words in <> would be another task.
        words = " ".join(expression.replace("<", " ").replace(">", " ").split())[:500]
        inputs = self._processor(text=_TASK + words, images=image, return_tensors="pt").to(self._device)
        with self._lock:
            said = self._model.generate(
                **inputs, max_new_tokens=self._max_tokens, num_beams=self._beams, do_sample=False
            )
        text = self._processor.batch_decode(said, skip_special_tokens=False)[0]
        size = (image.shape[1], image.shape[0])
        read = self._processor.post_process_generation(text, task=_TASK, image_size=size)[_TASK]
        kept = [[list(map(float, one)) for one in polygons if len(one) >= 6] for polygons in read["polygons"]]
        return [polygons for polygons in kept if polygons]


def _around(polygons: list[list[float]]) -> Box:
    x, y = ([value for one in polygons for value in one[start::2]] for start in (0, 1))
    return Box(min(x), min(y), max(x), max(y))


def _outlined(polygons: list[list[float]], image_size: tuple[int, int]) -> GroundedMask:
    """The polygons' mask; nothing says how sure the model is of it."""
    return GroundedMask(from_coco(polygons, *image_size), predicted_iou=1.0, stability=1.0)


def load_florence2(
    weights: Path, *, device: str = "cpu", score: float = 0.5, max_tokens: int = 1024, beams: int = 3
) -> Florence2Grounder:
    """The grounder of a folder as ``save_pretrained`` writes it; no network is used.

    Args:
        weights: the folder.
        device: where the model runs.
        score, max_tokens, beams: see ``Florence2Grounder``.

    Raises:
        ConfigError: a value that cannot be.
        WeightsError: not such a folder, or tensors are missing or left over.
    """
    from transformers import AutoProcessor, Florence2ForConditionalGeneration

    for name, given, low, high in (
        ("score", score, 0, 1),
        ("max_tokens", max_tokens, 16, 4096),
        ("beams", beams, 1, 16),
    ):
        if not low <= given <= high:
            raise ConfigError(f"grounder.options.{name} is {given}; it must be in {low} to {high}")
    require_type(
        weights, ("florence2",), "a Florence-2 of transformers", "huggingface.co/florence-community/Florence-2-base"
    )
    model = load_model(Florence2ForConditionalGeneration, weights)
    processor = load_processor(AutoProcessor, weights)
    return Florence2Grounder(
        placed(model, device, "Florence-2").eval().requires_grad_(False),
        processor,
        score=score,
        max_tokens=max_tokens,
        beams=beams,
    )

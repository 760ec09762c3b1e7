"""SAM 3 as a grounder: it finds every instance of a noun phrase, with box and mask; relations pick among them.

SAM 3 passes over spatial words ("left of", "the largest"), which is what the relation program adds. A detection's
score is how likely the instance is, times how likely its kind is in the image at all (the presence), as in the
library's own post-processing. Large scenes are read as a whole and in overlapping tiles of the size that the network
reads. Carion et al., arXiv 2511.16719; model and processor are those of transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import batched_nms

from backend.bounded_cache import BoundedCache
from backend.pipeline.devices import placed
from backend.pipeline.grounding.compact.detections import Detection, is_cut, without_repeats
from backend.pipeline.grounding.open_vocabulary import Found, Phrase, TransformersDetector
from backend.pipeline.sam3_vision import DETECTORS, FEATURE_MEMORY, load_sam3_part, share_backbone
from backend.pipeline.types import GroundedMask, Grounding, Image
from backend.pipeline.weights.kinds import checkpoint_kind
from dataset_tools.errors import PromptError
from dataset_tools.expressions.relations import LabelledBox
from dataset_tools.geometry import Box
from dataset_tools.maps.tiles import windows

__all__ = ["Sam3Grounder", "load_sam3"]

_TEXT_MEMORY = 8_000_000
_STABILITY_LOGIT = 1.0


@dataclass(frozen=True, eq=False)
class _Instance:
    """One detection: ``logits`` float16[h, w] of its mask within ``window`` of the image, both in pixels."""

    box: Box
    name: str
    score: float
    logits: Tensor
    window: Box


class Sam3Grounder(TransformersDetector):
    """Grounds any noun, and what is like given boxes (``ExemplarFinder``); safe to call from several threads.

    Args:
        model: ``Sam3Model`` or ``Sam3LiteTextModel``, on its device, in evaluation mode.
        processor: ``Sam3Processor``.
        threshold: lowest score of an instance, in [0, 1].
        presence_threshold: presence below which a noun counts as absent, whatever instances there seem to be.
        overlap_threshold: IoU above which the weaker of two boxes of one name is dropped, where there are no tiles.
        largest_whole: longest side in pixels of images that are not read in tiles as well.
        tile_overlap: of neighbouring tiles, in pixels; objects up to this long are whole in one.
    """

    outlines = True

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        threshold: float = 0.3,
        presence_threshold: float = 0.5,
        overlap_threshold: float = 0.7,
        largest_whole: int = 1512,
        tile_overlap: int = 192,
    ) -> None:
        super().__init__(model, processor)
        self._threshold = threshold
        self._presence_threshold = presence_threshold
        self._overlap_threshold = overlap_threshold
        self._largest_whole = largest_whole
        self._tile_overlap = tile_overlap
        self._tile = int(processor.image_processor.size["height"])
        self._texts: BoundedCache[str, tuple[Any, Tensor]] = BoundedCache(_TEXT_MEMORY)

    @torch.inference_mode()
    def find(
        self,
        image: Image,
        phrases: Sequence[Phrase],
        *,
        key: str | None = None,  # noqa: ARG002 - the protocol's signature
    ) -> Found:
        """Every instance of each phrase, with its mask, and the names that are not in the image."""
        presence = dict.fromkeys((phrase.name for phrase in phrases), 0.0)
        found: list[_Instance] = []
        height, width = image.shape[:2]
        tiled = max(width, height) > self._largest_whole
        for whole, window in self._windows(width, height):
            embeds = self._seen(image, window)
            for phrase in phrases:
                text, mask = self._text(phrase.words)
                output = self._model(vision_embeds=embeds, text_embeds=text, attention_mask=mask)
                presence[phrase.name] = max(presence[phrase.name], float(output.presence_logits.float().sigmoid()))
                for one in self._instances(output, phrase.name, window, (width, height)):
                    cut = not whole and is_cut(one.box, window, width, height)
                    # In a scene read in tiles too, small things are the tiles' business.
                    small = whole and tiled and max(one.box.width, one.box.height) <= self._tile_overlap / 2
                    if not cut and not small:
                        found.append(one)
        absent = {name: value for name, value in presence.items() if value < self._presence_threshold}
        kept = self._distinct([one for one in found if one.name not in absent], tiled=tiled)
        boxes = [LabelledBox(one.box, one.name, one.score, area=_area(one)) for one in kept]
        return Found(boxes, [partial(_grounded_mask, one, (height, width)) for one in kept], absent)

    @torch.inference_mode()
    def find_like(
        self,
        image: Image,
        positive: Sequence[Box],
        negative: Sequence[Box] = (),
        *,
        noun: str = "",
        key: str | None = None,  # noqa: ARG002 - the protocol's signature
    ) -> tuple[Grounding, ...]:
        """What looks like the boxes ``positive`` and unlike ``negative``, best first; see ``ExemplarFinder``.

        The image is read as a whole: cut a large scene around the examples before.
        """
        if not positive:
            raise PromptError("an example is needed: at least one box of an object to find more of")
        height, width = image.shape[:2]
        given = [box.clip(width, height) for box in (*positive, *negative)]
        if empty := [tuple(box) for box in given if box.area <= 0]:
            raise PromptError(f"the box {empty[0]} is empty or beside the image of {width} x {height} px")
        whole = Box(0, 0, width, height)
        embeds = self._seen(image, whole)
        text, mask = self._text(noun or "visual")  # the processor's own word where there are boxes only
        sides = torch.tensor([width, height, width, height], dtype=torch.float32)
        corners = torch.tensor([list(box) for box in given], dtype=torch.float32) / sides
        centred = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1)
        labels = torch.tensor([1] * len(positive) + [0] * len(negative))
        output = self._model(
            vision_embeds=embeds,
            text_embeds=text,
            attention_mask=mask,
            input_boxes=centred[None].to(self._device),
            input_boxes_labels=labels[None].to(self._device),
        )
        kept = self._distinct(list(self._instances(output, noun, whole, (width, height))), tiled=False)
        return tuple(Grounding(one.box, one.score, None, partial(_grounded_mask, one, (height, width))) for one in kept)

    def _windows(self, width: int, height: int) -> Iterator[tuple[bool, Box]]:
        """The whole image (True), then its tiles if it is large."""
        yield True, Box(0, 0, width, height)
        if max(width, height) > self._largest_whole:
            for x, y, w, h in windows(width, height, self._tile, self._tile_overlap):
                yield False, Box(x, y, x + w, y + h)

    def _seen(self, image: Image, window: Box) -> Any:
        """The vision features of a window; the backbone computes them once."""
        x0, y0, x1, y1 = (int(value) for value in window)
        part = np.ascontiguousarray(image[y0:y1, x0:x1])
        inputs = self._processor(images=part, return_tensors="pt", input_data_format="channels_last")
        return self._model.get_vision_features(inputs["pixel_values"].to(self._device))

    def _text(self, words: str) -> tuple[Any, Tensor]:
        """A noun phrase's features and attention mask, kept; more than 32 tokens are cut off, as the model reads no
        more."""
        kept = self._texts.get(words)
        if kept is None:
            tokens = self._processor.tokenizer(
                words, return_tensors="pt", padding="max_length", max_length=32, truncation=True
            ).to(self._device)
            mask = tokens["attention_mask"]
            kept = (self._model.get_text_features(input_ids=tokens["input_ids"], attention_mask=mask), mask)
            self._texts.put(words, kept, kept[0].pooler_output.nbytes + kept[0].last_hidden_state.nbytes)
        return kept

    def _instances(self, output: Any, name: str, window: Box, size: tuple[int, int]) -> Iterator[_Instance]:
        scores = output.pred_logits[0].float().sigmoid() * output.presence_logits[0].float().sigmoid()
        boxes = output.pred_boxes[0].float().cpu()
        masks = output.pred_masks[0]
        for row in (scores > self._threshold).nonzero()[:, 0].tolist():
            x0, y0, x1, y1 = boxes[row].tolist()
            box = Box(x0 * window.width, y0 * window.height, x1 * window.width, y1 * window.height)
            box = box.shifted(window.x0, window.y0).clip(*size)
            if box.width >= 1 and box.height >= 1:
                yield _Instance(box, name, float(scores[row]), masks[row].to(torch.float16).cpu(), window)

    def _distinct(self, found: list[_Instance], *, tiled: bool) -> list[_Instance]:
        """Each object once, best first."""
        if not found:
            return []
        if tiled:
            detections = [Detection(one.box, one.name, one.score) for one in found]
            instances = {id(detection): one for detection, one in zip(detections, found, strict=True)}
            return [instances[id(detection)] for detection in without_repeats(detections)]
        names = sorted({one.name for one in found})
        boxes = torch.tensor([list(one.box) for one in found])
        scores = torch.tensor([one.score for one in found])
        kinds = torch.tensor([names.index(one.name) for one in found])
        return [found[i] for i in batched_nms(boxes, scores, kinds, self._overlap_threshold).tolist()]


def _area(one: _Instance) -> float:
    """Square pixels of its mask."""
    return float((one.logits > 0).float().mean()) * one.window.area


def _grounded_mask(one: _Instance, image_size: tuple[int, int]) -> GroundedMask:
    """The mask at the image's size, as the library's post-processing makes it; sure of it is what is far from 0.5."""
    x0, y0, x1, y1 = (int(value) for value in one.window)
    likely = functional.interpolate(
        one.logits.float().sigmoid()[None, None], size=(y1 - y0, x1 - x0), mode="bilinear", align_corners=False
    )[0, 0].numpy()
    mask = np.zeros(image_size, np.bool_)
    mask[y0:y1, x0:x1] = likely > 0.5
    raised, lowered = (1 / (1 + np.exp(-offset)) for offset in (_STABILITY_LOGIT, -_STABILITY_LOGIT))
    wide = int((likely > lowered).sum())
    return GroundedMask(
        mask,
        predicted_iou=float(likely[likely > 0.5].mean()) if mask.any() else 0.0,
        stability=int((likely > raised).sum()) / wide if wide else 0.0,
    )


def load_sam3(
    weights: Path,
    *,
    device: str = "cpu",
    threshold: float = 0.3,
    presence_threshold: float = 0.5,
    overlap_threshold: float = 0.7,
    largest_whole: int = 1512,
    tile_overlap: int = 192,
    autocast: bool = False,
    feature_memory: int = FEATURE_MEMORY,
    shared: dict[Any, Any] | None = None,
) -> Sam3Grounder:
    """The grounder of a SAM 3 checkpoint: a folder as ``save_pretrained`` or the hub has it; no network is used.

    Args:
        weights: a folder of type ``sam3_video`` (as published), ``sam3`` or ``sam3_lite_text``.
        device: where the model runs.
        threshold, presence_threshold, overlap_threshold, largest_whole, tile_overlap: see ``Sam3Grounder``.
        autocast: run the image backbone in bfloat16.
        feature_memory: bytes of vision features kept.
        shared: what the parts of one pipeline have in common: the tracker of the same folder uses the same backbone.

    Raises:
        WeightsError: not such a folder, or tensors are missing or left over.
    """
    import transformers

    lite = checkpoint_kind(weights) == "transformers sam3_lite_text"
    make = transformers.Sam3LiteTextModel if lite else transformers.Sam3Model
    model, processor = load_sam3_part(
        make, transformers.Sam3Processor, weights, DETECTORS, "a SAM 3 of transformers with a detector"
    )
    common = {} if shared is None else shared
    share_backbone(model, common, weights, device=device, feature_memory=feature_memory, half=autocast)
    return Sam3Grounder(
        placed(model, device, "SAM 3's detector").eval().requires_grad_(False),
        processor,
        threshold=threshold,
        presence_threshold=presence_threshold,
        overlap_threshold=overlap_threshold,
        largest_whole=largest_whole,
        tile_overlap=tile_overlap,
    )

"""Grounding DINO as a grounder: an open-vocabulary detector finds what the words name, relations pick among it.

Model and processor come from transformers (``from_pretrained``); Liu et al., arXiv 2303.05499. MM-Grounding-DINO and
LLMDet are the same network.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from backend.pipeline.devices import placed
from backend.pipeline.grounding.open_vocabulary import Found, Phrase, TransformersDetector, labelled_boxes
from backend.pipeline.types import Image
from backend.pipeline.weights.transformers_folders import load_model, load_processor
from dataset_tools.errors import WeightsError
from dataset_tools.expressions.relations import LabelledBox

__all__ = ["GroundingDinoGrounder", "load_grounding_dino"]

_MODEL_TYPES = ("grounding-dino", "mm-grounding-dino")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


class GroundingDinoGrounder(TransformersDetector):
    """Grounds any noun; safe to call from several threads.

    Args:
        model: a GroundingDinoForObjectDetection of transformers, on its device and in evaluation mode.
        processor: its processor, with a fast tokenizer.
        box_threshold: lowest score of a box, in [0, 1].
        overlap_threshold: IoU above which the weaker of two boxes of one name is dropped.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        box_threshold: float = 0.3,
        overlap_threshold: float = 0.7,
    ) -> None:
        super().__init__(model, processor)
        self._box_threshold = box_threshold
        self._overlap_threshold = overlap_threshold

    def find(
        self,
        image: Image,
        phrases: Sequence[Phrase],
        *,
        key: str | None = None,  # noqa: ARG002 - the protocol's signature
    ) -> Found:
        """Everything that one of the phrases names."""
        return Found(self.detect(image, phrases))

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
        by_name = {name: torch.stack([p for n, p in spoken if n == name]).amax(dim=0) for name, _ in spoken}
        middle, extent = output.pred_boxes[0].float().split(2, dim=1)
        boxes = torch.cat([middle - extent / 2, middle + extent / 2], dim=1)
        size = (image.shape[0], image.shape[1])
        return labelled_boxes(boxes, by_name, size, self._box_threshold, self._overlap_threshold)[0]

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
    from transformers import AutoConfig, AutoModelForZeroShotObjectDetection, AutoProcessor

    folder = Path(weights)
    if not folder.is_dir() and (isinstance(weights, Path) or not _HUB_ID.fullmatch(weights)):
        raise WeightsError(
            f"{weights} is no folder with a Grounding DINO of transformers; give one that holds config.json, "
            "model.safetensors and the tokenizer (`pslg weights download grounding_dino_tiny`)"
        )
    source = folder if folder.is_dir() else weights
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=isinstance(source, Path))  # nosec B615 # no code
    except (OSError, ValueError) as error:
        raise WeightsError(f"{source} has no usable config.json: {error}") from error
    if config.model_type not in _MODEL_TYPES:
        raise WeightsError(
            f"{source} holds a {config.model_type!r} model; a Grounding DINO is of type 'grounding-dino'"
        )
    model = load_model(AutoModelForZeroShotObjectDetection, source)
    processor = load_processor(AutoProcessor, source)
    return GroundingDinoGrounder(
        placed(model, device, "Grounding DINO").eval().requires_grad_(False),
        processor,
        box_threshold=box_threshold,
        overlap_threshold=overlap_threshold,
    )

"""Detectors that take a list of nouns and give boxes, as grounders: OWLv2 (and OWL-ViT), OmDet-Turbo.

Models, processors and post-processing are those of transformers; relations pick among the boxes. Minderer et al., arXiv
2306.09683; Zhao et al., arXiv 2403.06892.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from backend.pipeline.devices import placed
from backend.pipeline.grounding.open_vocabulary import Found, Phrase, TransformersDetector, labelled_boxes
from backend.pipeline.types import Image
from backend.pipeline.weights.transformers_folders import load_model, load_processor, require_type

__all__ = ["ClassListGrounder", "load_omdet_turbo", "load_owlv2"]


class ClassListGrounder(TransformersDetector):
    """Grounds any noun; safe to call from several threads.

    Args:
        model: ``Owlv2ForObjectDetection``, ``OwlViTForObjectDetection`` or ``OmDetTurboForObjectDetection``, on its
            device.
        processor: its processor.
        box_threshold: lowest score of a box, in [0, 1].
        overlap_threshold: IoU above which the weaker of two boxes of one name is dropped.
        reading: what the processor is told about words and image beside them.
        finding: the same for its post-processing.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        box_threshold: float,
        overlap_threshold: float,
        reading: dict[str, Any],
        finding: dict[str, Any],
    ) -> None:
        super().__init__(model, processor)
        self._box_threshold = box_threshold
        self._overlap_threshold = overlap_threshold
        self._reading = reading
        self._finding = finding
        self._lock = threading.Lock()  # OmDet-Turbo keeps the words it knows in a cache without one

    @torch.inference_mode()
    def find(
        self,
        image: Image,
        phrases: Sequence[Phrase],
        *,
        key: str | None = None,  # noqa: ARG002 - the protocol's signature
    ) -> Found:
        """Every box that is like one of the phrases; each goes to its likeliest one."""
        words = [phrase.words for phrase in phrases]
        inputs = self._processor(
            text=[words], images=image, return_tensors="pt", input_data_format="channels_last", **self._reading
        ).to(self._device)
        size = (image.shape[0], image.shape[1])
        with self._lock:
            output = self._model(**inputs)
        (found,) = self._processor.post_process_grounded_object_detection(
            output, threshold=0.0, target_sizes=[size], **self._finding
        )
        names = list(dict.fromkeys(phrase.name for phrase in phrases))
        of_name = torch.tensor([names.index(phrase.name) for phrase in phrases])[found["labels"].cpu()]
        scores, boxes = found["scores"].float().cpu(), found["boxes"].float().cpu()
        shares = boxes / torch.tensor([size[1], size[0], size[1], size[0]])
        by_name = {name: torch.where(of_name == number, scores, -1.0) for number, name in enumerate(names)}
        return Found(labelled_boxes(shares, by_name, size, self._box_threshold, self._overlap_threshold)[0])


def load_owlv2(
    weights: Path, *, device: str = "cpu", box_threshold: float = 0.2, overlap_threshold: float = 0.5
) -> ClassListGrounder:
    """OWLv2 or OWL-ViT in a folder as ``save_pretrained`` writes it; no network is used.

    Raises:
        WeightsError: not such a folder, or tensors are missing or left over.
    """
    require_type(weights, ("owlv2", "owlvit"), "an OWLv2 of transformers")
    return _load(
        weights, device, box_threshold, overlap_threshold, reading={"truncation": True}, finding={}, what="OWLv2"
    )


def load_omdet_turbo(
    weights: Path, *, device: str = "cpu", box_threshold: float = 0.3, overlap_threshold: float = 0.5
) -> ClassListGrounder:
    """OmDet-Turbo in a folder as ``save_pretrained`` writes it; no network is used.

    Raises:
        WeightsError: not such a folder, or tensors are missing or left over.
        ConfigError: its backbone needs timm, which is not installed.
    """
    require_type(weights, ("omdet-turbo",), "an OmDet-Turbo of transformers")
    return _load(
        weights,
        device,
        box_threshold,
        overlap_threshold,
        reading={},
        finding={"nms_threshold": 1.0},
        what="OmDet-Turbo",
    )


def _load(
    weights: Path,
    device: str,
    box_threshold: float,
    overlap_threshold: float,
    *,
    reading: dict[str, Any],
    finding: dict[str, Any],
    what: str,
) -> ClassListGrounder:
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    model = load_model(AutoModelForZeroShotObjectDetection, weights)
    return ClassListGrounder(
        placed(model, device, what).eval().requires_grad_(False),
        load_processor(AutoProcessor, weights),
        box_threshold=box_threshold,
        overlap_threshold=overlap_threshold,
        reading=reading,
        finding=finding,
    )

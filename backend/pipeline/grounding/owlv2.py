"""OWLv2 as a grounder: it takes a list of nouns and gives boxes; relations pick among them.

Model, processor and post-processing are those of transformers; Minderer et al., arXiv 2306.09683. Other detectors of a
class list (OWL-ViT) have the same interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from backend.pipeline.grounding.open_vocabulary import Found, OpenVocabularyGrounder, Phrase, labelled_boxes
from backend.pipeline.memory_fallback import placed
from backend.pipeline.types import Image
from dataset_tools.errors import WeightsError

__all__ = ["Owlv2Grounder", "load_owlv2"]

_MODEL_TYPES = ("owlv2", "owlvit")


class Owlv2Grounder(OpenVocabularyGrounder):
    """Grounds any noun; safe to call from several threads.

    Args:
        model: ``Owlv2ForObjectDetection`` or ``OwlViTForObjectDetection``, on its device.
        processor: its processor.
        box_threshold: lowest score of a box, in [0, 1].
        overlap_threshold: IoU above which the weaker of two boxes of one name is dropped.
    """

    def __init__(
        self, model: Any, processor: Any, *, box_threshold: float = 0.2, overlap_threshold: float = 0.5
    ) -> None:
        self._model = model
        self._processor = processor
        self._device = next(model.parameters()).device
        self._box_threshold = box_threshold
        self._overlap_threshold = overlap_threshold

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
            text=[words], images=image, return_tensors="pt", input_data_format="channels_last", truncation=True
        ).to(self._device)
        size = (image.shape[0], image.shape[1])
        output = self._model(**inputs)
        (found,) = self._processor.post_process_grounded_object_detection(output, threshold=0.0, target_sizes=[size])
        names = list(dict.fromkeys(phrase.name for phrase in phrases))
        of_name = torch.tensor([names.index(phrase.name) for phrase in phrases])[found["labels"].cpu()]
        scores, boxes = found["scores"].float().cpu(), found["boxes"].float().cpu()
        shares = boxes / torch.tensor([size[1], size[0], size[1], size[0]])
        by_name = {name: torch.where(of_name == number, scores, -1.0) for number, name in enumerate(names)}
        return Found(labelled_boxes(shares, by_name, size, self._box_threshold, self._overlap_threshold)[0])


def load_owlv2(
    weights: Path, *, device: str = "cpu", box_threshold: float = 0.2, overlap_threshold: float = 0.5
) -> Owlv2Grounder:
    """The grounder of a folder as ``save_pretrained`` writes it; no network is used.

    Raises:
        WeightsError: not such a folder, or tensors are missing.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    from backend.pipeline.weights.kinds import checkpoint_kind

    kind = checkpoint_kind(weights).removeprefix("transformers ")
    if kind not in _MODEL_TYPES:
        raise WeightsError(f"{weights} holds {kind!r}, not an OWLv2 of transformers ({', '.join(_MODEL_TYPES)})")
    try:
        processor = AutoProcessor.from_pretrained(weights, local_files_only=True)  # nosec B615 # a local folder
        model, report = AutoModelForZeroShotObjectDetection.from_pretrained(  # nosec B615 # a local folder
            weights, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"{weights} is incomplete or damaged: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise WeightsError(f"{weights} lacks {len(missing)} tensors of the model, for example {missing[0]}")
    return Owlv2Grounder(
        placed(model, device, "OWLv2").eval().requires_grad_(False),
        processor,
        box_threshold=box_threshold,
        overlap_threshold=overlap_threshold,
    )

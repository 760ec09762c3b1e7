"""SAM 3's tracker as a ``Segmenter``: clicks, boxes and mask prompts on single images, SAM 2 style.

It lies in the same checkpoint as the detector and, in one pipeline, uses the same image backbone and what that has
already seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backend.pipeline.sam3_vision import FEATURE_MEMORY, load_sam3_part, share_backbone
from backend.pipeline.segmentation.hf_sam import HfSamSegmenter
from backend.pipeline.segmentation.sam import EmbeddingDtype
from backend.pipeline.weights.records import record, recorded_sha256

__all__ = ["load_sam3_tracker"]

_TYPES = ("sam3_video", "sam3_tracker", "sam3_tracker_video")


def load_sam3_tracker(
    weights: Path,
    *,
    embedding_dtype: EmbeddingDtype = "float16",
    device: str = "cpu",
    autocast: bool = False,
    feature_memory: int = FEATURE_MEMORY,
    shared: dict[Any, Any] | None = None,
) -> HfSamSegmenter:
    """The tracker in a SAM 3 checkpoint; no network is used.

    Args:
        weights: a folder of type ``sam3_video`` (as published) or ``sam3_tracker``.
        embedding_dtype: type of stored features.
        device: where the model runs.
        autocast, feature_memory, shared: as of the detector (``backend.pipeline.grounding.sam3.load_sam3``).

    Raises:
        WeightsError: not such a folder, or tensors are missing or left over.
    """
    import transformers

    model, processor = load_sam3_part(
        transformers.Sam3TrackerModel, transformers.Sam3TrackerProcessor, weights, _TYPES, "a SAM 3 with a tracker"
    )
    common = {} if shared is None else shared
    share_backbone(model, common, weights, device=device, feature_memory=feature_memory, half=autocast)
    digest = recorded_sha256(weights) or record(weights)
    return HfSamSegmenter(
        model,
        processor,
        embedding_dtype=embedding_dtype,
        device=device,
        weights_hash=f"{'bf16' if autocast else ''}{digest}",
    )

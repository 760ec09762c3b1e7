"""SAM 3's image backbone: one for its detector and its tracker, with what it saw kept for the next question.

The backbone is half of the model's values and nearly all of its work. What it makes of an image (10 MB in half
precision, 21 MB in float32) is a fifth of the feature pyramids that the two necks make of it, so it is what is kept.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backend.bounded_cache import BoundedCache
from backend.pipeline.weights.transformers_folders import load_model, load_processor, require_type

__all__ = ["DETECTORS", "FEATURE_MEMORY", "Sam3Backbone", "load_sam3_part", "share_backbone"]

DETECTORS = ("sam3", "sam3_lite_text", "sam3_video")
"""Types of folders that hold SAM 3's detector; ``sam3_video`` is the published one, detector and tracker together."""
FEATURE_MEMORY = 512_000_000
"""Bytes of features kept by default: 24 images in float32, 48 in half precision."""


class Sam3Backbone(nn.Module):
    """``Sam3ViTModel`` that knows what it has seen; safe for threads.

    Args:
        backbone: the network; only read.
        feature_memory: bytes of features kept, those of the images that were asked about last.
        half: the network runs in bfloat16; its answers are given in float32 either way.
    """

    def __init__(self, backbone: nn.Module, *, feature_memory: int, half: bool) -> None:
        super().__init__()
        self.network = backbone.to(torch.bfloat16) if half else backbone
        self.computed = 0
        self._half = half
        self._kept: BoundedCache[str, Tensor] = BoundedCache(feature_memory)

    @property
    def kept_bytes(self) -> int:
        """Bytes of features kept now."""
        return self._kept.size

    def forward(self, pixel_values: Tensor, **others: Any) -> Any:
        """The backbone's output for float32[1, 3, S, S]; computed once for the same pixels."""
        from transformers.modeling_outputs import BaseModelOutput

        key = hashlib.blake2b(pixel_values.contiguous().cpu().numpy().data, digest_size=16).hexdigest()
        features = self._kept.get(key)
        if features is None:
            pixels = pixel_values.to(torch.bfloat16) if self._half else pixel_values
            features = self.network(pixels, **others).last_hidden_state
            self.computed += 1
            self._kept.put(key, features, features.numel() * features.element_size())
        return BaseModelOutput(last_hidden_state=features.float())

    def __deepcopy__(self, memo: dict[int, Any]) -> Sam3Backbone:
        """A copy with nothing kept: locks and features stay behind."""
        twin = Sam3Backbone(copy.deepcopy(self.network, memo), feature_memory=self._kept.capacity, half=self._half)
        return twin.eval().requires_grad_(False)


def share_backbone(
    model: Any, shared: dict[Any, Any], weights: Path, *, device: str, feature_memory: int, half: bool
) -> None:
    """Give ``model`` the backbone that another part of the same checkpoint brought, or keep its own for that part.

    Args:
        model: ``Sam3Model``, ``Sam3LiteTextModel`` or ``Sam3TrackerModel``; changed.
        shared: what the parts of one pipeline have in common.
        weights: the checkpoint's folder.
        device: where the part runs.
        feature_memory, half: as of ``Sam3Backbone``.
    """
    key = ("sam3-backbone", weights.resolve(), device, half)
    if key not in shared:
        shared[key] = Sam3Backbone(model.vision_encoder.backbone, feature_memory=feature_memory, half=half)
    model.vision_encoder.backbone = shared[key]


def load_sam3_part(kind: Any, processor: Any, weights: Path, types: Collection[str], what: str) -> tuple[Any, Any]:
    """A part of a SAM 3 checkpoint: the model of a class of transformers, whole or not at all, and its processor.

    Raises:
        WeightsError: the folder is of another type than ``types``, unreadable, or tensors are missing or left over.
    """
    require_type(weights, types, what, "huggingface.co/facebook/sam3")
    return load_model(kind, weights), load_processor(processor, weights)

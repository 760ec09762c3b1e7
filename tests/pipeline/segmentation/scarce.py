"""A segmenter whose device has no memory left for the encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backend.pipeline.segmentation import Segmenter
from backend.pipeline.segmentation.sam import SamSegmenter

MESSAGE = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB.\nSee documentation"


class _OutOfMemory(nn.Module):
    """Raises what torch raises on a full GPU; a copy of it, which lies on the CPU, works."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.img_size = encoder.img_size
        self.original = id(self)

    def forward(self, pixels: Tensor) -> Tensor:
        if id(self) == self.original:
            raise torch.cuda.OutOfMemoryError(MESSAGE)
        features: Tensor = self.encoder(pixels)
        return features


def make_scarce(segmenter: Segmenter) -> None:
    """From now on the encoder of ``segmenter`` raises where it is."""
    assert isinstance(segmenter, SamSegmenter)
    segmenter.sam.image_encoder = _OutOfMemory(segmenter.sam.image_encoder)

"""Fine segmentation (arXiv 2506.10503, stage 2): ``embed`` once per window, which is costly, ``decode`` per prompt."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from backend.pipeline.types import Box, Embedding, Image, Mask, MaskPrediction, Prompts

__all__ = ["Outliner", "Segmenter"]


class Segmenter(Protocol):
    """A promptable segmentation model, split as in segment-anything."""

    @property
    def encoder_hash(self) -> str:
        """Identifies encoder weights, input size and storage dtype; part of every embedding's key."""

    def window_for(self, box: Box, image_size: tuple[int, int], /) -> Box:
        """The part of an image of (height, width) pixels to embed for an object in ``box``.

        A function of its arguments only, so that any worker asks for the same window. Models that embed whole images
        return (0, 0, width, height).
        """

    def embed(self, image: Image, window: Box | None = None, *, key: str | None = None) -> Embedding:
        """Features of ``image`` uint8[H, W, 3] RGB, or of one ``window`` of it (None: the whole image).

        ``key`` names the image's content (its file's sha256, say) and becomes a part of the embedding's own key;
        without one, the pixels are hashed.
        """

    def decode(self, embedding: Embedding, prompts: Prompts) -> MaskPrediction:
        """The mask for ``prompts``; raises PromptError without any prompt or for one outside the image."""

    def mask_prompt(self, embedding: Embedding, mask: Mask) -> npt.NDArray[np.float32]:
        """``mask`` bool[H, W] of the original image as mask logits float32[h, w] for ``Prompts.mask_logits``."""


@runtime_checkable
class Outliner(Protocol):
    """A segmenter that outlines a pre-label with more care than a click may cost."""

    def outline(self, image: Image, embedding: Embedding, prompts: Prompts) -> MaskPrediction:
        """As ``Segmenter.decode``, with the ``image`` uint8[H, W, 3] RGB at hand, of which the embedding is."""

"""Coarse localization (arXiv 2506.10503, stage 1): an image and an expression -> boxes."""

from __future__ import annotations

from typing import Protocol

from backend.pipeline.types import GroundingResult, Image

__all__ = ["Grounder"]


class Grounder(Protocol):
    """Finds the object that a referring expression describes."""

    @property
    def known_categories(self) -> frozenset[str] | None:
        """Names of what this grounder can find, canonical or a project's own; None for an open vocabulary."""

    def ground(self, image: Image, expression: str, *, key: str | None = None) -> GroundingResult:
        """Boxes for ``expression`` in ``image`` uint8[H, W, 3] RGB, or an abstention that says why there is none.

        ``key`` names the image's content (its file's sha256, say): a grounder that keeps what it found in an image, for
        the next expression about it, need not hash the pixels.
        """

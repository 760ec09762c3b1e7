"""Coarse localization (arXiv 2506.10503, stage 1): an image and an expression -> boxes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol, runtime_checkable

from backend.pipeline.types import Box, Grounding, GroundingResult, Image, NamedImage, Point

__all__ = ["ExemplarFinder", "Grounder", "ObjectFinder"]


class Grounder(Protocol):
    """Finds the object that a referring expression describes."""

    @property
    def known_categories(self) -> frozenset[str] | None:
        """Names of what this grounder can find, canonical or a project's own; None for an open vocabulary."""

    def ground(
        self, image: Image, expression: str, *, key: str | None = None, labels: Collection[str] = ()
    ) -> GroundingResult:
        """Boxes for ``expression`` in ``image`` uint8[H, W, 3] RGB, or an abstention that says why there is none.

        Args:
            image: where to look.
            expression: what to look for.
            key: names the image's content (its file's sha256, say): a grounder that keeps what it found in an image,
                for the next expression about it, need not hash the pixels.
            labels: a project's own categories ("solar panel"): nouns of the expression beside the canonical ones,
                whether or not the grounder can find them.
        """


@runtime_checkable
class ExemplarFinder(Protocol):
    """Finds more of what boxes show; a grounder that can do so has this method as well."""

    def find_like(
        self,
        image: Image,
        positive: Sequence[Box],
        negative: Sequence[Box] = (),
        *,
        noun: str = "",
        key: str | None = None,
    ) -> tuple[Grounding, ...]:
        """The objects of ``image`` uint8[H, W, 3] RGB that are like the boxes ``positive``, best first.

        Args:
            image: where to look.
            positive: boxes of accepted or drawn objects in this image, at least one; they are found again, too.
            negative: boxes of what is not meant.
            noun: what the objects are called, "" if nobody says; words and boxes together find most.
            key: names the image's content, as of ``Grounder.ground``.

        Raises:
            PromptError: no example, or one that is empty or beside the image.
        """


@runtime_checkable
class ObjectFinder(Protocol):
    """Sees all objects of an image at once; a grounder that does so has this method as well."""

    def object_at(self, point: Point, names: Iterable[str], image: NamedImage) -> Box | None:
        """The box of the object under ``point`` that is called so, in pixels of the image; None where none is seen.

        Args:
            point: (x, y) in pixels of the image.
            names: of the label that the annotator picked ("Storage_Tank", "Truck"), or a category; the first one counts
                that the grounder knows.
            image: its pixels are asked for only where it was not looked at before under its name.
        """

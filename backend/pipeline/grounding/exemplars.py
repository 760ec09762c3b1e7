"""Find more like this: a category that no grounder knows, from the first accepted objects of it, without a training.

What an image teaches is computed once (``ExemplarMatcher.learn``) and kept as plain arrays; what is found in another
image depends on these arrays alone. So lessons can be added, replaced and forgotten one by one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from backend.pipeline.grounding import Grounder
from backend.pipeline.types import Box, Grounding, Image
from dataset_tools.categories import CATEGORIES
from dataset_tools.expressions.lexicon import own_nouns
from dataset_tools.labelled import LabelledImage

__all__ = [
    "LIKE",
    "MOST_OBJECTS",
    "ExemplarMatcher",
    "Lesson",
    "Lessons",
    "digest",
    "lesson_of",
    "lessons_of",
    "taught_categories",
]

Lesson: TypeAlias = Mapping[str, npt.NDArray[np.floating]]
"""What one image teaches about one category: arrays by name, whose meaning the matcher that made them knows."""
Lessons: TypeAlias = Mapping[str, Sequence[Lesson]]
"""By category."""
LIKE = ".like-"
"""Between a model version and the digest of the lessons that it answers with beside what it knows."""


MOST_OBJECTS = 40
"""Objects of an image that are learnt from, and as many of what is none."""


class ExemplarMatcher(Protocol):
    """Finds objects that look like given ones. Safe to call from several threads."""

    @property
    def encoder(self) -> str:
        """Names what lessons depend on beside image and objects; those of another encoder must be made anew."""

    def learn(
        self, image: Image, objects: Sequence[Box], others: Sequence[Box], *, complete: bool, key: str | None = None
    ) -> Lesson:
        """What ``image`` uint8[H, W, 3] RGB teaches about a category.

        Args:
            image: the image.
            objects: boxes of accepted objects of the category.
            others: boxes of what is certainly none: objects of other categories, candidates that were rejected.
            complete: whether ``objects`` are all that there are, so that the rest of the image is none.
            key: names the image's content.
        """

    def find(self, image: Image, lessons: Lessons, *, key: str | None = None) -> tuple[Grounding, ...]:
        """Objects in ``image`` uint8[H, W, 3] RGB that look like those of the lessons, best first; the score is the
        probability that it is such an object.
        """

    def extended(self, lessons: Lessons) -> Grounder:
        """The grounder that this matcher belongs to, which also understands and finds what ``lessons`` show; those of
        categories that it knows itself are of no use.
        """


def taught_categories(image: LabelledImage, known: Collection[str], own: Collection[str] = ()) -> list[str]:
    """The categories that a labelled image teaches something about and that are not ``known``, sorted: those of its
    objects, and those of ``own`` of which it certainly holds no more.
    """
    wanted = ({item.category for item in image.objects} | (image.complete & frozenset(own))) - frozenset(known)
    return sorted(name for name in wanted if name in CATEGORIES or own_nouns([name]))


def lesson_of(
    matcher: ExemplarMatcher, image: LabelledImage, pixels: Image, category: str, rejected: Iterable[Box] = ()
) -> Lesson:
    """What a labelled image, uint8[H, W, 3] RGB, teaches about ``category``; ``rejected`` were offered and are none."""
    boxes = [item.box for item in image.objects if item.category == category][:MOST_OBJECTS]
    others = [item.box for item in image.objects if item.category != category][:MOST_OBJECTS]
    return matcher.learn(pixels, boxes, [*others, *rejected], complete=category in image.complete, key=image.key)


def lessons_of(
    matcher: ExemplarMatcher, images: Sequence[LabelledImage], known: Collection[str]
) -> dict[str, list[Lesson]]:
    """What labelled images teach about every category that is not ``known`` and of which they hold an object."""
    own = {item.category for image in images for item in image.objects} - frozenset(known)
    lessons: dict[str, list[Lesson]] = {}
    for image in images:
        categories = taught_categories(image, known, own)
        pixels = image.pixels() if categories else None
        for category in categories:
            assert pixels is not None  # noqa: S101 - some category is taught
            lessons.setdefault(category, []).append(lesson_of(matcher, image, pixels, category))
    return lessons


def digest(lessons: Lessons) -> str:
    """8 hex digits that change with what is taught."""
    state = hashlib.sha256()
    for category in sorted(lessons):
        state.update(category.encode())
        for lesson in lessons[category]:
            for name in sorted(lesson):
                state.update(name.encode() + np.ascontiguousarray(lesson[name]).tobytes())
    return state.hexdigest()[:8]

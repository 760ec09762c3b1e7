"""The candidates of one image, with what was measured of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from dataset_tools import colors
from dataset_tools.colors import Rgb
from dataset_tools.expressions import spatial_scores as spatial
from dataset_tools.expressions.appearance import Look, View
from dataset_tools.expressions.meanings import meanings_of
from dataset_tools.expressions.query import Query
from dataset_tools.expressions.spatial_scores import Floats
from dataset_tools.geometry import Box

__all__ = ["Candidates", "LabelledBox"]


@dataclass(frozen=True)
class LabelledBox:
    """A candidate.

    Attributes:
        box: in pixels.
        category: canonical name.
        score: probability in [0, 1] that there is such an object; 1 for ground truth.
        color: as ``dataset_tools.colors`` gives it, or a name; None if not known, which then fits every colour word.
        area: of the object's mask in square pixels; None where only the box is known, whose area then counts.
        look: what was measured of it in the image, None if nothing was.
    """

    box: Box
    category: str
    score: float = 1.0
    color: Rgb | str | None = None
    area: float | None = None
    look: Look | None = None


@dataclass(frozen=True)
class Candidates:
    """All candidates as arrays.

    Attributes:
        candidates: as given.
        boxes: float64[N, 4] (x0, y0, x1, y1) in pixels.
        presence: float64[N], the candidates' scores clipped to [0, 1].
        image_size: (height, width) in pixels.
        view: what else is seen in the image, None if that was not looked at.
    """

    candidates: tuple[LabelledBox, ...]
    boxes: Floats
    presence: Floats
    image_size: tuple[int, int]
    view: View | None = None

    @cached_property
    def gaps(self) -> Floats:
        """float64[N, N]: pixels between the borders of every two candidates, 0 where they touch or overlap."""
        return spatial.gaps(self.boxes, self.boxes)

    @cached_property
    def nearness(self) -> Floats:
        """float64[N, N]: ``spatial_scores.near`` of every two candidates."""
        size = np.sqrt(spatial.sizes(self.boxes, "area"))
        scale = np.maximum((size[:, None] + size[None]) / 2, 0.05 * float(np.hypot(*self.image_size)))
        return np.asarray(np.exp2(-self.gaps / scale), np.float64)

    @cached_property
    def distances(self) -> Floats:
        """float64[N, N]: pixels between the borders of every two, and a little by the middles to break ties; infinite
        from one to itself."""
        middles = spatial.centers(self.boxes)
        found = self.gaps + 0.2 * np.hypot(*np.moveaxis(middles[:, None] - middles[None], -1, 0))
        np.fill_diagonal(found, np.inf)
        return np.asarray(found, np.float64)

    @cached_property
    def memberships(self) -> Floats:
        """float64[N, 12]: how much the main colour of each belongs to ``colors.NAMES``; NaN where none is known."""
        known = [i for i, c in enumerate(self.candidates) if isinstance(c.color, tuple)]
        found: Floats = np.full((len(self.candidates), len(colors.NAMES)), np.nan)
        if known:
            found[known] = colors.memberships(np.array([self.candidates[i].color for i in known]))
        return found

    @cached_property
    def lightness(self) -> Floats:
        """float64[N] in [0, 1], of the main colour of each; NaN where it is not known."""
        known = [i for i, c in enumerate(self.candidates) if isinstance(c.color, tuple)]
        found: Floats = np.full(len(self.candidates), np.nan)
        if known:
            found[known] = colors.lab(np.array([self.candidates[i].color for i in known]))[:, 0] / 100.0
        return found

    @cached_property
    def measured(self) -> dict[tuple[Hashable, ...], Floats]:
        """What was measured of all candidates so far, not to be changed: float64[N] each."""
        return {}

    @cached_property
    def kinds(self) -> frozenset[str]:
        """Categories of the candidates."""
        return frozenset(c.category for c in self.candidates)

    @classmethod
    def of(cls, candidates: Sequence[LabelledBox], image_size: tuple[int, int], view: View | None = None) -> Candidates:
        """The arrays of ``candidates``."""
        boxes = np.array([c.box for c in candidates], np.float64).reshape(-1, 4)
        presence = np.clip(np.array([c.score for c in candidates], np.float64), 0.0, 1.0)
        return cls(tuple(candidates), boxes, presence, image_size, view)

    def sizes(self, measure: str) -> Floats:
        """float64[N]: as ``spatial_scores.sizes``, with the masks' areas where they are known."""
        if ("size", measure) not in self.measured:
            found = spatial.sizes(self.boxes, measure)
            if measure == "area":
                known = [candidate.area for candidate in self.candidates]
                found = np.array([s if area is None else max(area, 1e-6) for area, s in zip(known, found, strict=True)])
            self.measured["size", measure] = found
        return self.measured["size", measure]

    @staticmethod
    def categories_of(query: Query) -> tuple[str, ...]:
        """What the query's noun may name: its category, or several for a noun such as "court"."""
        meant = tuple(name for name, _ in meanings_of(query.noun))
        return meant if query.category in meant else ((query.category,) if query.category else ())

    def category_of(self, query: Query) -> str | None:
        """The query's category; for a noun of several ("court") the most frequent of them."""
        names = self.categories_of(query)
        if len(names) < 2:
            return query.category
        kinds = Counter(c.category for c in self.candidates if c.category in names)
        return kinds.most_common(1)[0][0] if kinds else query.category

    def of_category(self, category: str | None) -> Floats:
        """float64[N]: 1 for candidates of a category, else 0."""
        if ("category", category) not in self.measured:
            of_it = [c.category == category for c in self.candidates]
            self.measured["category", category] = np.array(of_it, np.float64)
        return self.measured["category", category]

    def merged(self, names: Collection[str], category: str) -> Candidates:
        """The scene with all candidates of the categories ``names`` as ``category``."""
        same = tuple(replace(c, category=category) if c.category in names else c for c in self.candidates)
        return replace(self, candidates=same)

    GROUP: ClassVar[str] = "(group)"
    """Category of the things that :meth:`with_things` adds."""

    def with_things(self, boxes: Sequence[Floats], presence: Sequence[float]) -> Candidates:
        """The scene with further boxes (x0, y0, x1, y1), such as those of groups, after its candidates."""
        things = [LabelledBox(Box(*(float(v) for v in box)), Candidates.GROUP) for box in boxes]
        return Candidates(
            (*self.candidates, *things),
            np.concatenate([self.boxes, np.array(boxes, np.float64).reshape(-1, 4)]),
            np.concatenate([self.presence, np.array(presence, np.float64)]),
            self.image_size,
            self.view,
        )

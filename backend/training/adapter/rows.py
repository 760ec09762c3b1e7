"""The cells of images that the adapter is trained on: which, with what features, and what they should say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backend.pipeline.grounding.compact.network import HEAT_BIAS, STRIDES
from backend.training.adapter.views import (
    FeatureCache,
    FeatureView,
    Levels,
    Reading,
    box_array,
    quarter_mask,
    view_size,
)
from backend.training.grounder.augmentation import UNLABELLED, DetectorSample
from backend.training.grounder.losses import make_targets
from dataset_tools.categories import KINDS, kind_of
from dataset_tools.labelled import LabelledImage

__all__ = ["Rows", "ViewCells", "neighbourhoods"]

_SURE = 0.0
"""Heat logit from which the detector is sure enough of an object that it knows."""
_LOOKED_AT = -3.0
"""Heat logit from which a cell is a look-alike worth learning from."""


@dataclass(eq=False)
class Rows:
    """Cells of views, N of them, for C trained categories.

    Attributes:
        features: float16[N, 9 * channels], the 3 x 3 neighbourhood, row by row.
        level: int64[N], index in ``STRIDES``.
        base: float32[N, C], heat logits without the adapter.
        heat: float32[N, C], targets as in ``grounder_losses.Targets``.
        background: float32[N, C], weight of the negative loss, the share of the cells left out included.
        cell: float32[N, 2], centre (x, y) in pixels of the view.
        sides: float32[N, 4], the detector's own output of the box that most categories share.
        box: float32[N, 4], the box wanted, in pixels of the view.
        box_weight: float32[N], 0 where there is none.
        hot: bool[N], objects and look-alikes.
        weight: float32[N], how much the row counts.
    """

    features: npt.NDArray[np.float16]
    level: npt.NDArray[np.int64]
    base: npt.NDArray[np.float32]
    heat: npt.NDArray[np.float32]
    background: npt.NDArray[np.float32]
    cell: npt.NDArray[np.float32]
    sides: npt.NDArray[np.float32]
    box: npt.NDArray[np.float32]
    box_weight: npt.NDArray[np.float32]
    hot: npt.NDArray[np.bool_]
    weight: npt.NDArray[np.float32]

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """All rows of ``parts``, in their order."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.level)


class ViewCells:
    """All cells of one view with what they should say; cells are numbered through the levels, row by row.

    Args:
        cache: of the frozen detector.
        image: with its labels.
        view: how it is looked at.
        categories: of the heat's channels, the detector's own first.
        trained: int64[C], the channels that rows are about.
        unlabelled: weight of "no such object here" where nobody has said so.
    """

    def __init__(
        self,
        cache: FeatureCache,
        image: LabelledImage,
        view: FeatureView,
        categories: Sequence[str],
        trained: npt.NDArray[np.int64],
        unlabelled: float,
    ) -> None:
        self.reading = cache.reading(image, view)
        self.trained = trained
        sample = _sample(image, view, categories, self.reading, unlabelled)
        targets = make_targets([sample], len(categories))
        self.heat, self.background, self.box = (
            _flat([maps[0].numpy() for maps in part]) for part in (targets.heat, targets.background, targets.boxes)
        )
        self.heat, self.background = self.heat[:, trained], self.background[:, trained]
        # Of what the detector knows already only whole images are lessons: without the unlabelled ones it would learn
        # that there are more objects than it finds.
        known = self.reading.heat[0].shape[2]
        skipped = [n < known and categories[n] not in image.complete for n in trained]
        self.heat[:, skipped] = self.background[:, skipped] = 0.0
        self.positive: npt.NDArray[np.bool_] = np.asarray((self.heat > 0).any(axis=1))
        self.box_weight = np.concatenate([maps[0].numpy().ravel() for maps in targets.weight]) * self.positive
        self.known = np.concatenate([_plain(level) for level in self.reading.heat])

    def sample(self, background: int, hard: int, rng: np.random.Generator) -> Rows:
        """Cells at objects, up to ``hard`` at which the detector sees something else, and ``background`` others."""
        seen = np.where(self.positive, -np.inf, self.known.max(axis=1, initial=-np.inf))
        looks = np.argsort(-seen)[:hard]
        looks = looks[seen[looks] > _LOOKED_AT]
        rest = ~self.positive
        rest[looks] = False
        others = np.flatnonzero(rest)
        drawn = rng.choice(others, min(background, len(others)), replace=False)
        hot = np.concatenate([np.flatnonzero(self.positive), looks])
        return Rows.joined([self.at(hot), self.at(drawn, len(others) / max(1, len(drawn)), hot=False)])

    def at(self, cells: npt.NDArray[np.int64], share: float = 1.0, *, hot: bool = True) -> Rows:
        """The rows of ``cells``; each stands for ``share`` cells in the negative loss."""
        base = np.full((len(cells), len(self.trained)), HEAT_BIAS, np.float32)
        known = self.trained < self.known.shape[1]
        base[:, known] = self.known[np.ix_(cells, self.trained[known])]
        level, row, column, features = neighbourhoods(self.reading.features, cells)
        stride = np.array(STRIDES)[level]
        return Rows(
            features,
            level,
            base,
            self.heat[cells],
            self.background[cells] * np.float32(share),
            np.stack([(column + 0.5) * stride, (row + 0.5) * stride], axis=1).astype(np.float32),
            np.concatenate([_plain(part)[:, :4] for part in self.reading.sides])[cells],
            self.box[cells],
            self.box_weight[cells],
            np.full(len(cells), hot),
            np.ones(len(cells), np.float32),
        )


def neighbourhoods(
    levels: Levels, cells: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float16]]:
    """Level, row and column int64[N] of ``cells``, and the features float16[N, 9 * channels] around them; 0 outside."""
    channels = levels[0].shape[2]
    level, row, column = (np.zeros(len(cells), np.int64) for _ in range(3))
    features = np.zeros((len(cells), 3, 3, channels), np.float16)
    start = 0
    for number, maps in enumerate(levels):
        height, width = maps.shape[:2]
        here = np.flatnonzero((cells >= start) & (cells < start + height * width))
        level[here] = number
        row[here], column[here] = np.divmod(cells[here] - start, width)
        padded = np.pad(maps, ((1, 1), (1, 1), (0, 0)))
        for y in range(3):
            for x in range(3):
                features[here, y, x] = padded[row[here] + y, column[here] + x]
        start += height * width
    return level, row, column, features.reshape(len(cells), 9 * channels)


def _sample(
    image: LabelledImage,
    view: FeatureView,
    categories: Sequence[str],
    reading: Reading,
    unlabelled: float,
) -> DetectorSample:
    """The labels in pixels of the view; its picture is not needed."""
    size = view_size(image, view)
    index = {category: number for number, category in enumerate(categories)}
    known = reading.heat[0].shape[2]
    labelled = {item.category for item in image.objects}
    background = np.empty((len(categories), size[0] // 4, size[1] // 4), np.float32)
    for category, number in index.items():
        # Somebody who outlined one airplane has often left the others: beside it nothing is known.
        of = KINDS.get(category, category)
        weight = 1.0 if of in image.complete else 0.0 if of in labelled else unlabelled
        background[number] = weight
    # What the detector is sure to be something else is something else.
    sure = _plain(reading.heat[0]).max(axis=1, initial=-np.inf).reshape(background.shape[1:]) > _SURE
    for number, category in enumerate(categories):
        if number >= known and category not in image.complete:
            background[number][sure] = 1.0
    objects = [item for item in image.objects if item.category in index]
    for item in image.objects:
        inside = quarter_mask(view, item.mask(), size)
        for number, category in enumerate(categories):
            if KINDS.get(category) == item.category:
                background[number][inside] = float(kind_of(item.label) is not None)
            elif category != item.category:
                background[number][inside] = 1.0
    boxes = view.boxes(box_array([item.box for item in objects]), (image.height, image.width))
    labels = np.array([index[item.category] for item in objects], np.int64)
    kinds = np.array([index.get(kind_of(item.label) or "", -1) for item in objects], np.int64)
    picture = np.broadcast_to(np.zeros((), np.uint8), (*size, 3))
    semantic = np.broadcast_to(np.uint8(UNLABELLED), background.shape[1:])
    return DetectorSample(picture, boxes, labels, kinds, semantic, background)


def _plain(level: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    return np.asarray(level, np.float32).reshape(-1, level.shape[2])


def _flat(maps: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Maps [C, h, w] of all levels as [cells, C]."""
    return np.concatenate([level.reshape(len(level), -1).T for level in maps])

"""The field's metrics: mIoU, oIoU and P@X, with the conventions that papers silently differ in.

Per expression, I and U are pixel counts of intersection and union of the predicted and the target mask; IoU = I / U.
mIoU is the mean IoU, oIoU = sum I / sum U, P@X the share of expressions with IoU >= X. What differs between papers is
the size at which pixels are counted, the IoU of two empty masks and whether X itself counts: a :class:`Convention`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from dataset_tools.errors import DatasetError, MaskError

__all__ = ["CONVENTIONS", "THRESHOLDS", "Convention", "Overlap", "convention", "group", "iou", "summarize"]

Mask = npt.NDArray[np.bool_]
T = TypeVar("T")

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""The X of P@X."""


class Overlap(NamedTuple):
    """Pixel counts of one expression: ``intersection`` and ``union`` of prediction and target."""

    intersection: int
    union: int


@dataclass(frozen=True)
class Convention:
    """How pixels are counted and compared.

    Attributes:
        name: for the report.
        size: (height, width) to which prediction and target are resized (nearest neighbour) before counting; None
            counts at the image's own size.
        empty: the IoU when prediction and target are both empty, 0 or 1.
        strict: whether P@X asks for IoU > X instead of IoU >= X.
    """

    name: str
    size: tuple[int, int] | None = None
    empty: float = 0.0
    strict: bool = False

    def overlap(self, predicted: Mask, target: Mask) -> Overlap:
        """I and U of two masks bool[H, W] of one size.

        Raises:
            MaskError: the masks differ in size.
        """
        if predicted.shape != target.shape:
            raise MaskError(f"the prediction has size {predicted.shape}, the target {target.shape} (height, width)")
        if self.size is not None:
            predicted, target = _resized(predicted, self.size), _resized(target, self.size)
        together = int(np.count_nonzero(predicted & target))
        return Overlap(together, int(np.count_nonzero(predicted)) + int(np.count_nonzero(target)) - together)

    def iou(self, overlap: Overlap) -> float:
        """I / U in 0..1; :attr:`empty` where the union is empty."""
        return overlap.intersection / overlap.union if overlap.union else self.empty

    def hit(self, iou: float, threshold: float) -> bool:
        """Whether an IoU counts for P@``threshold``."""
        return iou > threshold if self.strict else iou >= threshold

    def describe(self) -> str:
        """One line to print with every result."""
        size = f"resized to {self.size[0]} x {self.size[1]}, nearest" if self.size else "at image size"
        return f"{self.name}: {size}; IoU of two empty masks {self.empty:g}; P@X: IoU {'>' if self.strict else '>='} X"


CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {
        "native": Convention("native"),
        "rmsin": Convention("rmsin", size=(480, 480)),
        "segearth": Convention("segearth", empty=1.0, strict=True),
    }
)
"""``native`` (the default), ``rmsin`` (as RMSIN's test script) and ``segearth`` (as SegEarth-R1)."""


def convention(name: str) -> Convention:
    """The preset of that name.

    Raises:
        DatasetError: there is none.
    """
    if name not in CONVENTIONS:
        raise DatasetError(f"no convention {name!r}; choose one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks bool[H, W], 0 if both are empty; raises MaskError if their sizes differ."""
    native = CONVENTIONS["native"]
    return native.iou(native.overlap(a, b))


def summarize(overlaps: Iterable[Overlap], convention: Convention = CONVENTIONS["native"]) -> dict[str, float]:
    """``n``, ``mIoU``, ``oIoU`` and ``P@0.5`` ... ``P@0.9`` as fractions; 0 where there is no expression."""
    overlaps = list(overlaps)
    ious = [convention.iou(overlap) for overlap in overlaps]
    n = len(ious)
    total = Overlap(sum(o.intersection for o in overlaps), sum(o.union for o in overlaps))
    summary = {
        "n": n,
        "mIoU": sum(ious) / n if n else 0.0,
        "oIoU": convention.iou(total) if n else 0.0,
    }
    for threshold in THRESHOLDS:
        summary[f"P@{threshold}"] = sum(convention.hit(value, threshold) for value in ious) / n if n else 0.0
    return summary


Key = TypeVar("Key", bound=Hashable)


def group(items: Sequence[T], key: Callable[[T], Key]) -> dict[Key, list[T]]:
    """``items`` by ``key``, keys in the order of their first item: for figures by kind or by category."""
    groups: dict[Key, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _resized(mask: Mask, size: tuple[int, int]) -> Mask:
    """Nearest neighbour as torch and RMSIN do it: pixel i of n takes pixel floor(i * m / n) of m."""
    height, width = size
    resized = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, bool)

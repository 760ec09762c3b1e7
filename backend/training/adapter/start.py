"""Where an adapter's training starts: at what the first labels teach at once, without a step.

For each new category the output layer begins as a ridge regression of objects against everything else over the
adapter's features, closed in form: the same rule that finds more like accepted objects before any training
(``pipeline.grounding.compact.exemplars``), from the same features. So a training begins no worse than what served.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from backend.pipeline.grounding.compact.network import HEAT_BIAS, Head
from backend.training.adapter.rows import Rows

__all__ = ["start_from_regression"]

_SURELY = 0.999
"""Heat from which a cell is the middle of an object."""
_SHRINKAGE = 0.1
_OBJECTS_SPREAD = 0.02
"""How much the spread among the objects counts beside that of the background."""
_STEEPNESS = 8.0
"""Logits between the mean of the background and that of the objects."""
_DOUBTFUL = 0.999
"""Quantile of the background that is taken to look most like an object."""


@torch.no_grad()
def start_from_regression(
    head: Head, hidden: Tensor, rows: Rows, columns: Sequence[int], outputs: Sequence[int]
) -> None:
    """Set the output weights of new categories, in place; a category without an object in ``rows`` stays as it is.

    Args:
        head: the adapter; only its output layer changes.
        hidden: float32[N, width], the adapter's features of the cells ``rows``.
        rows: cells with what they should say.
        columns: of the new categories in ``rows``.
        outputs: the same categories' outputs of ``head``.
    """
    features = hidden.numpy().astype(np.float64)
    for column, output in zip(columns, outputs, strict=True):
        objects = rows.heat[:, column] >= _SURELY
        rest = rows.background[:, column] * rows.weight * (rows.heat[:, column] <= 0)
        if not objects.any() or not rest.any():
            continue
        direction, mean, middle = _regression(features, objects, rest)
        head.out.weight[output, :, 0, 0] = torch.from_numpy(_STEEPNESS * direction)
        head.bias[output] = -_STEEPNESS * (float(direction @ mean) + middle) - HEAT_BIAS


def _regression(
    features: npt.NDArray[np.float64], objects: npt.NDArray[np.bool_], rest: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """A direction float64[D] along which the background's ``mean`` is at 0 and the objects' at 1, and the place between
    them that parts objects from what looks most like one.
    """
    weight = rest / rest.sum()
    mean = weight @ features
    centred = features - mean
    scale = np.sqrt(weight @ np.square(centred)) + 1e-3
    centred /= scale
    dimensions = len(mean)
    spread = (centred * weight[:, None]).T @ centred
    system = (1 - _SHRINKAGE) * spread + _SHRINKAGE * np.eye(dimensions)
    members = centred[objects]
    system += _OBJECTS_SPREAD * (members.T @ members) / len(members)
    target = members.mean(axis=0)
    direction = np.linalg.solve(system, target)
    direction /= max(1e-6, float(direction @ target))
    doubtful = float(np.quantile((centred @ direction)[rest > 0], _DOUBTFUL))
    return direction / scale, mean, float(np.clip(0.5 * (1 + doubtful), 0.5, 0.9))

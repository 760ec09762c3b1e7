"""What the ground of an overhead image is: grass, trees, water, pavement, bare ground, shadow, roofs.

Two small networks read every cell of the image: the first its colours, texture and edges at five distances, the second
these again with what the first said of the surroundings. Their weights are trained by ``benchmarks.surfaces``; card:
``surfaces_card.md``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["CLASSES", "WEIGHTS", "answered", "cell_features", "lab_of_pixels", "probabilities", "with_context"]

CLASSES = ("grass", "trees", "water", "paved", "bare", "shadow", "roof", "court", "object")
"""What a cell can be; ``object`` is a vehicle, ship, airplane, tank or pier, ``court`` a sports surface."""
WEIGHTS = Path(__file__).with_name("surfaces.npz")
"""The weights of both networks."""
CELL = 4
"""Pixels of the image, as it is looked at, per cell and side."""
_LONGEST = 512
"""Pixels of the longer side at which the image is looked at, at most."""
_REACHES = (1, 3, 7, 15, 31)
"""Cells over which colours, texture and edges are averaged."""
_CONTEXT = (5, 13, 31)
"""Cells over which the second network sees what the first said."""
Maps = npt.NDArray[np.float32]


def probabilities(image: npt.NDArray[np.uint8]) -> Maps:
    """float32[9, h, w], the probability of each of :data:`CLASSES`, of ``image`` uint8[H, W, 3] RGB in cells."""
    weights = _weights()
    features = cell_features(image)
    first = answered(features, weights, "first")
    found = answered(with_context(features, first), weights, "second")
    return np.ascontiguousarray(np.moveaxis(found, -1, 0))


def cell_features(image: npt.NDArray[np.uint8]) -> Maps:
    """float32[h, w, 57]: what the first network reads of the cells of ``image`` uint8[H, W, 3] RGB."""
    height, width = image.shape[:2]
    shrunk = min(1.0, _LONGEST / max(height, width))
    across, down = (max(1, round(side * shrunk / CELL)) for side in (width, height))
    small = cv2.resize(image, (across * CELL, down * CELL), interpolation=cv2.INTER_AREA)
    lab = lab_of_pixels(np.asarray(small, np.uint8))
    light = lab[..., 0]
    right, under = cv2.Sobel(light, cv2.CV_32F, 1, 0), cv2.Sobel(light, cv2.CV_32F, 0, 1)
    fine = np.abs(cv2.Laplacian(light, cv2.CV_32F))
    edges = cv2.magnitude(right, under) > 40.0
    plain = cv2.distanceTransform((~edges).astype(np.uint8), cv2.DIST_L2, 3)
    pixels = cv2.merge(
        [*cv2.split(lab), light * light, right * right, under * under, right * under, fine, np.minimum(plain, 40.0)]
    )
    base = cv2.resize(pixels, (across, down), interpolation=cv2.INTER_AREA)
    columns: list[Any] = []
    for reach in _REACHES:
        mean = base if reach == 1 else cv2.blur(base, (reach, reach), borderType=cv2.BORDER_REFLECT)
        columns += _described(mean)
    light, a, b = base[..., 0], base[..., 1], base[..., 2]
    chroma = np.hypot(a, b)
    columns += [chroma, a / (chroma + 3.0), b / (chroma + 3.0)]
    for reach in (5, 11):
        square = np.ones((reach, reach), np.uint8)
        columns += [light - cv2.erode(light, square), cv2.dilate(light, square) - light]
    dark = 1.0 / (1.0 + np.exp(np.clip((light - 22.0) / 4.0, -30.0, 30.0)))
    columns += [cv2.blur(dark, (reach, reach), borderType=cv2.BORDER_REFLECT) for reach in (7, 15)]
    whole = _described(base.mean(axis=(0, 1), keepdims=True))
    columns += [np.broadcast_to(value, light.shape) for value in whole]
    return np.stack(columns, axis=-1).astype(np.float32)


def lab_of_pixels(image: npt.NDArray[np.uint8]) -> Maps:
    """CIELAB of ``image`` uint8[H, W, 3] RGB, float32[H, W, 3]: ``colors.lab`` in a fraction of the time, rounded."""
    return np.asarray(cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB), np.float32)


def with_context(features: Maps, first: Maps) -> Maps:
    """float32[h, w, 57 + 45]: what the second network reads, of ``first`` float32[h, w, 9]."""
    around = [cv2.blur(first, (reach, reach), borderType=cv2.BORDER_REFLECT) for reach in _CONTEXT]
    whole = np.broadcast_to(first.mean(axis=(0, 1)), first.shape)
    return np.concatenate([features, first, *(a.reshape(first.shape) for a in around), whole], axis=-1)


def _described(mean: Any) -> list[Any]:
    """Colour, roughness, strength and straightness of the edges, fine texture and plainness, from the mean values."""
    light, a, b, squares, across, down, mixed, fine, plain = (mean[..., i] for i in range(9))
    energy = across + down
    straight = np.sqrt((across - down) ** 2 + 4.0 * mixed**2) / (energy + 1.0)
    rough = np.log1p(np.sqrt(np.maximum(squares - light * light, 0.0)))
    return [light, a, b, rough, np.log1p(energy), straight, np.log1p(fine), np.log1p(plain)]


def answered(features: Maps, weights: dict[str, Maps], which: str) -> Maps:
    """float32[h, w, 9]: what one of the two networks says."""
    values = features.reshape(-1, features.shape[-1])
    hidden = np.maximum(values @ weights[f"{which}.0.weight"].T + weights[f"{which}.0.bias"], 0.0)
    logits = hidden @ weights[f"{which}.1.weight"].T + weights[f"{which}.1.bias"]
    logits = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares = logits / logits.sum(axis=-1, keepdims=True)
    return np.asarray(shares.reshape(*features.shape[:2], len(CLASSES)), np.float32)


@cache
def _weights() -> dict[str, Maps]:
    with np.load(WEIGHTS, allow_pickle=False) as file:
        return {name: file[name].astype(np.float32) for name in file.files}

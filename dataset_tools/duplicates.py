"""Near-duplicate images by perceptual hash: the same scene under two names must not be in train and in test.

The hash is a difference hash: the image shrunk to 17 x 16 grey values, one bit per pair of neighbours, 256 bits in
all. It changes little under resizing, compression and brightness, and much under another scene. Flat images (water,
haze) carry no differences to tell them apart by; they are compared by their bytes only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import cv2
import numpy as np
import numpy.typing as npt

SIDE = 16
MAX_DISTANCE = 20
"""Of 256 bits; unrelated scenes differ in some 100, recompressed or resized copies in fewer than 10."""
_FLAT = 2.0
"""Standard deviation of the grey values of the shrunk image below which an image counts as flat."""

Bits = npt.NDArray[np.uint8]


def perceptual_hash(image: npt.NDArray[np.uint8]) -> Bits | None:
    """The packed hash uint8[32] of an image uint8[H, W, 3] RGB; None for an image too flat to have one."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    if small.std() < _FLAT:
        return None
    return np.packbits(small[:, 1:] > small[:, :-1])


def distance(a: Bits, b: Bits) -> int:
    """Number of differing bits."""
    return int(np.bitwise_count(a ^ b).sum())


def near_duplicates(hashes: Iterable[tuple[str, Bits | None]], limit: int = MAX_DISTANCE) -> list[tuple[str, str, int]]:
    """(name, name, distance) of every pair at most ``limit`` bits apart, in the order of the input."""
    names, rows = [], []
    for name, bits in hashes:
        if bits is not None:
            names.append(name)
            rows.append(bits)
    if not rows:
        return []
    table = np.stack(rows).view(np.uint64)
    pairs = []
    for index in range(1, len(table)):
        apart = np.bitwise_count(table[:index] ^ table[index]).sum(axis=1)
        pairs += [(names[other], names[index], int(apart[other])) for other in np.flatnonzero(apart <= limit)]
    return pairs


def scenes_of(
    names: Iterable[str],
    scene_of: Callable[[str], str | None],
    same: Iterable[tuple[str, str]],
) -> dict[str, str]:
    """The scene of every image: what ``scene_of`` says (else the image itself), joined where ``same`` names two images.

    The result does not depend on the order of the images: a group is called after the first of its names.
    """
    from scipy.cluster.hierarchy import DisjointSet

    names = sorted(names)
    groups = DisjointSet(names)
    by_scene: dict[str, str] = {}
    for name in names:
        scene = scene_of(name)
        if scene is not None:
            groups.merge(by_scene.setdefault(scene, name), name)
    for a, b in same:
        groups.merge(a, b)
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(groups[name], name)
    return {name: first[groups[name]] for name in names}

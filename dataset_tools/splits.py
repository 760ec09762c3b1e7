"""Splits by scene: no scene straddles two parts, categories and mask sizes are shared out evenly, and adding data moves
nothing.

Every scene is dealt by itself: a keyed hash of its name gives a number in [0, 1), and the part whose share of that line
holds it takes the scene. That is stable when data is added, but with few scenes uneven; so the first split of a dataset
is also *balanced*: scenes move, largest misfit first, until every category and size class is as near to its share as
whole scenes allow. Scenes whose part is already known keep it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dataset_tools.errors import DatasetError

RRSISM = {"train": 0.7, "val": 0.1, "test": 0.2}
"""Shares as in RRSIS-D (12,181 / 1,740 / 3,481), which RRSIS-M follows."""

SIZES = (0.005, 0.05)
"""Borders between small, medium and large masks, as shares of the image."""


@dataclass(frozen=True)
class SceneGroup:
    """What the splitter knows of a scene.

    Attributes:
        name: of the scene.
        strata: how many records it has of each stratum (category and size class).
        split: where it is already; None if it is to be dealt.
    """

    name: str
    strata: Mapping[str, int]
    split: str | None = None


def stratum(category: str, share: float) -> str:
    """The stratum of a record: category and size class of a mask that covers ``share`` (0..1) of its image."""
    size = "small" if share < SIZES[0] else "medium" if share < SIZES[1] else "large"
    return f"{category} {size}"


def assign(scenes: Iterable[SceneGroup], shares: Mapping[str, float] = RRSISM, seed: int = 0) -> dict[str, str]:
    """The part of every scene.

    Args:
        scenes: all scenes; those with a split keep it.
        shares: part -> share; they need not sum up to 1.
        seed: another seed deals differently.

    Returns:
        scene name -> part, the same whatever the order of ``scenes``.

    Raises:
        DatasetError: no shares, a share below 0, or none above.
    """
    if not shares or min(shares.values()) < 0 or sum(shares.values()) <= 0:
        raise DatasetError(f"shares must be numbers of 0 and more, one above 0; got {dict(shares)}")
    scenes = sorted(scenes, key=lambda scene: scene.name)
    total = sum(shares.values())
    parts = {scene.name: scene.split or _dealt(scene.name, shares, total, seed) for scene in scenes}
    free = [scene for scene in scenes if scene.split is None]
    if len(free) == len(scenes):
        _balance(free, parts, {part: share / total for part, share in shares.items()}, seed)
    return parts


def position(name: str, seed: int) -> float:
    """Where a scene lies on the line [0, 1): depends on its name and the seed alone."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "big") / 2**64


def _dealt(name: str, shares: Mapping[str, float], total: float, seed: int) -> str:
    place, end = position(name, seed) * total, 0.0
    for part, share in shares.items():
        end += share
        if place < end:
            return part
    return list(shares)[-1]


def _balance(scenes: Sequence[SceneGroup], parts: dict[str, str], shares: Mapping[str, float], seed: int) -> None:
    """Move single scenes while that lowers the misfit: sum over strata and parts of (have - want)^2 / want."""
    total: Counter[str] = Counter()
    for scene in scenes:
        total.update(scene.strata)
    have = {part: Counter[str]() for part in shares}
    for scene in scenes:
        have[parts[scene.name]].update(scene.strata)

    def misfit(part: str, name: str, change: int) -> float:
        want = shares[part] * total[name]
        return (have[part][name] + change - want) ** 2 / max(want, 0.5)

    def gain(scene: SceneGroup, source: str, target: str) -> float:
        return sum(
            misfit(source, name, 0) + misfit(target, name, 0) - misfit(source, name, -n) - misfit(target, name, n)
            for name, n in scene.strata.items()
        )

    order = sorted(scenes, key=lambda scene: (-sum(scene.strata.values()), position(scene.name, seed)))
    for _ in range(10):
        moved = False
        for scene in order:
            source = parts[scene.name]
            best = max(
                (part for part in shares if part != source), key=lambda part: gain(scene, source, part), default=None
            )
            if best is not None and gain(scene, source, best) > 1e-9:
                have[source].subtract(scene.strata)
                have[best].update(scene.strata)
                parts[scene.name] = best
                moved = True
        if not moved:
            return

"""Words for directions: "left", "north", "upper left", "to its right"."""

from __future__ import annotations

from dataset_tools.expressions.query import Direction

__all__ = ["COMPASS", "combine", "directions", "inverses"]

COMPASS: dict[str, Direction] = {
    "left": (-1, None),
    "leftish": (-1, None),
    "rightish": (1, None),
    "lefthand": (-1, None),
    "leftward": (-1, None),
    "leftwards": (-1, None),
    "right": (1, None),
    "righthand": (1, None),
    "rightward": (1, None),
    "rightwards": (1, None),
    "top": (None, -1),
    "upper": (None, -1),
    "up": (None, -1),
    "upward": (None, -1),
    "upwards": (None, -1),
    "upside": (None, -1),
    "bottom": (None, 1),
    "lower": (None, 1),
    "down": (None, 1),
    "downward": (None, 1),
    "downwards": (None, 1),
    "underside": (None, 1),
    "west": (-1, None),
    "western": (-1, None),
    "westerly": (-1, None),
    "east": (1, None),
    "easterly": (1, None),
    "eastern": (1, None),
    "north": (None, -1),
    "northerly": (None, -1),
    "southerly": (None, 1),
    "northern": (None, -1),
    "south": (None, 1),
    "southern": (None, 1),
    "center": (0, 0),
    "centre": (0, 0),
    "central": (0, 0),
    "middle": (0, 0),
    "mid": (0, 0),
    "midst": (0, 0),
    "centrally": (0, 0),
    "nw": (-1, -1),
    "ne": (1, -1),
    "sw": (-1, 1),
    "se": (1, 1),
    "northwesterly": (-1, -1),
    "northeasterly": (1, -1),
    "southwesterly": (-1, 1),
    "southeasterly": (1, 1),
}
"""One word -> its direction."""


def combine(first: Direction, second: Direction) -> Direction:
    """Both directions at once: "upper" and "left" -> upper left; "middle" and "left" -> left, at half height."""
    if second == (0, 0):
        first, second = second, first
    if first == (0, 0):
        return (second[0] if second[0] is not None else 0, second[1] if second[1] is not None else 0)
    return (first[0] if first[0] is not None else second[0], first[1] if first[1] is not None else second[1])


def directions() -> dict[str, Direction]:
    """The words of ``COMPASS``, and two of them written as one: "topleft"."""
    joined = dict(COMPASS)
    for vertical in ("top", "upper", "bottom", "lower", "north", "south"):
        for horizontal in ("left", "right", "east", "west", "eastern", "western", "center", "centre", "middle"):
            joined[vertical + horizontal] = combine(COMPASS[vertical], COMPASS[horizontal])
    return joined


def inverses() -> dict[str, Direction | None]:
    """ "with a bridge to its left": where the TARGET lies from the object; None is just near."""
    phrases: dict[str, Direction | None] = {"above it": (None, -1), "below it": (None, 1), "under it": (None, 1)}
    for near in (
        "next to it",
        "beside it",
        "right beside it",
        "behind it",
        "just behind it",
        "in front of it",
        "opposite it",
        "alongside it",
        "along it",
        "right next to it",
        "directly beside it",
        "just beside it",
        "near it",
        "by its side",
        "nearby",
        "close to it",
        "around it",
        "alongside",
        "attached to it",
        "connected to it",
        "joined to it",
        "on both sides",
        "on either side",
        "on each side",
        "on both sides of it",
        "on either side of it",
        "on each side of it",
        "to its side",
        "next door",
    ):
        phrases[near] = None
    for word, direction in COMPASS.items():
        for pattern in ("to its {}", "on its {}", "on its {} side", "to the {} of it", "on the {} of it", "at its {}"):
            phrases[pattern.format(word)] = direction
    return phrases

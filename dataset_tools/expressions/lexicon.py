"""The words of referring expressions: tokenizer and phrase tables that turn a text into lexemes for the parser.

A lexeme is a word or phrase with a grammatical kind. Everything the parser understands is listed here; a word that
is in no table and names no category has the kind ``unknown``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from dataset_tools.categories import OTHER_COMPOUNDS, find_mentions, plural_of
from dataset_tools.expressions.query import Direction

__all__ = ["EMPTY_NOUNS", "Lexeme", "combine", "lexemes", "says_nothing"]

EMPTY_NOUNS = frozenset(
    {"object", "target", "region", "mask", "foreground", "instance", "thing", "item", "referent", "referred object"}
)
"""Nouns that name no category: a labeling config whose only label is one of them labels whatever the expression names,
and what was labelled so is of the category that its expression names."""


def says_nothing(label: str) -> bool:
    """Whether a label (case, ``_`` and ``-`` do not matter) names no category but is one of ``EMPTY_NOUNS``."""
    return " ".join(re.split(r"[\s_-]+", label.casefold().strip())) in EMPTY_NOUNS


@dataclass(frozen=True)
class Lexeme:
    """A word or phrase.

    Attributes:
        kind: grammatical kind; the keys of the tables below.
        text: as written, lower case.
        value: what the kind needs (a category, a direction, a number, ...).
    """

    kind: str
    text: str
    value: Any = None


_COMPASS: dict[str, Direction] = {
    "left": (-1, None),
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
    "east": (1, None),
    "eastern": (1, None),
    "north": (None, -1),
    "northern": (None, -1),
    "south": (None, 1),
    "southern": (None, 1),
    "center": (0, 0),
    "centre": (0, 0),
    "central": (0, 0),
    "middle": (0, 0),
    "mid": (0, 0),
    "midst": (0, 0),
}


def combine(first: Direction, second: Direction) -> Direction:
    """Both directions at once: "upper" and "left" -> upper left; "middle" and "left" -> left, at half height."""
    if second == (0, 0):
        first, second = second, first
    if first == (0, 0):
        return (second[0] if second[0] is not None else 0, second[1] if second[1] is not None else 0)
    return (first[0] if first[0] is not None else second[0], first[1] if first[1] is not None else second[1])


def _directions() -> dict[str, Direction]:
    joined = dict(_COMPASS)
    for vertical in ("top", "upper", "bottom", "lower", "north", "south"):
        for horizontal in ("left", "right", "east", "west", "eastern", "western", "center", "centre", "middle"):
            joined[vertical + horizontal] = combine(_COMPASS[vertical], _COMPASS[horizontal])
    return joined


_DIRECTIONS = _directions()

# kind -> phrases separated by commas; the value is the phrase itself.
_PLAIN: dict[str, str] = {
    "article": "the, this, these, those, its, their, your, our, my, his, her",
    "indefinite": "a, an, any, some",
    "all": "all, every, each, entire set of, whole set of, all of, each of, every one of, every single, any and all",
    "both": "both, both of",
    "one": "one, ones, object, objects, target, targets, thing, things, instance, instances, item, items, other one, "
    "entity, entities, specimen, example",
    "frame": "image, picture, photo, photograph, scene, frame, view, figure, map, screen, tile, imagery, aerial image, "
    "satellite image, remote sensing image, aerial photo, whole image, entire image, whole picture, canvas, shot, pic, "
    "whole scene, field of view, snapshot, images, photo frame, image frame, given image",
    "part": "side, sides, hand side, edge, border, end, direction, boundary, margin, rim, hand, rim, most side, "
    "position",
    "image_part": "part, corner, half, third, quadrant, portion, section, region, area, zone, quarter, parts, sector, "
    "corner area, corner region, hand corner, edge area, hand part, hand half, location, place",
    "most": "most, furthest, farthest, utmost, extreme, very, extremely, outermost, all the way, absolute, "
    "nearest most",
    "far": "far, distant, far away, remote",
    "farthest": "farthest from, furthest from, farthest away from, furthest away from, most distant from, "
    "most distant, farthest away, furthest away, most remote from, most far from, farther from, further from, "
    "farther away from, further away from, remotest from",
    "far_from": "far from, far away from, away from, distant from, at a distance from, a long way from, remote from",
    "nearest": "nearest, closest, closer, nearer, nearest to, closest to, closer to, nearer to, most near, "
    "nearest from, closest from, nearest neighbor of, nearest neighbour of, least far from, most close to, "
    "in closest proximity to, immediately next to, right next to, directly adjacent to, immediately adjacent to, "
    "directly next to, next closest to, right beside, right by, directly beside, immediately beside",
    "near": "near, near to, next to, beside, besides, close to, close by, by, adjacent to, alongside, alongside of, "
    "along, at, in the vicinity of, in proximity to, neighboring, neighbouring, bordering, adjoining, by the side of, "
    "at the side of, on the side of, touching, attached to, connected to, connecting, abutting, opposite, opposite to, "
    "across from, against, outside, outside of, in front of, behind, not far from, around, at the edge of, "
    "off, at the end of, toward, towards, nearby, near by, leaning on, linked to, along with, together with, "
    "accompanied by, right near, joined to, adjacent with, neighbour of, neighbor of, flanking, parallel to, "
    "at the entrance of, leading to, joining, moored to, docked to, docked at, moored at, anchored at, "
    "on the bank of, on the edge of, on the shore of, past, beyond, via",
    "between": "between, in between, in the middle of the two, in the gap between, flanked by, sandwiched between, "
    "halfway between, midway between, sandwiched by, situated between, amid, amidst, bracketed by",
    "on": "on, upon, onto, across, crossing, spanning, through, passing over, straddling",
    "in": "in, inside, within, inside of, into, enclosed in, contained in",
    "surrounded": "surrounded by, encircled by, enclosed by, ringed by, encompassed by, bordered by, in the midst of, "
    "surrounded with, surrounded on all sides by, circled by",
    "holds": "containing, holding, surrounding, enclosing, carrying, full of, encircling, filled with, crowded with, "
    "covered with, lined with, that has, which has, having, that have, that contains, which contains, including",
    "heading": "facing, pointing, heading, points, heads, headed, faces, oriented, directed, turned, nose",
    "with": "with",
    "of": "of, out of, among, amongst",
    "from": "from, starting from, counting from, counted from, starting at, as seen from, beginning from, viewed from",
    "to": "to",
    "than": "than",
    "non": "non",
    "not": "not, neither, except, except for, excluding, isn't, aren't, but not, other than, rather than, apart from, "
    "never, isn t, aren t, doesn t, without, instead of, all but",
    "and": "and, as well as, but, while, plus, also, or, nor",
    "copula": "is, are, was, were, be, s, lies, lie, stands, sits, appears, comes, exists, resides",
    "there": "there, where, you can see, we can see, we see, you see, one can see, here",
    "group": "group, groups, row, rows, line, cluster, clusters, pairs, set, fleet, number, bunch, series, "
    "couple, column, array, collection, lot, lots, block, majority, rest, squadron, formation, plurality, kind, "
    "type, kinds, types",
    "filler": "that, which, who, whose, it, located, situated, positioned, placed, lying, sitting, standing, parked, "
    "docked, moored, anchored, seen, found, visible, shown, can, could, has, have, been, being, as, please, find, "
    "show, me, locate, detect, select, mark, label, highlight, segment, want, need, see, identify, point, give, get, "
    "look, for, i, we, you, what, only, just, directly, immediately, exactly, slightly, roughly, approximately, "
    "almost, nearly, somewhat, quite, rather, relatively, more, less, them, they, whole, entire, colored, coloured, "
    "color, colour, shaped, shape, size, sized, in size, in color, in colour, by size, in area, in shape, in length, "
    "by area, surface area, diameter, wingspan, dimension, dimensions, length, width, extent, "
    "so, then, will, would, should, must, do, does, out, single, sole, lone, particular, certain, specific, "
    "facing north, facing south, facing east, facing west, shows, showing, extract, outline, draw, pick, choose, "
    "mask, depicted, pictured, displayed, present, named, called, looks, like, same, other, others, another, "
    "each other, one another, s, t, let, us, referred, referring, described, sailing, driving, flying, running, "
    "moving, traveling, travelling, stopped, neighbor, neighbour, neighbors, neighbours, counterpart, counterparts, "
    "resting, overall, numbered, remaining, total, in total, here, kindly, help, in terms of, compared, comparison, "
    "compared with, compared to, when, if, nearby each other, lined up, lined, clustered, grouped, gathered, arranged, "
    "clustered together, grouped together, scattered, laid out, set up, close together",
}

_VALUED: dict[str, dict[str, Any]] = {
    "direction": {},
    "extreme": {
        "highest": (None, -1),
        "lowest": (None, 1),
        "upmost": (None, -1),
        "highest up": (None, -1),
        "lowest down": (None, 1),
        "from left to right": (-1, None),
        "from right to left": (1, None),
        "from top to bottom": (None, -1),
        "from bottom to top": (None, 1),
        "from west to east": (-1, None),
        "from east to west": (1, None),
        "from north to south": (None, -1),
        "from south to north": (None, 1),
    },
    "relative": {  # prepositions that are a direction from the target
        "above": (None, -1),
        "higher than": (None, -1),
        "higher up than": (None, -1),
        "up from": (None, -1),
        "more to the left than": (-1, None),
        "more to the right than": (1, None),
        "below": (None, 1),
        "lower than": (None, 1),
        "lower down than": (None, 1),
        "down from": (None, 1),
    },
    "over": {  # one covers the other, or they are that way apart in the picture
        "over": (None, -1),
        "on top of": (None, -1),
        "atop": (None, -1),
        "under": (None, 1),
        "beneath": (None, 1),
        "underneath": (None, 1),
    },
    "size": {},
    "color": {},
    "shape": {},
    "ordinal": {  # negative: counted from the other end
        "last": 1,
        "penultimate": -2,
        "second to last": -2,
        "second from last": -2,
        "second last": -2,
        "next to last": -2,
        "last but one": -2,
        "third to last": -3,
        "third last": -3,
        "last but two": -3,
    },
    "number": {"pair": 2, "couple": 2, "duo": 2, "trio": 3, "quartet": 4},
}

# (sign, measure, positives, comparatives, superlatives)
_SIZES = (
    (
        1,
        "area",
        "large, big, huge, giant, enormous, sizable, sizeable, massive, great, vast, larger sized, large sized, "
        "big sized, large scale, gigantic, spacious, oversized",
        "larger, bigger, greater, huger",
        "largest, biggest, hugest, greatest, most massive, most enormous, most sizable, most huge, maximum",
    ),
    (
        -1,
        "area",
        "small, little, tiny, mini, compact, minor, small sized, small scale, minuscule, miniature",
        "smaller, tinier, littler, lesser",
        "smallest, tiniest, littlest, least large, minimum, most compact, least big, most tiny",
    ),
    (1, "length", "long, tall, elongated, lengthy, high", "longer, taller, higher", "longest, tallest, most elongated"),
    (-1, "length", "short", "shorter", "shortest"),
    (1, "width", "wide, broad, thick", "wider, broader, thicker", "widest, broadest, thickest"),
    (-1, "width", "narrow, thin, slim, slender", "narrower, thinner", "narrowest, thinnest, slimmest, most slender"),
)

_COLORS = {
    "white": "white, snow white, whitish, off white, ivory, cream",
    "black": "black, blackish, jet black",
    "gray": "gray, grey, silver, silvery, greyish, grayish, metallic",
    "red": "red, reddish, crimson, maroon, scarlet",
    "orange": "orange, terracotta",
    "brown": "brown, brownish, tan, beige, khaki, sandy",
    "yellow": "yellow, golden, gold, yellowish",
    "green": "green, greenish, olive, emerald",
    "cyan": "cyan, turquoise, teal, aqua",
    "blue": "blue, bluish, navy, azure, navy blue, sky blue",
    "purple": "purple, violet, lilac, magenta",
    "pink": "pink, rose",
    "dark": "dark, darker, darkest, dark colored, dark coloured, darkish, shadowy",
    "light": "light, bright, pale, lighter, brighter, brightest, lightest, light colored, light coloured, "
    "bright colored",
}

_SHAPES = {
    "round": "round, circular, rounded, circle, ring shaped, annular, disc shaped, circle shaped, spherical, "
    "cylindrical",
    "square": "square, squared, cubic, square shaped",
    "rectangular": "rectangular, rectangle, oblong, rectangle shaped",
    "oval": "oval, elliptical, ellipse, oval shaped",
    "triangular": "triangular, triangle",
    "curved": "curved, arched, bent, winding, curving, arc shaped",
    "straight": "straight, linear",
    "vertical": "vertical, vertically, upright, vertically oriented, north south",
    "horizontal": "horizontal, horizontally, horizontally oriented, east west",
    "irregular": "irregular, irregularly shaped, l shaped, u shaped, t shaped, y shaped, cross shaped, fan shaped, "
    "x shaped, irregular shaped, cruciform",
}

_ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
_NUMBERS = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def _table() -> dict[tuple[str, ...], tuple[str, Any]]:
    entries: dict[str, tuple[str, Any]] = {}
    for kind, phrases in _PLAIN.items():
        for phrase in phrases.split(","):
            entries.setdefault(phrase.strip(), (kind, phrase.strip()))
    for kind, values in _VALUED.items():
        entries.update({phrase: (kind, value) for phrase, value in values.items()})
    for sign, measure, positives, comparatives, superlatives in _SIZES:
        for degree, words in (("positive", positives), ("comparative", comparatives), ("superlative", superlatives)):
            entries.update({w.strip(): ("size", (sign, measure, degree)) for w in words.split(",")})
    for kind, groups in (("color", _COLORS), ("shape", _SHAPES)):
        for name, words in groups.items():
            entries.update({w.strip(): (kind, name) for w in words.split(",")})
    for rank, word in enumerate(_ORDINALS, 1):
        suffix = {1: "st", 2: "nd", 3: "rd"}.get(rank, "th")
        entries[word] = entries[f"{rank}{suffix}"] = ("ordinal", rank)
    for number, word in enumerate(_NUMBERS, 2):
        entries[word] = ("number", number)
    for word, direction in _DIRECTIONS.items():
        entries[word] = ("direction", direction)
        entries[f"{word}most"] = entries[f"{word} most"] = ("extreme", direction)
    entries["right on"] = entries["right at"] = ("on", "on")
    for word in ("above", "below", "under", "beneath", "underneath"):
        entries[f"right {word}"] = entries[f"just {word}"] = entries[word]
    for inverse, target_direction in _inverses().items():
        entries[inverse] = ("inverse", target_direction)
    for compound in OTHER_COMPOUNDS:
        entries[compound] = ("unknown", compound)
        entries[plural_of(compound)] = ("unknown", compound)
    return {tuple(phrase.split()): entry for phrase, entry in entries.items()}


def _inverses() -> dict[str, Direction | None]:
    """ "with a bridge to its left": where the TARGET lies from the object; None is just near."""
    phrases: dict[str, Direction | None] = {"above it": (None, -1), "below it": (None, 1), "under it": (None, 1)}
    for near in (
        "next to it",
        "beside it",
        "near it",
        "by its side",
        "nearby",
        "close to it",
        "around it",
        "alongside",
    ):
        phrases[near] = None
    for word, direction in _COMPASS.items():
        for pattern in ("to its {}", "on its {}", "on its {} side", "to the {} of it", "on the {} of it", "at its {}"):
            phrases[pattern.format(word)] = direction
    return phrases


_TABLE = _table()
_LONGEST = max(map(len, _TABLE))
_WORD = re.compile(r"[^\W_]+|[,.;:!?()\n]")
_POSSESSIVE = re.compile(r"'s\b")
_MAX_WORDS = 400
_MAX_NUMBER = 999


def lexemes(expression: str, own: Collection[str] = ()) -> list[Lexeme]:
    """The lexemes of a text, longest phrase first; punctuation becomes ``break``. Words after the 400th are ignored.

    ``own`` as for :func:`dataset_tools.categories.find_mentions`.
    """
    text = unicodedata.normalize("NFKC", expression).lower().replace("\u2019", "'")
    words = _WORD.findall(_POSSESSIVE.sub("", text))[:_MAX_WORDS]
    mentions = {mention.start: mention for mention in find_mentions(words, own)}
    found: list[Lexeme] = []
    start = 0
    while start < len(words):
        mention = mentions.get(start)
        stop, entry = _longest_phrase(words, start)
        if mention and mention.stop >= stop:
            text = " ".join(words[start : mention.stop])
            found.append(Lexeme("category", text, mention))
            start = mention.stop
        elif entry:
            found.append(Lexeme(entry[0], " ".join(words[start:stop]), entry[1]))
            start = stop
        else:
            found.append(_single(words[start]))
            start += 1
    return found


def _longest_phrase(words: list[str], start: int) -> tuple[int, tuple[str, Any] | None]:
    for length in range(min(_LONGEST, len(words) - start), 0, -1):
        entry = _TABLE.get(tuple(words[start : start + length]))
        if entry:
            return start + length, entry
    return start, None


def _single(word: str) -> Lexeme:
    if not word[0].isalnum():
        return Lexeme("break", word)
    if word.isdecimal() and word.isascii():
        return Lexeme("number", word, min(int(word[:4]), _MAX_NUMBER))
    return Lexeme("unknown", word)

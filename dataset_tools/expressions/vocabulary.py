"""The phrase tables of the lexicon: every word that the parser understands, by grammatical kind."""

from __future__ import annotations

from typing import Any

from dataset_tools.categories import OTHER_COMPOUNDS, plural_of
from dataset_tools.expressions.descriptive_words import COLORS, GROUPS, PARTWORDS, SHAPES, SIZES, STATES
from dataset_tools.expressions.direction_words import directions, inverses

__all__ = ["TABLE"]


_DIRECTIONS = directions()

# kind -> phrases separated by commas; the value is the phrase itself.
_PLAIN: dict[str, str] = {
    "article": "the, this, these, those, your, our, my, his, her",
    "indefinite": "a, an, any, some",
    "all": "all, everything, everyone, every, each, entire set of, whole set of, all of, each of, every one of, "
    "every single, any and all",
    "both": "both, both of",
    "one": "one, ones, member, members, others, other ones, all others, all the others, fellow, guy, object, "
    "objects, target, targets, thing, things, instance, instances, item, "
    "items, other one, "
    "entity, entities, specimen, example",
    "frame": "image, picture, photo, photograph, scene, frame, view, figure, map, screen, tile, imagery, "
    "aerial image, "
    "satellite image, remote sensing image, aerial photo, whole image, entire image, whole picture, canvas, shot, "
    "pic, "
    "whole scene, field of view, snapshot, images, photo frame, image frame, given image",
    "part": "side, sides, hand side, hand edge, hand end, part way, edges, ends, tip, side end, way, extremity, "
    "edge, border, end, direction, boundary, margin, rim, hand, rim, most side, "
    "position",
    "image_part": "part, corner, half, third, quadrant, portion, section, region, area, zone, quarter, parts, "
    "sector, "
    "corner area, corner region, hand corner, edge area, hand part, hand half, location, place",
    "most": "most, more, further, farther, furthest, farthest, utmost, extreme, very, extremely, outermost, "
    "all the way, absolute, "
    "nearest most, all the way over, way over, way up, way down, way, all the way up, all the way down",
    "far": "far, distant, far away, remote",
    "farthest": "farther out from, further out from, farthest out from, furthest out from, further back from, "
    "farther back from, farthest from, furthest from, farthest away from, furthest away from, most distant from, "
    "most distant, farthest away, furthest away, most remote from, most far from, farther from, further from, "
    "farther away from, further away from, remotest from",
    "far_from": "set back from, far from, far away from, away from, distant from, at a distance from, "
    "a long way from, remote from",
    "nearest": "nearest, closest, closer, nearer, nearest to, closest to, closer to, nearer to, most near, "
    "nearest from, closest from, nearest neighbor of, nearest neighbour of, least far from, most close to, "
    "in closest proximity to, immediately next to, right next to, directly adjacent to, immediately adjacent to, "
    "directly next to, next closest to, right beside, right by, directly beside, immediately beside",
    "near": "near, near to, before, after, just before, just after, right before, right after, just past, ahead of, "
    "just off, "
    "in front, just behind, right in front of, right in front, right outside, right inside, right behind, "
    "next one to, next after, following, tied to, up against, hugging, facing the, "
    "leaned on, parked by, parked at, tucked against, tucked between, served by,  next to, beside, besides, "
    "close to, close by, by, adjacent to, alongside, alongside of, "
    "along, at, in the vicinity of, in proximity to, neighboring, neighbouring, bordering, adjoining, "
    "by the side of, "
    "at the side of, on the side of, touching, attached to, connected to, connecting, abutting, opposite, "
    "opposite to, "
    "across from, against, outside, outside of, in front of, behind, not far from, around, at the edge of, "
    "off, at the end of, on the end of, at the very end of, right at the end of, on the very end of, up to, "
    "at the head of, at the front of, at the back of, at the start of, at the beginning of, at the foot of, "
    "at the tail of, backed up to, "
    "backed up against, backed into,  toward, towards, nearby, near by, leaning on, linked to, along with, "
    "together with, "
    "accompanied by, right near, joined to, adjacent with, neighbour of, neighbor of, flanking, parallel to, "
    "at the entrance of, leading to, joining, moored to, docked to, docked at, moored at, anchored at, "
    "hidden by, half hidden by, partly hidden by, hidden under, half hidden under, partly hidden under, "
    "partly under, "
    "partly behind, shaded by, half covered by, partly covered by, "
    "on the bank of, on the edge of, on the shore of, past, beyond, via",
    "between": "between, in between, in the middle of the two, in the gap between, flanked by, sandwiched between, "
    "halfway between, midway between, sandwiched by, situated between, amid, amidst, bracketed by",
    "on": "on, crossing over, passing above, running over, going over, upon, onto, across, crossing, spanning, "
    "through, passing over, straddling",
    "in": "in, inside, within, inside of, into, enclosed in, contained in",
    "surrounded": "surrounded by, encircled by, enclosed by, ringed by, encompassed by, bordered by, "
    "in the midst of, "
    "surrounded with, surrounded on all sides by, circled by",
    "holds": "containing, holding, surrounding, enclosing, carrying, full of, encircling, filled with, crowded with, "
    "lined with, that contains, which contains, including",
    "heading": "facing, pointing, heading, points, heads, headed, faces, oriented, directed, turned, nose, noses",
    "with": "with, covered with, covered by, covered in, topped with, topped by, wrapped in, marked with, "
    "painted with, has, have, having, that has, which has, that have, which have, featuring, sporting, bearing",
    "of": "of, out of, among, amongst",
    "from": "from, starting from, counting from, counted from, starting at, as seen from, beginning from, viewed from",
    "to": "to",
    "than": "than",
    "non": "non",
    "not": "not, neither, isn't, aren't, never, isn t, aren t, doesn t, wasn t, don t, can t",
    "and": "and, as well as, but, while, plus, also, or, nor",
    "copula": "is, are, was, were, be, s, lies, lie, stands, sits, appears, comes, exists, resides",
    "there": "there, where, you can see, we can see, we see, you see, one can see, here",
    "sort": "number, lot, lots, majority, rest, plurality, kind, type, kinds, types, sort",
    "possessive": "'s",
    "ground": "out of the water, out of water, ashore, on dry land, beached, on the hard, on shore",
    "own": "its, whose, their",
    "similar": "similar in size to, same size as, of the same size as, as big as, as large as, equal in size to, "
    "of similar size to, of similar size as, as small as, as long as, similar in size with, similar size as, "
    "similar in shape to, similar to",
    "no": "no, zero",
    "without": "without, with no, without any, doesn t have, doesn t have any, does not have, "
    "does not have any, don t have, "
    "don t have any, do not have, do not have any, isn t having, has no, have no, having no, not having, "
    "lacking, with neither",
    "exclusion": "except, except for, excluding, but not, other than, rather than, apart from, instead of, "
    "all but, anything but, "
    "not counting, and not, leaving out, ignoring",
    "filler": "that, which, who, whose, it, located, situated, positioned, placed, lying, sitting, standing, parked, "
    "docked, moored, anchored, seen, found, visible, shown, can, could, had, been, has been, have been, being, "
    "i have, we have, you have, as, please, find, "
    "show, me, locate, detect, select, mark, label, highlight, segment, want, need, see, identify, point, give, get, "
    "look, for, i, we, you, what, only, just, directly, immediately, exactly, slightly, roughly, approximately, "
    "almost, nearly, pretty, somewhat, quite, rather, relatively, them, they, colored, coloured, "
    "color, colour, shaped, shape, size, sized, in size, in color, in colour, by size, in area, in shape, in length, "
    "by area, surface area, diameter, wingspan, dimension, dimensions, length, width, extent, "
    "so, then, will, would, should, must, do, does, out, single, particular, certain, specific, "
    "shows, showing, extract, outline, draw, pick, choose, "
    "mask, depicted, pictured, displayed, present, named, called, looks, like, same, other, another, "
    "each other, one another, s, t, let, us, referred, referring, described, sailing, driving, flying, running, "
    "moving, traveling, travelling, stopped, neighbor, neighbour, neighbors, neighbours, counterpart, counterparts, "
    "next, right up, right where, resting, overall, numbered, remaining, total, in total, here, due, much, "
    "by far, noticeably, considerably, "
    "nose in, nose first, touching each other, touching one another, facing each other, in a square, "
    "in a circle, in a triangle, "
    "go to, go right to, go left to, go up to, go down to, look at, look in, in a grid, in a semicircle, "
    "next to each other, next to one another, beside each other, beside one another, close to each other, "
    "near each other, adjacent to each other, parallel to each other, alongside each other, opposite each other, "
    "behind each other, behind one another, after each other, one after another, one after the other,  kindly, help, "
    "in terms of, compared, comparison, "
    "compared with, compared to, when, if, nearby each other, lined up, lined, clustered, grouped, gathered, "
    "arranged, "
    "clustered together, grouped together, scattered, laid out, set up, close together, take, go for, grab, mean, "
    "meant, "
    "looking, spot, counting, counted, there s, that s, it s, got, too, count, still, all over, up close, real, "
    "okay, ok, "
    "also, again, now, ll, m, re, d, ve, am, my, using, use, side by side, together, standing, sits, sit, sitting, "
    "lies, stand, stands, runs, run, in view, in question, here, actually, about, maybe, probably, trying, mine, "
    "tied up, tied, berthed, pulled up, placed, left over, in turn, in total, two part, two tone, single sided, "
    "double sided, kind of, sort of, a bit, a little, "
    "a little bit, bit, clearly, plainly, right now, mainly, mostly, partly, fully shown, sticking out, "
    "stretching, reaching, extending, leading, going, sort, starts, begins, beginning, leads, goes, hangs, hanging, "
    "juts, jutting, juts out, jutting out, sticks out, comes out, running out, points out, pick out, taxiing, "
    "turned up, twin, identical, stays, stay, staying, remains, remain, waits, waiting, rests, rest at",
}

_VALUED: dict[str, dict[str, Any]] = {
    "direction": {
        "higher": (None, -1),
        "higher up": (None, -1),
        "lower down": (None, 1),
        "further up": (None, -1),
        "further down": (None, 1),
        "halfway down": (None, 0),
        "half way down": (None, 0),
        "halfway up": (None, 0),
        "half way up": (None, 0),
        "at half height": (None, 0),
        "at mid height": (None, 0),
        "halfway across": (0, None),
        "mid height": (None, 0),
        "half height": (None, 0),
        "midway down": (None, 0),
        "midway up": (None, 0),
        "two thirds of the way down": (None, 1),
        "two thirds of the way up": (None, -1),
        "a third of the way down": (None, -1),
        "a third of the way up": (None, 1),
    },
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
        "passing under": (None, 1),
        "crossing under": (None, 1),
        "going under": (None, 1),
        "running under": (None, 1),
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
    "number": {},
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
    for sign, measure, positives, comparatives, superlatives in SIZES:
        for degree, words in (("positive", positives), ("comparative", comparatives), ("superlative", superlatives)):
            entries.update({w.strip(): ("size", (sign, measure, degree)) for w in words.split(",")})
    for kind, groups in (("color", COLORS), ("shape", SHAPES)):
        for name, words in groups.items():
            entries.update({w.strip(): (kind, name) for w in words.split(",")})
    for group, words in GROUPS.items():
        entries.update({w.strip(): ("group", group) for w in words.split(",")})
    for state, words in STATES.items():
        entries.update({w.strip(): ("state", state) for w in words.split(",")})
    for share in (
        "partly",
        "only partly",
        "partially",
        "only partially",
        "half",
        "only half",
        "not fully",
        "not entirely",
    ):
        for frame in ("view", "frame", "image", "picture", "photo"):
            entries[f"{share} in {frame}"] = entries[f"{share} in the {frame}"] = ("state", "cut")
            entries[f"{share} within the {frame}"] = ("state", "cut")
    for share in ("fully", "completely", "entirely", "wholly", "totally", "all"):
        for frame in ("view", "frame", "image", "picture", "photo"):
            for within in ("in", "in the", "within the", "inside the"):
                entries[f"{share} {within} {frame}"] = ("state", "whole")
    entries.update({w.strip(): ("partword", w.strip()) for w in PARTWORDS.split(",")})
    for rank, word in enumerate(_ORDINALS, 1):
        suffix = {1: "st", 2: "nd", 3: "rd"}.get(rank, "th")
        entries[word] = entries[f"{rank}{suffix}"] = ("ordinal", rank)
    for number, word in enumerate(_NUMBERS, 2):
        entries[word] = ("number", number)
    for word, direction in _DIRECTIONS.items():
        entries[word] = ("direction", direction)
        entries[f"{word}most"] = entries[f"{word} most"] = ("extreme", direction)
    entries["but one"], entries["but two"] = ("besides", 1), ("besides", 2)
    for letter in "ltu":
        shape = ("shape", f"{letter}-shaped")
        for words in ("shaped like", "in the shape of", "in the form of", "forming", "like", "shape of"):
            for article in ("a", "an", "the letter"):
                entries[f"{words} {article} {letter}"] = shape
    entries["right on"] = entries["right at"] = ("on", "on")
    entries["right in"] = ("in", "in")
    for word in ("above", "below", "under", "beneath", "underneath"):
        entries[f"right {word}"] = entries[f"just {word}"] = entries[word]
    for inverse, target_direction in inverses().items():
        entries[inverse] = ("inverse", target_direction)
    for compound in (*OTHER_COMPOUNDS, *_LINES, *_OTHER_WAYS):
        entries[compound] = ("unknown", compound)
        entries[plural_of(compound)] = ("unknown", compound)
    return {tuple(phrase.split()): entry for phrase, entry in entries.items()}


_LINES = ("railway line", "rail line", "train line", "tram line", "power line", "tree line", "coast line", "shore line")
"""Lines that are no rows."""
_OTHER_WAYS = (
    "other way",
    "opposite way",
    "opposite direction",
    "other direction",
    "different direction",
    "opposite side",
    "other side",
)

TABLE = _table()
"""Words of a phrase -> (kind, value)."""

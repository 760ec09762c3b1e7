"""Words that describe objects: size, colour, shape, state, group; nouns of no category; idle words."""

from __future__ import annotations

__all__ = [
    "COLORS",
    "GROUPS",
    "HARMLESS",
    "KIND_HINTS",
    "PARTWORDS",
    "SHAPES",
    "SIZES",
    "STATES",
    "SURFACES",
]

# (sign, measure, positives, comparatives, superlatives)
SIZES = (
    (
        1,
        "area",
        "large, big, huge, giant, enormous, sizable, sizeable, massive, great, vast, biggish, jumbo, larger sized, "
        "large sized, "
        "big sized, large scale, gigantic, spacious, oversized",
        "larger, bigger, greater, huger",
        "largest, biggest, hugest, greatest, most massive, most enormous, most sizable, most huge, maximum",
    ),
    (
        -1,
        "area",
        "small, little, tiny, mini, short and small, smallish,  compact, minor, small sized, small scale, "
        "minuscule, miniature",
        "smaller, tinier, littler, lesser",
        "smallest, tiniest, littlest, least large, minimum, most compact, least big, most tiny",
    ),
    (
        1,
        "length",
        "long, tall, elongated, lengthy, high, very long",
        "longer, taller",
        "longest, tallest, most elongated",
    ),
    (-1, "length", "short, stubby", "shorter", "shortest"),
    (
        1,
        "width",
        "wide, broad, thick, fat, chubby, plump",
        "wider, broader, thicker, fatter",
        "widest, broadest, thickest, fattest",
    ),
    (
        -1,
        "width",
        "narrow, thin, slim, slender, skinny",
        "narrower, thinner, slimmer, skinnier",
        "narrowest, thinnest, skinniest, slimmest, most slender",
    ),
)

COLORS = {
    "white": "white, whitest, whiter, snow white, whitish, off white, ivory, cream, cream coloured, "
    "cream colored, creamy",
    "black": "black, blackest, blackish, jet black",
    "gray": "gray, grey, greyest, grayest, greyer, grayer, silver, silvery, greyish, grayish, metallic, "
    "silver grey, silver gray, slate, "
    "concrete coloured, dull grey, "
    "dull gray, dirty grey, dirty gray",
    "red": "red, reddest, redder, reddish, crimson, maroon, scarlet, brick red, burgundy, rusty red, wine red, "
    "rust red",
    "orange": "orange, terracotta, clay, orangey, orangish, rust coloured, clay coloured",
    "brown": "brown, brownest, browner, brownish, tan, beige, khaki, sandy, sandy coloured, sandy colored, "
    "sand coloured, "
    "sand colored, "
    "all dirt, dirt, all sand, earthen, muddy, rusty, bronze, chocolate, rust, tan coloured",
    "yellow": "yellow, golden, gold, yellowish",
    "green": "green, greenest, greener, greenish, olive, emerald, mint, lime, grassy, green grey, grey green, "
    "gray green",
    "cyan": "light blue, pale blue, baby blue, cyan, turquoise, teal, aqua, aquamarine",
    "blue": "blue, bluest, bluer, bluish, blueish, blue ish, navy, azure, navy blue, sky blue, royal blue, "
    "blue grey, blue gray, "
    "grey blue",
    "purple": "purple, violet, lilac, magenta, purplish, mauve, lavender, lilac coloured, lilac colored",
    "pink": "pink, rose, pinkish, salmon",
    "dark": "dark, darker, darkest, dark colored, dark coloured, darkish, shadowy, deep",
    "light": "light, bright, pale, paler, palest, pale coloured, pale colored, lighter, brighter, brightest, "
    "lightest, light colored, light coloured, "
    "bright colored",
}

SHAPES = {
    "round": "frustum of a cone, frustum of cone, round, circular, rounded, circle, ring shaped, annular, "
    "disc shaped, circle shaped, spherical, "
    "cylindrical",
    "square": "square, squared, cubic, square shaped",
    "rectangular": "rectangular, rectangle, oblong, rectangle shaped",
    "oval": "oval, elliptical, ellipse, oval shaped",
    "triangular": "triangular, triangle",
    "curved": "curved, arched, bent, winding, curving, arc shaped",
    "straight": "straight, linear",
    "vertical": "vertical, vertically, upright, vertically oriented, north south, north to south, "
    "running north south, "
    "running north to south, up and down, straight up and down, pointing up, pointing down, nose up, nose down, "
    "pointing straight up, pointing straight down, pointing up and down, pointing straight up and down, "
    "facing up, facing down, facing north, facing south, pointing north, pointing south",
    "horizontal": "horizontal, horizontally, horizontally oriented, east west, east to west, running east west, "
    "running east to west, sideways, crosswise, lying sideways, left to right, facing left, facing right, "
    "facing east, facing west, pointing left, pointing right, facing straight left, facing straight right, "
    "nose left, "
    "nose right, nose pointing left, nose pointing right, facing sideways, pointing west, pointing east",
    "diagonal": "diagonal, diagonally, slanted, tilted, oblique, slanting, angled, crooked, at an angle, "
    "parked at an angle, turned at an angle, standing at an angle, lying at an angle, set at an angle, askew, "
    "skewed, "
    "at a slant",
    "irregular": "irregular, irregularly shaped, y shaped, cross shaped, fan shaped, "
    "x shaped, kidney shaped, shaped like a kidney, bean shaped, free form, freeform, irregular shaped, "
    "cruciform, curved shaped",
    "l-shaped": "l shaped, l shape, in an l, like an l, shaped like an l, with an l",
    "t-shaped": "t shaped, t shape, in a t, like a t, shaped like a t, t head, t headed, t topped",
    "u-shaped": "u shaped, u shape, in a u, like a u, shaped like a u, horseshoe shaped, h shaped",
}

GROUPS: dict[tuple[str, int | None], str] = {
    ("row", None): "row, rows, line, lines, string, series, queue, chain, ranks",
    ("column", None): "column, columns, stack, file",
    ("pair", 2): "pair, pairs, couple, duo, twins, twin pair, twosome",
    ("cluster", None): "group, groups, cluster, clusters, bunch, set, block, fleet, array, batch, crowd, squadron, "
    "formation, collection, huddle, knot, gathering, complex",
    ("cluster", 3): "trio, threesome, triplet",
    ("cluster", 4): "quartet, foursome",
}

STATES = {
    "cut": "cut, cut off, cut by, cropped, cropped off, clipped, truncated, running off, runs off, poking in, "
    "partial, "
    "partially visible, partly visible, half visible, only partly visible, half out of, sticking out of, going off, "
    "incomplete, not complete, not whole, not entirely visible, sliced, only half visible, half cut off, "
    "partly cut off, "
    "cut away, cut through, not fully visible, not completely visible, only partially visible, partly out of, "
    "half outside, partly outside, extends beyond, extending beyond, goes beyond, continues beyond, going out of, "
    "running out of, runs out of, runs out, goes out of, partially cut off, extending off, extends off, sliver, "
    "piece of, bit of, fragment, remainder, remnant, only part, only a part, only half, only a half, only a bit, "
    "only a piece, only the tip, only the nose, only the tail, only the wing, only a wing, just the tip, "
    "just the nose, just the tail, just a tip, just a bit, just a piece, not all of it",
    "whole": "whole, complete, completely visible, entire, entirely visible, fully visible, full, "
    "completely in view, "
    "see entirely, see completely, see whole, shows completely, shown completely, shown fully, fully in view, "
    "uncut, uncropped, complete one, see fully, see nearly all of, see almost whole, entirely in view, not cut off, "
    "not cut, in full, completely shown, fully shown, visible in full, whole one",
    "alone": "alone, separately, parked by itself, parked on its own, separate from the others, "
    "away from the others, "
    "away from the rest, apart from the others, apart from the rest, away from all the others, off on its own, "
    "off by itself, with nothing beside it, with nothing next to it, with nothing around it, with no neighbours, "
    "with no neighbors, far from the others, far from the rest, lone, isolated, on its own, by itself, "
    "solitary, sole, all alone, a bit apart, apart, "
    "standing apart, "
    "all by itself, lonely, stand alone, standalone, detached, separate, only one, set apart, lonesome",
    "empty": "empty, vacant, unoccupied, deserted",
    "occupied": "occupied, boat filled, ship filled, busy, crowded",
}

PARTWORDS = (
    "roofed, topped, covered, tiled, decked, tailed, hulled, nosed, winged, painted, walled, bordered, tinted, "
    "striped, "
    "rimmed, stained, surfaced, floored, toned, hued, cabined"
)
"""After a colour: the colour of a part, or just a colour."""

_SURFACES = {
    "grass": "grass, lawn, grassland, meadow, turf, grassy, field, pasture, green, verge, infield, garden, front yard, "
    "back yard, backyard",
    "trees": "tree, trees, wood, woods, forest, bush, bushes, hedge, hedges, treeline, vegetation, shrubs, wooded, "
    "grove, "
    "palms, foliage, woodland, branches, shrubbery, orchard, scrub, pines",
    "water": "water, sea, river, lake, pond, canal, bay, ocean, lagoon, creek, stream, channel, basin, inlet, "
    "waterway, cove",
    "paved": "road, street, highway, runway, taxiway, apron, tarmac, asphalt, pavement, lane, concrete, junction, "
    "intersection, motorway, plaza, square, alley, roadway, crossing, sidewalk, walkway, carriageway, kerb, curb, "
    "roadside, avenue, boulevard, freeway, expressway, crosswalk",
    "open": "yard, parking, car park, carpark, lot, path, footpath, driveway, drive, gravel, courtyard, forecourt, "
    "track, trail",
    "bare": "sand, beach, dirt, soil, sandpit, sand pit, ground, earth, mud, clay",
    "shadow": "shadow, shade, shadows, shaded",
    "land": "shore, bank, shoreline, coast, land, shoreside, waterfront, headland, riverbank, embankment",
    "roof": "terminal, concourse, hall, boathouse, boat house, clubhouse, depot, workshop, mall, store, supermarket, "
    "hotel, school, hospital, carport, gates, jet bridge, jet bridges, jetway, jetways, air bridge, boarding bridge",
}
_KIND_HINTS = {
    "large": "truck, bus, lorry, mixer, semi, rig, artic, coach, trailer, ferry, tanker, freighter, airliner, jumbo, "
    "liner, warship, barge, caravan",
    "small": "car, sedan, dinghy, kayak, rowboat, motorboat, powerboat, speedboat, van, pickup, suv, taxi, cart, canoe",
}
KIND_HINTS = {word.strip(): hint for hint, words in _KIND_HINTS.items() for word in words.split(",")}
"""Nouns for the large or the small ones of a category."""
HARMLESS = frozenset(
    [
        "private",
        "typical",
        "typically",
        "ordinary",
        "simple",
        "common",
        "usual",
        "obvious",
        "obviously",
        "nice",
        "neat",
        "visible",
        "somewhere",
        "kinda",
        "basically",
        "exact",
        "exactly",
        "entirely",
        "completely",
        "really",
        "truly",
        "fairly",
        "bottommost",
        "overview",
        "shaped",
        "looking",
        "known",
        "another",
        "whichever",
        "indeed",
        "precisely",
        "slightly",
        "loosely",
        "tightly",
        "neatly",
        "clear",
        "dull",
        "lashed",
        "rafted",
        "hidden",
        "cement",
        "crane",
        "wooden",
        "edged",
        "sided",
    ]
)
"""Words that tell no object from another; ``filler`` in the table are those with a place in the grammar."""
SURFACES = {word.strip(): surface for surface, words in _SURFACES.items() for word in words.split(",")}
"""Nouns of what is no category but can be told by colour and texture -> kind of surface."""

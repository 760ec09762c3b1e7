"""Nouns that are no category's own name, and words that say nothing of any object."""

from __future__ import annotations

__all__ = ["GENERAL_NOUNS", "HARMLESS", "KIND_HINTS", "SURFACES"]

_SURFACES = {
    "grass": "grass, lawn, grassland, meadow, turf, grassy, field, pasture, green, verge, infield",
    "trees": "tree, trees, wood, woods, forest, bush, bushes, hedge, hedges, treeline, vegetation, shrubs, wooded, "
    "grove, "
    "palms, foliage, woodland, branches, shrubbery",
    "water": "water, sea, river, lake, pond, canal, bay, ocean, lagoon, creek, stream, channel, basin",
    "paved": "road, street, highway, runway, taxiway, apron, tarmac, asphalt, pavement, driveway, yard, lane, "
    "concrete, "
    "parking, car park, path, footpath, drive, junction, intersection, motorway, lot, plaza, square, alley, roadway, "
    "crossing, sidewalk, walkway",
    "bare": "sand, beach, dirt, soil, sandpit, ground, earth, gravel, mud, clay",
    "shadow": "shadow, shade, shadows, shaded",
    "land": "shore, bank, shoreline, coast, land, shoreside, waterfront, headland, riverbank, embankment",
}
_KIND_HINTS = {
    "large": "truck, bus, lorry, coach, trailer, ferry, tanker, freighter, airliner, jumbo, liner, warship, barge, "
    "caravan",
    "small": "car, sedan, dinghy, kayak, rowboat, motorboat, powerboat, speedboat, van, pickup, suv, taxi, cart, canoe",
}
KIND_HINTS = {word.strip(): hint for hint, words in _KIND_HINTS.items() for word in words.split(",")}
"""Nouns for the large or the small ones of a category."""
GENERAL_NOUNS: dict[str, tuple[str, ...]] = {
    "court": ("tenniscourt", "basketballcourt"),
    "pitch": ("soccerfield", "groundtrackfield"),
    "ballpark": ("baseballfield",),
    "infield": ("baseballfield",),
}
"""Nouns of several categories, the likeliest first."""
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
    ]
)
"""Words that tell no object from another; ``filler`` in the table are those with a place in the grammar."""
SURFACES = {word.strip(): surface for surface, words in _SURFACES.items() for word in words.split(",")}
"""Nouns of what is no category but can be told by colour and texture -> kind of surface."""

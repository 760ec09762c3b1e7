"""Object categories: canonical names, what annotators call them, and where a text mentions them.

The canonical names are RRSIS-D's twenty (ids 0..19, in that order), ``building`` and what later data brought. People
write them in many ways ("plane", "baseball diamond", ``storage_tank``): every such word is an alias here. Two kinds of
look-up exist: :func:`canonical` for a label and :func:`find_mentions` for free text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

__all__ = [
    "CATEGORIES",
    "KINDS",
    "OTHER_COMPOUNDS",
    "Category",
    "Mention",
    "canonical",
    "category_named",
    "find_mentions",
    "kind_of",
    "plural_of",
]


@dataclass(frozen=True)
class Category:
    """One kind of object.

    Attributes:
        name: canonical name, RRSIS-D's spelling.
        display: singular, as a sentence would use it ("ground track field").
        plural: plural of ``display``.
        aliases: other names in singular, lower case, words separated by blanks.
    """

    name: str
    display: str
    plural: str
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class Mention:
    """Words ``start`` to ``stop`` (exclusive) of a text name a category.

    Attributes:
        start: index of the first word.
        stop: index after the last word.
        category: canonical name, or a name of one's own.
        plural: True or False by the word's form; None where both look alike ("aircraft").
    """

    start: int
    stop: int
    category: str
    plural: bool | None


_SIBILANTS = ("s", "x", "z", "ch", "sh")
_SAME_IN_PLURAL = frozenset({"aircraft", "watercraft", "hovercraft"})
_IRREGULAR = {"wharf": ("wharves", "wharfs"), "bus": ("buses", "busses"), "roof": ("roofs", "rooves")}


def plural_of(noun: str) -> str:
    """Plural of an English noun phrase: its last word inflected ("service area" -> "service areas")."""
    return _plurals(noun)[0]


def _plurals(noun: str) -> tuple[str, ...]:
    head, _, last = noun.rpartition(" ")
    lead = f"{head} " if head else ""
    if last in _SAME_IN_PLURAL:
        return (noun,)
    if last in _IRREGULAR:
        return tuple(lead + form for form in _IRREGULAR[last])
    if last.endswith("y") and last[-2:-1] not in set("aeiou"):
        return (f"{lead}{last[:-1]}ies",)
    if last.endswith("man") and len(last) > 3:
        return (f"{lead}{last[:-2]}en",)
    return (f"{lead}{last}es",) if last.endswith(_SIBILANTS) else (f"{lead}{last}s",)


# (canonical name, display name, aliases separated by commas)
_TABLE: tuple[tuple[str, str, str], ...] = (
    (
        "Expressway-Service-area",
        "expressway service area",
        "service area, highway service area, motorway service area, freeway service area, service station, "
        "highway service station, motorway service station, rest area, highway rest area, rest stop, service zone, "
        "expressway service zone, motorway services, roadside service area",
    ),
    (
        "Expressway-toll-station",
        "expressway toll station",
        "toll station, tollstation, toll gate, toll booth, toll plaza, toll house, highway toll station, "
        "freeway toll station, motorway toll station, highway toll gate, expressway toll gate, expressway toll booth, "
        "expressway toll plaza, toll, toll collection station",
    ),
    (
        "airplane",
        "airplane",
        "plane, aeroplane, aircraft, jet, jet plane, airliner, jetliner, air plane, passenger plane, passenger jet, "
        "passenger aircraft, passenger airplane, fighter jet, fighter plane, fighter aircraft, fighter, jet fighter, "
        "bomber, warplane, biplane, seaplane, cargo plane, propeller plane, private jet, transport plane, "
        "military aircraft, civil aircraft",
    ),
    ("airport", "airport", "air port, airfield, aerodrome, air base, airbase, air field, airdrome"),
    (
        "baseballfield",
        "baseball field",
        "baseball diamond, baseball ground, baseball pitch, baseball court, baseball park, ball field, ballfield, "
        "ball diamond, softball field, softball diamond, diamond, baseball stadium, baseball infield",
    ),
    (
        "basketballcourt",
        "basketball court",
        "basketball field, basketball ground, basketball pitch, basketball playground, basket ball court, "
        "basketball playing court",
    ),
    (
        "bridge",
        "bridge",
        "footbridge, foot bridge, suspension bridge, railway bridge, rail bridge, road bridge, highway bridge, "
        "arch bridge, pedestrian bridge, cable stayed bridge, river bridge, sea bridge, truss bridge, "
        "cross sea bridge",
    ),
    (
        "chimney",
        "chimney",
        "smokestack, smoke stack, chimney stack, stack, cooling tower, factory chimney, flue stack, chimneystack",
    ),
    ("dam", "dam", "barrage, weir, reservoir dam, dike, hydropower dam, hydroelectric dam, concrete dam, river dam"),
    ("golffield", "golf field", "golf course, golf ground, golf court, golf club, golf links, golf green, golf area"),
    (
        "groundtrackfield",
        "ground track field",
        "running track, athletics field, athletic field, athletics track, athletic track, track field, ground track, "
        "track and field, track and field stadium, track and field ground, sports track, race track, racetrack, "
        "oval track, track, sports field, sports ground, athletics ground, athletic ground, track oval, "
        "field track, running field, school track, tartan track",
    ),
    (
        "harbor",
        "harbor",
        "harbour, pier, dock, boat slip, floating dock, finger pier, pontoon, boat landing, landing dock, "
        "boat jetty, mooring pier, "
        "ship harbor, ship harbour, wharf, port, seaport, sea port, marina, quay, jetty, dockyard, berth, boat dock, "
        "landing stage, shipyard, mooring, boat harbor, boat harbour, ship dock, boat pier, quayside, docking area",
    ),
    (
        "overpass",
        "overpass",
        "flyover, fly over, overbridge, viaduct, interchange, road overpass, highway overpass, interchange bridge, "
        "grade separation, highway interchange, road interchange, elevated road, elevated highway, over pass, "
        "freeway overpass, expressway overpass",
    ),
    (
        "ship",
        "ship",
        "vessel, boat, powerboat, power boat, workboat, work boat, kayak, canoe, dinghy, skiff, raft, jet ski, "
        "lifeboat, "
        "pontoon boat, motor yacht, motor cruiser, launch, gunboat, patrol boat, cargo ship, container ship, "
        "cruise ship, warship, war ship, freighter, ferry, ferry boat, "
        "ferryboat, fishing boat, fishing ship, fishing vessel, sailboat, sailing boat, sailing ship, yacht, barge, "
        "tanker, oil tanker, tugboat, tug boat, tug, motorboat, motor boat, speedboat, speed boat, steamship, "
        "steamer, watercraft, trawler, cargo vessel, container vessel, passenger ship, merchant ship, frigate, "
        "destroyer, aircraft carrier, catamaran, houseboat, rowboat, cruiser, naval ship, naval vessel, hovercraft, "
        "cruise liner, bulk carrier, cargo boat, passenger boat",
    ),
    (
        "stadium",
        "stadium",
        "arena, sports stadium, football stadium, soccer stadium, sports arena, gymnasium, coliseum, sport stadium, "
        "olympic stadium, athletic stadium",
    ),
    (
        "storagetank",
        "storage tank",
        "oil tank, fuel tank, tank, gas tank, petrol tank, oil storage tank, fuel storage tank, liquid storage tank, "
        "gas storage tank, water tank, petroleum tank, chemical tank, oil drum, silo, storage silo, "
        "gasholder, gas holder, oil depot tank, oil reservoir",
    ),
    (
        "tenniscourt",
        "tennis court",
        "hardcourt, hard court, clay court, grass court, tennis field, tennis ground, tennis pitch, "
        "tennis playground, tennis playing court",
    ),
    (
        "trainstation",
        "train station",
        "railway station, rail station, railroad station, train terminal, railway terminal, train depot, "
        "rail terminal, train stop, railroad terminal",
    ),
    (
        "vehicle",
        "vehicle",
        "car, truck, van, bus, lorry, automobile, auto, pickup, pickup truck, pick up truck, sedan, suv, minivan, "
        "minibus, mini bus, coach, taxi, cab, motorcar, motor car, motor vehicle, jeep, tank truck, tanker truck, "
        "box truck, dump truck, trailer truck, semi truck, trailer, passenger car, passenger vehicle, tractor, "
        "motor truck, school bus, tour bus, limousine, campervan, camper van, delivery van, delivery truck, "
        "fire truck, fire engine, engineering vehicle, cargo truck, heavy truck, rv, wagon, caravan, motorhome, "
        "cart, ambulance, forklift, golf cart, hatchback, tow truck, service vehicle, "
        "articulated lorry, articulated bus, double bus, boxcar truck, small vehicle, large vehicle",
    ),
    (
        "windmill",
        "windmill",
        "wind mill, wind turbine, turbine, wind power generator, wind generator, wind power tower, "
        "wind power station, "
        "wind tower, wind power turbine, wind wheel",
    ),
    (
        "building",
        "building",
        "house, home, roof, rooftop, roof top, villa, hut, shed, warehouse, barn, cottage, bungalow, cabin, hangar, "
        "residence, dwelling, residential building, office building, apartment building, apartment block, apartment, "
        "industrial building, factory building, factory, commercial building, skyscraper, high rise, high rise "
        "building, tower block, office block, garage, farmhouse, farm house, church, mansion, storehouse, terminal "
        "building, airport terminal, greenhouse, townhouse, town house, row house, outbuilding, school building, "
        "storage building, housing block, housetop, edifice, building footprint, building roof, house roof, "
        "train shed",
    ),
    ("helicopter", "helicopter", "chopper, copter, rotorcraft, military helicopter"),
    (
        "swimmingpool",
        "swimming pool",
        "pool, outdoor pool, outdoor swimming pool, backyard pool, paddling pool, lap pool, private pool",
    ),
    ("roundabout", "roundabout", "traffic circle, rotary, traffic roundabout, circular intersection, traffic island"),
    (
        "soccerfield",
        "soccer field",
        "soccer pitch, football field, football pitch, football ground, soccer ground, soccer ball field, "
        "soccer ball pitch",
    ),
)

# (kind, what it is a kind of, aliases separated by commas): told apart by who knows them, else the category.
_KIND_TABLE: tuple[tuple[str, str, str], ...] = (
    (
        "small vehicle",
        "vehicle",
        "car, automobile, auto, sedan, suv, minivan, taxi, cab, motorcar, motor car, jeep, passenger car, van, pickup, "
        "pickup truck, pick up truck, wagon, limousine",
    ),
    (
        "large vehicle",
        "vehicle",
        "truck, bus, lorry, minibus, mini bus, coach, tank truck, tanker truck, box truck, dump truck, trailer truck, "
        "semi truck, trailer, motor truck, school bus, tour bus, delivery truck, fire truck, fire engine, "
        "engineering vehicle, cargo truck, heavy truck",
    ),
)

CATEGORIES: Mapping[str, Category] = MappingProxyType(
    {
        name: Category(name, display, plural_of(display), tuple(dict.fromkeys(a.strip() for a in aliases.split(","))))
        for name, display, aliases in _TABLE
    }
)
"""Canonical name -> :class:`Category`, RRSIS-D's ids 0..19 first, then ``building`` and what other data brought."""

KINDS: Mapping[str, str] = MappingProxyType({kind: of for kind, of, _ in _KIND_TABLE})
"""Kinds that some data tells apart within a category -> the category: both words stay aliases of the category."""

_COMPOUNDS = (
    "car park, parking lot, bus stop, bus station, bus terminal, boat house, truck stop, car wash, bus lane, "
    "jet bridge, boarding bridge, air bridge, passenger bridge, loading bridge, kart track, go kart track, race car, "
    "bridge pier, car lane, tank farm, stack interchange, rugby field, hockey field, cricket field, volleyball "
    "court, badminton court, handball court, squash court, train track, railway track, railroad track, rail "
    "track, container crane, dock crane, home plate, track lane, harbor crane, harbour crane, port crane, airport "
    "runway, airport taxiway, airport apron, building site, construction site, construction area, bus depot, "
    "ferry terminal, tennis ball, car dealership, roof garden, vehicle lane, home run"
)
OTHER_COMPOUNDS = tuple(_COMPOUNDS.split(", "))
"""Names of things that are no category although a category's name is in them."""

_SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015]+")


def _squash(text: str) -> str:
    return _SEPARATORS.sub("", text.lower())


_Forms = dict[str, tuple[str | None, bool | None]]


def _index(named: Sequence[tuple[str | None, Sequence[str]]]) -> tuple[_Forms, int]:
    """Squashed singular or plural form -> (category, is plural); and the length in words of the longest form."""
    forms: _Forms = {}
    longest = 1
    for name, nouns in named:
        for noun in nouns:
            longest = max(longest, noun.count(" ") + 1)
            plurals = _plurals(noun)
            forms.setdefault(_squash(noun), (name, None if noun in plurals else False))
            for plural in plurals:
                forms.setdefault(_squash(plural), (name, True))
    return forms, longest


_KIND_NOUNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {kind: (kind, *(noun.strip() for noun in nouns.split(","))) for kind, _, nouns in _KIND_TABLE}
)

_FORMS, _LONGEST = _index(
    [
        *((c.name, (_SEPARATORS.sub(" ", c.name.lower()), c.display, *c.aliases)) for c in CATEGORIES.values()),
        *((KINDS[kind], nouns) for kind, nouns in _KIND_NOUNS.items()),
        (None, OTHER_COMPOUNDS),
    ]
)


@lru_cache(maxsize=64)
def _index_with(own: frozenset[str]) -> tuple[_Forms, int]:
    """The index with names of one's own, which go before all others."""
    named: list[tuple[str | None, Sequence[str]]] = [
        (name, (name,)) for name in sorted(own - CATEGORIES.keys() - KINDS.keys())
    ]
    forms, longest = _index([*named, *((kind, nouns) for kind, nouns in _KIND_NOUNS.items() if kind in own)])
    return {**_FORMS, **forms}, max(longest, _LONGEST)


def category_named(name: str) -> Category:
    """The category of a canonical name, or one made up for any other name."""
    return CATEGORIES.get(name) or Category(name, name, plural_of(name), ())


def canonical(label: str) -> str | None:
    """Canonical name of a label or alias, singular or plural; None if it is none.

    Case, blanks, ``_`` and ``-`` are ignored: ``"Baseball_Diamonds"`` -> ``"baseballfield"``.
    """
    return _FORMS.get(_squash(label), (None, None))[0]


def category_name(label: str) -> str:
    """The canonical name behind a label, or the label itself, lower case with single blanks ("Solar_Panel" ->
    "solar panel"), where it names no canonical category.
    """
    return canonical(label) or " ".join(label.lower().replace("_", " ").replace("-", " ").split())


_KIND_LABELS = {
    _squash(form): kind for kind, nouns in _KIND_NOUNS.items() for noun in nouns for form in (noun, *_plurals(noun))
}


def kind_of(label: str) -> str | None:
    """The kind that a label names, as ``canonical`` reads it ("Trucks" -> "large vehicle"); None for other labels."""
    return _KIND_LABELS.get(_squash(label))


_PREPOSITIONS = frozenset(["in", "on", "at", "by", "to"])


def find_mentions(words: Sequence[str], own: Collection[str] = ()) -> list[Mention]:
    """Category words in a text, given as its words in order; the longest match at each place wins.

    So "ground track field" is one mention and not "track", and "car park" is none. Hyphens inside a word are ignored.

    Args:
        words: of the text.
        own: names of further categories, singular, lower case, words separated by blanks; canonical ones are passed
            over. With a kind among them ("large vehicle") its words name the kind, else what it is a kind of.
    """
    forms, most = _index_with(frozenset(own))
    squashed = [_squash(word) for word in words]
    found: list[Mention] = []
    start = 0
    while start < len(words):
        stop = start + 1
        for length in range(min(most, len(words) - start), 0, -1):
            if length > 1 and not _PREPOSITIONS.isdisjoint(words[start : start + length]):
                continue  # "a red cab in the yard" has no cabin
            key = "".join(squashed[start : start + length])
            if key in forms and squashed[start] and squashed[start + length - 1]:
                category, plural = forms[key]
                stop = start + length
                if category is not None:
                    found.append(Mention(start, stop, category, plural))
                break
        start = stop
    return found

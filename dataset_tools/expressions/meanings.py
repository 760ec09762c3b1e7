"""Nouns that name a category with less than certainty: what people may mean, the likeliest first.

Made by hand for the field's words. The names and aliases of ``dataset_tools.categories`` are certain; what is here is
taken for a category where nothing better is known, says so (``reading``), and lowers the chance of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from dataset_tools.categories import canonical

__all__ = ["AIRPLANE_PARTS", "ANYWHERE", "MEANINGS", "certainty_of", "meanings_of"]

Meanings = tuple[tuple[str, float], ...]

_TABLE: dict[tuple[tuple[str, float], ...], str] = {
    (("tenniscourt", 0.6), ("basketballcourt", 0.4)): "court",
    (("soccerfield", 0.7), ("groundtrackfield", 0.2), ("baseballfield", 0.1)): "pitch, playing field, sports pitch",
    (("baseballfield", 0.95),): "ballpark, ball park, infield, little league field, baseball",
    (("soccerfield", 0.9),): "futsal pitch, astroturf, astro turf, soccer",
    (("groundtrackfield", 0.85),): "athletics oval, cinder track, stadium track, race course",
    (("tenniscourt", 0.95),): "tennis surface, tennis",
    (("basketballcourt", 0.9),): "bball court, b ball court, hoops court, half court, hoop court, streetball court, "
    "basketball",
    (("vehicle", 0.95),): "mixer, cement mixer, concrete mixer, tipper, semi, eighteen wheeler, dumper, ute, "
    "estate car, convertible, coupe, cabriolet, people carrier, artic, juggernaut, big rig, flatbed, camper, "
    "motorbike, digger, excavator, bulldozer, loader, backhoe, crane truck, transporter, tug truck, hearse, minicab, "
    "buggy, snowplow, street sweeper, water truck, articulated truck, truck trailer, semitrailer, semi trailer, rig",
    (("ship", 0.95),): "craft, cutter, ketch, sloop, schooner, cabin boat, inflatable, rib, punt, pedalo, pedal boat, "
    "ro ro, roro, lighter, dredger, dredge, gondola, longboat, narrowboat, scow, sailer, bowrider, liner, supertanker, "
    "corvette, submarine, vlcc, lcs, amphibious ship, supply vessel, pilot boat",
    (
        ("harbor", 0.85),
    ): "mole, gangway, boardwalk, landing, boat lift, boatlift, slipway, slip, boat ramp, boat stage, "
    "dolphin, breakwater, catwalk, float, floats, finger, fingers, boat platform",
    (("airplane", 0.95),): "airbus, boeing, turboprop, prop plane, widebody, wide body, narrowbody, business jet, "
    "learjet, cessna, glider, drone, freighter plane, jetliner plane, crop duster, floatplane, "
    "twinjet, trainer plane, a300, a310, a318, a319, a320, a321, a330, a340, a350, a380, b52, b17, b29, "
    "c130, c17, c47, c141, kc135, kc10, f14, f15, f16, f18, f22, f35, a10, t38, mig21, mig29, su27, "
    "il76, tu154, an124, an225, md80, md11, dc3, dc8, dc9, dc10, crj, erj, atr, hercules, galaxy, starlifter",
    (("airplane", 0.85),): "wing, nose, tail, fuselage, tailplane, wingtip, cockpit, nose cone",
    (("helicopter", 0.95),): "heli, whirlybird, gunship, helo",
    (("storagetank", 0.9),): "vat, cistern, container tank, drum, gasometer, digester, oil container, round tank, "
    "cylinder, silo tank",
    (("swimmingpool", 0.9),): "plunge pool, jacuzzi, hot tub, spa, whirlpool, swimming basin, swimming bath, lido",
    (("building", 0.9),): "office, store, shop, mall, supermarket, school, hospital, hotel, "
    "boathouse, pool house, clubhouse, club house, carport, stable, chapel, terraced house, semi detached "
    "house, duplex, condo, flats, tenement, lodge, pavilion, annex, annexe, outhouse, summerhouse, conservatory, "
    "kiosk, mosque, temple, cathedral, palace, castle, dorm, dormitory",
    (("bridge", 0.85),): "span, causeway, aqueduct",
    (("roundabout", 0.9),): "turning circle, gyratory, rond point, circle junction, road circle",
    (("overpass", 0.85),): "cloverleaf, spaghetti junction, slip road bridge, motorway junction, skyway",
    (("chimney", 0.85),): "flue, funnel, smoke tower",
    (("windmill", 0.9),): "wind wheel tower, aerogenerator",
    (("stadium", 0.85),): "bowl, amphitheatre, amphitheater, ball stadium",
    (("golffield", 0.9),): "fairway, putting green, links course, driving range",
    (("dam", 0.85),): "barrier dam, sluice, lock gate, embankment dam",
    (("trainstation", 0.85),): "metro station, subway station, tram depot, railhead",
    (("airport", 0.85),): "airstrip, landing strip, air terminal",
}

MEANINGS: Mapping[str, Meanings] = MappingProxyType(
    {noun.strip(): meant for meant, nouns in _TABLE.items() for noun in nouns.split(",")}
)
"""Noun, singular -> (category, certainty in (0, 1)), the likeliest first."""


AIRPLANE_PARTS = frozenset(["tail", "nose", "wing", "wings", "cockpit", "fuselage", "tailplane", "wingtip", "cone"])
"""Last words of what stands for the airplane, where that is what is described ("wing tip at the border")."""
ANYWHERE = frozenset(["court", "pitch", "ballpark", "infield"])
"""Of these the words that name it wherever they stand; the others only as the head of what is described."""


@lru_cache(maxsize=4096)
def meanings_of(noun: str) -> Meanings:
    """What a noun, or its plural, may mean, by as many of its last words as the table holds; empty for one of
    ``dataset_tools.categories`` and where the table holds none."""
    words = [] if canonical(noun) else noun.split()
    for start in range(max(0, len(words) - 3), len(words)):
        last = " ".join(words[start:])
        for form in (last, last.removesuffix("s"), last.removesuffix("es")):
            if form in MEANINGS:
                return MEANINGS[form]
    return ()


def certainty_of(noun: str) -> float:
    """How sure it is that the noun names one of its meanings, in (0, 1]; 1 for a noun that is not in the table."""
    meant = meanings_of(noun)
    return min(1.0, sum(certainty for _, certainty in meant)) if meant else 1.0

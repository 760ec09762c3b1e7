"""Reads what belongs to an object: "with a red tail", "whose roof is grey", "with a car beside it"."""

from __future__ import annotations

from dataclasses import replace

from dataset_tools.expressions.descriptive_words import HARMLESS, SURFACES
from dataset_tools.expressions.grammar.noun_phrase import NounPhrase
from dataset_tools.expressions.grammar.places import Places
from dataset_tools.expressions.query import Color, Extreme, Part, Place, Query, Relation, State, opposite

__all__ = ["MEASURES", "PARTS", "Belongings"]

_ROOFED = ("building", "stadium", "trainstation", "airport")
PARTS = frozenset(
    [
        "roof",
        "rooftop",
        "cabin",
        "cover",
        "tarp",
        "deck",
        "tail",
        "hull",
        "stern",
        "bow",
        "top",
        "cap",
        "tarpaulin",
        "nose",
        "cab",
        "wing",
        "wings",
        "rotor",
        "engines",
        "blades",
        "surround",
        "surroundings",
        "border",
        "outline",
        "lines",
        "stripes",
        "markings",
        "infield",
        "cargo",
        "load",
        "body",
        "fuselage",
        "hood",
        "windshield",
        "bonnet",
        "box",
        "bed",
    ]
)
"""Nouns of what belongs to the object itself, even where they may name a building."""
_OUTSIDE = ("outer", "inner", "outside", "inside")
MEASURES = ("wingspan", "diameter", "length", "width", "size", "area", "extent")
"""Nouns of what is measured of an object: "with the largest wingspan"."""


class Belongings(Places):
    """What an object has, and what is beside it."""

    def _with(self, phrase: NounPhrase, depth: int) -> None:
        """ "with a bridge to its left": the bridge is left of it, so it lies right of the bridge."""
        self.skip("image_part")
        if self._lines_ahead():  # "with clear white lines": no row
            while self.peek().kind in ("filler", "unknown", "article"):  # "with the faded lines"
                word = self.take()
                phrase.unread += [word.text] if word.kind == "unknown" and word.text not in HARMLESS else []
            part = self._unnamed_part(depth)
            self._part(phrase, replace(part, noun=self.take().text))
            self._skip_its()
        if not self.starts_noun(or_unknown=True, or_one=True) and self._colored_ahead():  # "with a small white square"
            self._part(phrase, self._unnamed_part(depth))
            self._skip_its()
        while self.starts_noun(or_unknown=True, or_one=True):
            target = self.target(depth)
            self._to_inverse()
            if not target.noun and phrase.category is not None and self.peek().kind == "inverse":
                self._beside(phrase, replace(target, category=phrase.category))  # "with a white one beside it"
            elif target.category is None or self._is_roof(target, phrase):
                self._part(phrase, target)
            elif target.category == phrase.category and not target.count and self.peek().kind != "inverse":
                # "the house with a red roof"
                phrase.constraints += target.constraints
                phrase.unread += target.unread
            else:
                self._beside(phrase, target)
            self._skip_its()
            if not (self.peek().kind == "and" and self._noun_after_and()):
                return
            self.at += 1

    def _colored_ahead(self) -> bool:
        """Whether a colour comes next that is no noun's: "a small white square", "red edges"."""
        ahead, kinds = int(self.peek().kind in ("article", "indefinite")), set[str]()
        while self.peek(ahead).kind in ("color", "size", "shape") or self.peek(ahead).text in _OUTSIDE:
            kinds.add(self.peek(ahead).kind)
            ahead += 1
        return {"color", "shape"} <= kinds or ("color" in kinds and self._ends_part(ahead))

    def _lines_ahead(self) -> bool:
        ahead = 0
        while self.peek(ahead).kind in ("color", "size", "shape", "article", "indefinite", "filler", "unknown"):
            ahead += 1
        return self.peek(ahead).text in ("line", "lines") and self.peek(ahead + 1).kind != "of"

    def _ends_part(self, ahead: int) -> bool:
        """Whether a word for a part of anything comes ``ahead``: "red edges", "a dark top"."""
        if self.peek(ahead).kind == "direction":
            return self.peek(ahead + 1).kind in ("end", "break", "and", "on", "in", "of", "near", "from")
        return self.peek(ahead).kind in ("part", "image_part")

    def _skip_its(self) -> None:
        """Past where a part is on its object: "over it", "at its outer end"."""
        if self.peek().kind in ("on", "in", "over", "near", "surrounded") and self.peek(1).text == "it":
            self.at += 2
        elif self.peek().kind in ("on", "in", "near") and self.peek(1).kind in ("own", "indefinite", "one", "number"):
            self.at += 1
            if not self.skip_its_end():
                self.at -= 1

    def skip_its_end(self) -> bool:
        """Past "its outer end", "one corner"; False, and nothing taken, if no such part comes."""
        ahead = 1
        while self.peek(ahead).kind in ("unknown", "direction", "extreme", "most", "far", "size"):
            ahead += 1
        if ahead > 4 or self.peek(ahead).kind not in ("part", "image_part"):
            return False
        self.at += ahead + 1
        return True

    def _to_inverse(self) -> None:
        """Past "(with a red car) parked (next to it)"."""
        start = self.at
        self.skip("copula", "filler")
        if self.peek().kind != "inverse":
            self.at = start

    def _noun_after_and(self) -> bool:
        self.at += 1
        found = self.starts_noun(or_unknown=True)
        self.at -= 1
        return found

    @staticmethod
    def _is_roof(target: Query, phrase: NounPhrase) -> bool:
        return target.noun.split()[-1:] != [] and target.noun.split()[-1] in PARTS and phrase.category not in _ROOFED

    def _beside(self, phrase: NounPhrase, target: Query) -> None:
        said = self.take() if self.peek().kind == "inverse" else None
        direction = said.value if said else None
        if (
            said and said.text.split()[1:2] in (["both"], ["either"]) and direction is None and target.is_all
        ):  # "with trucks on both sides"
            phrase.add(Relation("between", (target,)))
        elif direction is None:
            phrase.add(Relation("near", (target,)))
        while direction:
            phrase.add(Relation("direction", (target,), opposite(direction)))
            direction = None
            if self.peek().kind == "and" and self.peek(1).kind in ("direction", "inverse"):  # "to its left and right"
                self.at += 1
                direction = self.take().value

    def _part(self, phrase: NounPhrase, part: Query) -> None:
        """ "with a red tail": the colours of a part; where it is said to lie, the object lies ("with a cover, inside
        the upper dock")."""
        if any(word in MEASURES for word in part.noun.split()):
            phrase.constraints += part.constraints
            return
        colors = [c.name for c in part.constraints if isinstance(c, Color) and not c.negated]
        colors += [c.color for c in part.constraints if isinstance(c, Part) and not c.negated]
        for color in colors:
            phrase.add(Part(color, part.noun))
        places = [c for c in part.constraints if isinstance(c, Place | Extreme | Relation)]
        for place in places:
            inner = isinstance(place, Place) and place.direction == (0, 0) and len(places) == 1
            if not inner:  # "with trees in the middle"
                phrase.add(place)
        if not colors:
            surface = next((SURFACES[w] for w in reversed(part.noun.split()) if w in SURFACES), None)
            if surface in ("trees", "grass", "water"):
                phrase.add(Relation("near", (part,)))
            elif part.noun:
                phrase.unread.append(part.noun)
        phrase.unread += part.unread

    def _own_part(self, phrase: NounPhrase, depth: int) -> None:
        """ "its tail is red", "whose white top ...", "whose upper half is outside the photo"."""
        if self._cut_part(phrase):
            return
        target = self.target(depth) if self.starts_noun(or_unknown=True) else self._unnamed_part(depth)
        if self.peek().kind == "copula" and self.peek(1).kind == "color":
            self.at += 1
            colors = []
            while self.peek().kind == "color" or (self.peek().kind == "and" and self.peek(1).kind == "color"):
                word = self.take()
                colors += [Color(word.value)] if word.kind == "color" else []
            target = replace(target, constraints=(*target.constraints, *colors))
        if target.category == phrase.category:
            phrase.constraints += target.constraints
            phrase.unread += target.unread
        elif target.category is None or self._is_roof(target, phrase):
            self._part(phrase, target)
        else:
            phrase.unread.append(target.noun)

    def _cut_part(self, phrase: NounPhrase) -> bool:
        """Past "(whose) upper half is outside the photo": cut by that border; False, and nothing taken, if not."""
        start = self.at
        self.skip("article")
        position = self.position()
        self.skip("copula", "filler")
        gone = self.peek()
        self.at += 1
        self.skip("article", "of")
        out = gone.text in ("outside", "outside of", "beyond", "off") and self.peek().kind in (
            "frame",
            "part",
            "direction",
        )
        if position is None or not (out or (gone.kind == "state" and gone.value == "cut") or gone.text == "missing"):
            self.at = start
            return False
        if not self.take_edge():
            self.skip("frame")
        phrase.add(State("cut", position.direction))
        return True

    def take_edge(self) -> bool:
        """Past "by the right edge of the image" after "cut off"; False, and nothing taken, if it is not that."""
        start = self.at
        while self.peek().kind in ("near", "article", "direction", "part", "on", "in", "of", "frame", "filler"):
            self.at += 1
        if self.peek(-1).kind in ("part", "frame", "image_part"):
            return True
        self.at = start
        return False

    def _unnamed_part(self, depth: int) -> Query:
        """ "its white top": the part has no noun of its own."""
        scratch = NounPhrase(root=False)
        self.skip("article", "indefinite")
        while (
            self.peek().kind in ("color", "size", "shape", "direction", "part", "image_part")
            or self.peek().text in _OUTSIDE
        ):
            if self.peek().text in _OUTSIDE:
                self.at += 1
                continue
            before = self.at
            self.modifier(scratch, depth)
            self.at = max(self.at, before + 1)
        return replace(scratch.query(), constraints=tuple(c for c in scratch.constraints if isinstance(c, Color)))

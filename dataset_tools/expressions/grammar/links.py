"""Reads prepositions, relations and possessives, with the noun phrases that follow them."""

from __future__ import annotations

from dataclasses import replace

from dataset_tools.expressions.grammar.belongings import MEASURES
from dataset_tools.expressions.grammar.exclusions import Exclusions
from dataset_tools.expressions.grammar.noun_phrase import NounPhrase, ranked
from dataset_tools.expressions.grammar.places import MAX_DEPTH, as_members
from dataset_tools.expressions.lexicon import Lexeme
from dataset_tools.expressions.meanings import AIRPLANE_PARTS
from dataset_tools.expressions.query import (
    Color,
    Direction,
    Extreme,
    Part,
    Place,
    Query,
    Relation,
    RelationKind,
    Shape,
    State,
    opposite,
)

__all__ = ["Links"]

_RELATIONS: dict[str, RelationKind] = {
    "near": "near",
    "far_from": "far",
    "on": "on",
    "in": "in",
    "surrounded": "surrounded",
    "holds": "holds",
    "similar": "similar",
}
_SKIPPED = ("filler", "one", "unknown", "article", "frame", "part", "image_part", "inverse", "there", "possessive",
            "sort")  # fmt: skip
_ENDS = tuple(f" {end} of" for end in ("the end", "very end", "the head", "the front", "the back", "the start",
                                       "the beginning", "the foot", "the tail"))  # fmt: skip
"""How a preposition that names an end ends; "in front of" names none."""
_TELLING = ("relative", "over", "between", "nearest", "surrounded", "near")


class Links(Exclusions):
    """What ties one noun phrase to another."""

    def link(self, phrase: NounPhrase, lexeme: Lexeme, depth: int) -> None:
        """A preposition or relation, with the noun phrase that follows."""
        kind = lexeme.kind
        if kind == "partword":  # "striped" without a colour
            if self.peek().kind != "color":
                phrase.unread.append(lexeme.text)
            return
        if kind == "there" and lexeme.text == "where" and phrase.has_noun and self.starts_noun():
            self._with(phrase, depth)  # "where a red car is parked next to it"
            return
        if kind == "ground":  # "a boat out of the water"
            phrase.close_pending()
            phrase.add(Relation("on", (Query("land", noun="land", unknown_words=("land",)),)))
            return
        if kind == "inverse" and lexeme.text == "alongside" and self.starts_noun(or_unknown=True, or_one=True):
            phrase.close_pending()
            self.relate(phrase, "near", depth)  # "alongside the dark shed", not "with a boat alongside"
            return
        if kind == "inverse" and self.antecedent is not None and phrase.root:  # "not the big one but the one above it"
            of = (replace(self.antecedent, category=self._kind_of(phrase)),)
            phrase.add(Relation("near", of) if lexeme.value is None else Relation("direction", of, lexeme.value))
            return
        if kind == "image_part" and not phrase.root and not phrase.has_noun:  # "in the grey part"
            phrase.noun, phrase.has_noun = lexeme.text, True
            return
        if kind in ("part", "image_part") and phrase.pending and not phrase.has_noun and self.peek().kind == "of":
            phrase.unread += phrase.pending  # "the outer end of the pier"
            phrase.pending = []
        if kind == "image_part" and lexeme.text == "corner" and phrase.root and not phrase.has_noun:
            self.end_of_image(phrase, lexeme)
            return
        if kind in ("near", "on", "in") and phrase.root and self.peek().kind == "own" and self.skip_its_end():
            return
        if kind in _SKIPPED:
            if lexeme.text in ("that", "which", "located", "there"):
                phrase.close_pending()
            return
        if kind == "heading":  # where an object points to is not where it lies; what it faces is near
            heading = self.take_heading()
            if heading is not None:
                x, y = heading
                phrase.add(Shape("vertical" if not x else "diagonal" if y else "horizontal"))
            elif lexeme.text in ("facing", "faces"):
                self.relate(phrase, "near", depth)
            return
        phrase.close_pending()
        if (
            kind in ("in", "of", "on") or lexeme.text in ("at", "along") or lexeme.text.endswith(_ENDS)
        ) and self.group_ahead():
            phrase.plural = phrase.plural and phrase.has_noun
            self.take_group(phrase, depth, partitive=not phrase.has_noun)
            if lexeme.text.endswith(_ENDS):
                phrase.add(State("end"))
        elif kind == "category":  # a second noun without a link: "ship harbor", "house whose roof is red"
            self.at -= 1
            self._possessor(phrase, depth)
        elif kind == "of":
            self._partitive(phrase, depth)
        elif kind == "relative" and phrase.rank is not None and lexeme.text in ("up from", "down from"):
            self.place(phrase, depth, extreme=True)  # "the third one up from the bottom"
        elif kind == "relative":
            direction = self.more_direction(lexeme.value)
            if self.takes_center():  # "just above the middle of the picture"
                phrase.add(Place(direction, of_image=True))
                return
            if not self.relate(phrase, "direction", depth, direction):  # "the ship below", "lower than the other"
                phrase.add(Place(direction, of_image=False))
        elif kind == "over":
            if not self.relate(phrase, "on", depth, lexeme.value):
                phrase.add(Place(lexeme.value, of_image=False))
        elif kind == "than":  # "closer to the bridge than the other ships"
            self.target(depth)
        elif kind == "between":
            self.relate(phrase, "between", depth)
        elif kind == "with":
            self._with(phrase, depth)
        elif kind == "without":
            self._without(phrase, depth)
        elif kind == "own":
            self._own_part(phrase, depth)
        elif kind in ("nearest", "farthest"):
            self._ranked_distance(phrase, lexeme, depth)
        elif kind in ("from", "to"):
            if not self.place(phrase, depth, extreme=kind == "from"):
                if kind == "from" and phrase.rank is not None and self.starts_noun(or_unknown=True):
                    self.relate(phrase, "nearest", depth)  # "the second house from the corner"
                elif any(self.before(self.at - n).kind in ("most", "far") for n in (1, 2)):
                    self.relate(phrase, "farthest", depth)  # "farther out from the quay"
                elif (
                    not self._resume(phrase, depth)
                    and kind == "from"
                    and phrase.has_noun
                    and self.starts_noun(or_unknown=True)
                ):
                    self.relate(phrase, "near", depth)  # "sticking out from the shore"
            elif phrase.is_last and phrase.rank == 1 and lexeme.text.startswith(("count", "start")):
                last = phrase.constraints[-1] if phrase.constraints else None
                if isinstance(last, Extreme):  # "the last one, counting from the top"
                    phrase.constraints[-1] = replace(last, direction=opposite(last.direction))
        elif kind == "holds" and not self.starts_noun(or_unknown=True):
            pass  # "that has the largest wingspan": its own measure
        elif kind == "in" and self.peek().kind == "color" and not self.starts_noun(or_unknown=True, or_one=True):
            pass  # "the jet in grey and green"
        elif kind in ("near", "on", "in") and self.peek().kind in _TELLING:
            pass  # "standing in next to the road": what comes says how
        elif lexeme.text == "outside" and self.group_ahead():  # "outside the row"
            phrase.negate, before = True, phrase.negate
            self.take_group(phrase, depth, partitive=True)
            phrase.negate = before
        elif kind == "near" and self.peek().kind in ("in", "of", "from", "with", "end", "break"):
            if lexeme.text not in ("along", "around", "nearby", "near by"):  # "the house opposite"
                phrase.unread.append(lexeme.text)
        elif kind in _RELATIONS and not self.place(phrase, depth):
            said = kind not in ("near", "far_from", "surrounded") or self.peek().kind == "own"
            if not (self.relate(phrase, _RELATIONS[kind], depth) or said):
                phrase.unread.append(lexeme.text)

    def _ranked_distance(self, phrase: NounPhrase, lexeme: Lexeme, depth: int) -> None:
        """ "closest to the left edge" is an extreme; "closest to the bridge" and "the closest ship to ..." relate."""
        start = self.at
        nearest = lexeme.kind == "nearest"
        self.skip("to", "from", "article")
        if self.peek().kind == "frame" and self.peek(1).kind in ("direction", "extreme"):  # "the image's left edge"
            self.at += 1
        if self.is_place() and self.take_position(phrase, depth, extreme=nearest, reverse=not nearest):
            return
        if nearest and phrase.root and self.peek().text in ("corner", "edge", "border") and self.peek(1).kind != "of":
            self.end_of_image(phrase, self.take())
            return
        self.at = start
        self.skip("to", "from")
        kind: RelationKind = "nearest" if nearest else "farthest"
        if not phrase.has_noun and phrase.root and lexeme.text in ("nearest", "closest", "closer", "nearer"):
            phrase.constraints.append(Relation(kind, ()))
        else:
            self.relate(phrase, kind, depth)

    def _resume(self, phrase: NounPhrase, depth: int) -> bool:
        """The "to the bridge" of "the nearest ship to the bridge"."""
        waiting = next((c for c in phrase.constraints if isinstance(c, Relation) and not c.targets), None)
        if waiting:
            phrase.constraints.remove(waiting)
            self.relate(phrase, waiting.kind, depth)
        return waiting is not None

    def relate(self, phrase: NounPhrase, kind: RelationKind, depth: int, direction: Direction = (None, None)) -> bool:
        """Reads the target, and more targets after "and"; whether there was one."""
        if self.peek().text in ("it", "that one", "this one") and self.antecedent is not None:
            self.at += 1
            phrase.add(Relation(kind, (replace(self.antecedent, category=self._kind_of(phrase)),), direction))
            return True
        found = False
        if self.peek().kind == "break" and self.peek().text in (".", ";", "!", "?"):  # "they lie around; the left one"
            return False
        while True:
            start = self.at
            targets = [self.target(depth, one_of_two=kind == "between")]
            is_one = any(word.kind == "one" for word in self.words[start : self.at])
            if kind == "between" and self._take_and_before_second():
                targets.append(self.target(depth))
                if not (targets[0].noun or is_one):  # "between the red and the blue ship"
                    targets[0] = replace(targets[0], category=targets[1].category, noun=targets[1].noun)
            covered = kind in ("on", "in") and direction != (None, None)
            if covered and len(targets) == 1 and targets[0].category is None and self._is_roof(targets[0], phrase):
                self._part(phrase, targets[0])  # "under a dark tarp"
                return True
            if kind == "surrounded" and not targets[0].noun and targets[0].constraints:
                colors = [c for c in targets[0].constraints if isinstance(c, Color)]
                if len(colors) == len(targets[0].constraints):  # "surrounded by green"
                    phrase.constraints += [Part(color.name, "surround") for color in colors]
                    return True
            targets = [self._whole(t, phrase) for t in targets]
            if (
                kind in ("near", "on", "in")
                and self._names_end(start)
                and targets[0].category not in (None, phrase.category)
            ):
                kind = "end"
            known = tuple(
                t if t.noun else replace(t, category=phrase.category)
                for t in targets
                if t.noun or t.constraints or (t.is_all and kind not in ("on", "in"))
            )
            phrase.unread += [word for t in targets if not (t.noun or t.constraints) for word in t.unread]
            if known:
                found = True
                phrase.add(Relation(kind, known, direction))
            elif targets[0].count:  # "between the two"
                found = True
                phrase.add(Relation(kind, (replace(targets[0], category=phrase.category),), direction))
            if not (phrase.has_noun and self.take_and_before_noun()):
                return found

    def _names_end(self, start: int) -> bool:
        """Whether an end of it was named: "at the end of the pier", "the pier's outer end"."""
        read = self.words[start : self.at]
        ends = [n for n, word in enumerate(read) if word.kind == "part" and word.text in ("end", "tip")]
        return self.before(start).text.endswith(_ENDS) or any(
            [word.kind for word in read[n + 1 : n + 2]] == ["of"] or any(word.kind == "possessive" for word in read[:n])
            for n in ends
        )

    def _kind_of(self, phrase: NounPhrase) -> str | None:
        """The category of what "it" stands for, which may be named by the phrase only."""
        return self.antecedent.category if self.antecedent and self.antecedent.category else phrase.category

    @staticmethod
    def _whole(target: Query, phrase: NounPhrase) -> Query:
        """ "below the wing of the lower plane": the plane stands for its parts, where it is not asked for itself."""
        last = target.noun.split()[-1:]
        if target.category == "airplane" != phrase.category:  # "left of the plane's tail"
            return replace(target, unread=tuple(word for word in target.unread if word not in AIRPLANE_PARTS))
        if target.category is not None or phrase.category in (None, "airplane") or not AIRPLANE_PARTS & set(last):
            return target
        for relation in target.constraints:
            if isinstance(relation, Relation) and relation.targets[0].category == "airplane":
                return relation.targets[0]
        return replace(target, category="airplane", unknown_words=())

    def _take_and_before_second(self) -> bool:
        """Past the "and" of "between the first one and the third"."""
        if self.take_and_before_noun(or_unknown=True, or_one=True):
            return True
        ahead = 2 if self.peek(1).kind == "article" else 1
        if self.peek().kind == "and" and self.peek(ahead).kind in ("ordinal", "extreme", "direction"):
            self.at += 1
            return True
        return False

    def _partitive(self, phrase: NounPhrase, depth: int) -> None:
        """ "the largest of the ships", "a group of ships"; otherwise ("the ships of the harbor") nearness."""
        if self.peek().kind == "frame" or depth >= MAX_DEPTH:
            return
        if phrase.category is not None or phrase.noun:
            self._possessor(phrase, depth)
            return
        partitive = phrase.selects and not phrase.all and phrase.count in (None, 1)
        pool = self.noun_phrase(root=False, depth=depth + 1)
        pool.close_pending()
        phrase.category, phrase.noun, phrase.has_noun = pool.category, pool.noun, True
        phrase.plural, phrase.partitive, phrase.hint = pool.plural, partitive, pool.hint
        phrase.unread += pool.unread
        if partitive and pool.count is not None and pool.count > 1:
            phrase.constraints.insert(0, as_members(pool.query()))
        else:
            phrase.constraints[:0] = ranked(pool.constraints, pool.rank, pool.is_last)
        if not partitive and phrase.count is None:
            phrase.count = pool.count

    def _possessor(self, phrase: NounPhrase, depth: int) -> None:
        """ "of" after a noun: "the ship, the largest of all the ships", "roof of the house", "ships of the port"."""
        if self.place(phrase, depth):
            return
        led_by_unknown = self.before(self.at - 1).kind == "unknown"
        at_end = self.before(self.at - 1).text in ("end", "tip")
        target = self.target(depth)
        if led_by_unknown and not target.noun and target.constraints:  # "upstream of the wide one"
            phrase.add(Relation("near", (replace(target, category=phrase.category),)))
        elif (
            target.category == phrase.category or not target.noun
        ):  # "of the smallest size", "of the three at the right"
            phrase.unread += target.unread
            if target.count and target.count > 1 and phrase.count is None:
                phrase.constraints.insert(0, as_members(target))
                phrase.all, phrase.partitive = False, True
            else:
                phrase.constraints[:0] = target.constraints
        elif any(word in MEASURES for word in target.noun.split()):
            phrase.constraints[:0] = target.constraints
        elif target.noun:
            phrase.add(Relation("end" if at_end else "near", (target,)))

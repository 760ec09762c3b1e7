"""What all grounders of any noun do with the words, whatever their detector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backend.pipeline.grounding.open_vocabulary import Found, OpenVocabularyGrounder, Phrase
from backend.pipeline.types import Image
from dataset_tools.expressions.relations import LabelledBox
from dataset_tools.geometry import Box

IMAGE = np.zeros((40, 60, 3), np.uint8)


class Asked(OpenVocabularyGrounder):
    """Sees one object of everything that it is asked for, and remembers what that was."""

    def __init__(self) -> None:
        self.phrases: list[Phrase] = []

    def find(self, image: Image, phrases: Sequence[Phrase], *, key: str | None = None) -> Found:
        self.phrases += phrases
        return Found([LabelledBox(Box(5, 5, 20, 20), phrase.name, 0.9) for phrase in phrases])


def test_a_label_of_the_project_is_one_noun_even_if_its_words_are_a_colour_and_a_noun() -> None:
    plain, labelled = Asked(), Asked()
    plain.ground(IMAGE, "the green roof")
    assert Phrase("green roof", "green roof") not in plain.phrases
    (found,) = labelled.ground(IMAGE, "the green roof", labels={"green roof"}).groundings
    assert [phrase.name for phrase in labelled.phrases] == ["green roof"]
    assert found.category is None, "canonical names alone are categories; the labeling config knows its own"

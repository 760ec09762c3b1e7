"""What a simulated project holds once its tasks are labelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.learning.simulation.world import tasks_of, training_set
from dataset_tools.categories import canonical, category_name
from dataset_tools.labelled import LabelledExpression, LabelledImage, LabelledObject
from tests.learning.annotations.test_labelled import HEIGHT, NEW_WORDS, WIDTH, square


@pytest.mark.parametrize("label", NEW_WORDS)
def test_a_new_word_of_a_simulated_task_says_what_is_complete(label: str) -> None:
    assert canonical(label) is None, f"{label} has become a canonical category: test with another new word"
    objects = (LabelledObject.of(label, square(1, 1)), LabelledObject.of(label, square(20, 1)))
    everything, single = NEW_WORDS[label]
    texts = {everything: (0, 1), single: (0,), f"a {single.removeprefix('the ')}": (0,)}
    found = []
    for text, named in texts.items():
        expressions = (LabelledExpression(text, named),)
        image = LabelledImage(Path(text), HEIGHT, WIDTH, objects, expressions, sha256=text)
        found += training_set(tasks_of([image]))
    assert [image.complete for image in found] == [{category_name(label)}, {category_name(label)}, frozenset()]

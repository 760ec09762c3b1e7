"""Accepted masks as labelled images: what counts, what is joined, what is left out with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.database import Database
from backend.learning.annotations.labelled import ImageFile, labelled_images, project_categories
from backend.learning.annotations.store import AnnotationStore
from backend.server.editor.labeling_config import parse_labeling_config
from dataset_tools import brush_rle
from dataset_tools.categories import canonical, category_name
from dataset_tools.errors import ImageError
from dataset_tools.expressions.lexicon import EMPTY_NOUNS
from dataset_tools.label_studio.import_rules import Problem
from dataset_tools.labelled import LabelledImage
from dataset_tools.masks import Mask
from tests.learning.annotations.test_store import annotation, event

HEIGHT, WIDTH = 20, 30


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AnnotationStore]:
    database = Database.of_state(tmp_path)
    yield AnnotationStore(database)
    database.close()


def square(x: int, y: int, side: int = 6) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def outline(label: str, mask: Mask, kind: str = "brushlabels", **more: Any) -> dict[str, Any]:
    value = {"format": "rle", "rle": brush_rle.encode(mask), kind: [label]}
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    return {"id": f"{label}{mask.argmax()}", "type": kind, "value": value, **size, **more}


def submit(store: AnnotationStore, identity: int, expression: Any, *results: dict[str, Any], **more: Any) -> None:
    image = more.pop("image", "/one.png")
    found = annotation(identity, identity, *results, **more)
    task = {"id": found["task"], "data": {"image": image, "expression": expression}, "updated_at": found["updated_at"]}
    store.events.append(event("ANNOTATION_CREATED", annotation=found, task=task))


def fetch(url: str, task: int) -> ImageFile:
    if "gone" in url:
        raise ImageError(f"{url} answered 404")
    return ImageFile(url.strip("/")[:3] * 16, Path(url), HEIGHT, WIDTH)


def read(store: AnnotationStore, problems: list[Problem] | None = None) -> list[LabelledImage]:
    found: list[Problem] = []
    images = labelled_images(store, 2, fetch, found if problems is None else problems)
    assert found == []
    return images


def test_tasks_on_one_image_are_joined_and_an_object_is_there_once(store: AnnotationStore) -> None:
    submit(store, 1, "all the ships", outline("Ship", square(1, 1)), outline("ship", square(20, 1)))
    submit(store, 2, "the ship on the left", outline("ship", square(1, 2)))
    submit(store, 3, "the bridge", outline("bridge", square(10, 10)))
    submit(store, 4, "the harbor")
    submit(store, 5, "the red car")
    submit(store, 6, "the plane", outline("airplane", square(3, 3)), was_cancelled=True)
    (image,) = read(store)
    assert [item.category for item in image.objects] == ["ship", "ship", "bridge"]
    assert (image.objects[0].mask() == square(1, 2)).all()  # the later outline of the same ship
    assert {item.text: item.objects for item in image.expressions} == {
        "all the ships": (0, 1),
        "the ship on the left": (0,),
        "the bridge": (2,),
        "the harbor": (),
        "the red car": (),
    }
    assert image.complete == {"ship", "harbor", "bridge"}
    assert (image.height, image.width) == (HEIGHT, WIDTH)


def test_only_outlines_count(store: AnnotationStore) -> None:
    box = {"x": 0, "y": 0, "width": 50, "height": 50, "rectanglelabels": ["ship"]}
    left_over = {**outline("ship", square(1, 1)), "type": "rectanglelabels", "value": box}
    second = outline("ship", square(1, 1), "keypointlabels")
    submit(store, 1, "the ship", outline("ship", square(1, 1)), second, left_over)
    submit(store, 2, "the bridge", left_over, image="/two.png")  # submitted while a suggestion was pending
    (image,) = read(store)
    assert [item.category for item in image.objects] == ["ship"]
    assert image.expressions[0].objects == (0,)


def test_labels_of_the_project_make_categories_and_other_words_do_not(store: AnnotationStore) -> None:
    submit(store, 1, "all the ships", outline("ship", square(1, 1)), outline("Solar_Panel", square(12, 1)))
    submit(store, 2, "the plane", outline("object", square(1, 10)))
    submit(store, 3, None, outline("thing", square(20, 10)))
    (image,) = read(store)
    assert [item.category for item in image.objects] == ["ship", "solar panel", "airplane", "thing"]
    assert {item.text: item.objects for item in image.expressions} == {"all the ships": (0,), "the plane": (2,)}


def test_the_label_to_find_more_with_makes_no_category(store: AnnotationStore) -> None:
    submit(
        store, 1, "all the solar panels", outline("solar panel", square(1, 1)), outline("more like this", square(20, 1))
    )
    (image,) = read(store)
    assert {item.category for item in image.objects} <= {"solar panel", "object"}
    assert project_categories(store, 2) == {"solar panel"}


def test_what_cannot_be_had_is_reported_and_left_out(store: AnnotationStore) -> None:
    damaged = outline("ship", square(1, 1))
    damaged["value"]["rle"] = damaged["value"]["rle"][:6]
    small = {**outline("ship", square(1, 1)), "original_width": 10}
    submit(store, 1, "the ship", outline("ship", square(1, 1)), image="/gone.png")
    submit(store, 2, "the ship", damaged)
    submit(store, 3, "the ship", {**outline("ship", np.ones((5, 5), bool)), "original_width": 5, "original_height": 5})
    submit(store, 4, "the ship", small)
    submit(store, 5, "the ship", outline("ship", square(1, 1)), image="/two.png")
    problems: list[Problem] = []
    (image,) = read(store, problems)
    assert image.path == Path("/two.png")
    assert [problem.task for problem in problems] == [101, 102, 103, 104]
    assert "404" in problems[0].message


@pytest.mark.parametrize("label", [*sorted(EMPTY_NOUNS), "Referred_Object", "Thing"])
def test_a_label_that_says_nothing_says_so_to_labelling_and_to_learning(store: AnnotationStore, label: str) -> None:
    """What is labelled whatever the expression names is learnt under the category that the expression names."""
    config = f"""<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">
        <Label value="{label}"/></BrushLabels></View>"""
    assert parse_labeling_config(config).takes_any_category
    submit(store, 1, "the ship on the left", outline(label, square(1, 1)))
    (image,) = read(store)
    assert [item.category for item in image.objects] == ["ship"]


NEW_WORDS = {
    "solar panel": ("all the solar panels", "the solar panel"),
    "Solar_Panel": ("all the solar panels", "the Solar Panel"),
    "zorbleflux": ("all the zorblefluxes", "the zorbleflux"),
    "солнечная панель": ("all the солнечная панель", "the солнечная панель"),
    "太陽光パネル": ("all 太陽光パネル", "the 太陽光パネル"),
}
"""Labels outside the lexicon, with words that ask for all of them and for the only one."""


@pytest.mark.parametrize("label", NEW_WORDS)
def test_a_new_word_is_complete_like_a_known_one(store: AnnotationStore, label: str) -> None:
    assert canonical(label) is None, f"{label} has become a canonical category: test with another new word"
    everything, single = NEW_WORDS[label]
    submit(store, 1, everything, outline(label, square(1, 1)), outline(label, square(20, 1)))
    submit(store, 2, single, outline(label, square(10, 10)), image="/two.png")
    submit(store, 3, everything, image="/three.png")
    images = read(store)
    name = category_name(label)
    assert [image.complete for image in images] == [{name}] * 3
    assert sorted(len(image.objects) for image in images) == [0, 1, 2]
    assert {item.text: len(item.objects) for image in images for item in image.expressions if item.objects} == {
        everything: 2,
        single: 1,
    }


def test_a_new_word_that_tasks_contradict_is_not_complete(store: AnnotationStore) -> None:
    submit(store, 1, "the zorbleflux", outline("zorbleflux", square(1, 1)))
    submit(store, 2, "the zorbleflux on the right", outline("zorbleflux", square(20, 1)))
    submit(store, 3, "a zorbleflux", outline("zorbleflux", square(20, 1)), image="/two.png")
    submit(store, 4, "the ship", outline("zorbleflux", square(20, 1)), image="/three.png")
    assert [image.complete for image in read(store)] == [frozenset()] * 3


def test_a_new_word_among_several_expressions_of_a_task_gets_its_own_objects(store: AnnotationStore) -> None:
    found = (
        outline("Solar_Panel", square(1, 1)),
        outline("Solar_Panel", square(10, 1)),
        outline("ship", square(20, 1)),
    )
    submit(store, 1, ["all the solar panels", "the ship"], *found)
    (image,) = read(store)
    assert {item.text: item.objects for item in image.expressions} == {"all the solar panels": (0, 1), "the ship": (2,)}
    assert image.complete == {"solar panel", "ship"}


def test_nouns_of_the_project_are_learnt_from_as_they_are_asked(store: AnnotationStore) -> None:
    for number, expression in enumerate(("the gazoo", "leftmost gazoo", "the gazoo at the top"), start=1):
        submit(store, number, expression, outline("ship", square(1 + 7 * number, 1)), image=f"/{number}ne.png")
    images = read(store)
    said = [expression.text for image in images for expression in image.expressions]
    assert sorted(said) == ["leftmost ship", "the ship", "the ship at the top"]
    assert [image.complete for image in images].count(frozenset(["ship"])) == 1, "'the gazoo' says that there is one"

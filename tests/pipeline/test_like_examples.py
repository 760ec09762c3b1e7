"""Where an object ends that was found by examples: which mask is taken, and that none comes twice."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from backend.pipeline import PslgSam
from backend.pipeline.config import load_config
from backend.pipeline.like_examples import best_outline, is_repeated
from backend.pipeline.types import (
    Box,
    Embedding,
    Grounding,
    GroundingResult,
    Image,
    Likeness,
    Mask,
    MaskPrediction,
    Point,
    Prompts,
)

SCENE: Image = np.zeros((60, 80, 3), np.uint8)
PLACE = Point(20.5, 20.5)
SMALL, LARGE, SPECK = Box(15, 15, 25, 27), Box(2, 2, 70, 58), Box(50, 50, 54, 54)


def predicted(*boxes: Box, iou: float = 0.8) -> MaskPrediction:
    mask: Mask = np.zeros(SCENE.shape[:2], bool)
    for box in boxes:
        x0, y0, x1, y1 = map(int, box)
        mask[y0:y1, x0:x1] = True
    return MaskPrediction(mask, iou, np.zeros((4, 4), np.float32), lambda: 0.9)


LIKE = Likeness(PLACE, ((12.0, 10.0), (11.0, 13.0)))


def test_a_mask_of_the_examples_size_goes_before_a_larger_one() -> None:
    asked: list[tuple[Box, Prompts]] = []

    def outline(window: Box, prompts: Prompts) -> MaskPrediction:
        asked.append((window, prompts))
        return predicted(SMALL, SPECK)

    found = best_outline(predicted(LARGE), LIKE, outline)
    assert Box.of_mask(found.mask) == SMALL, "the part that the place lies on, without what is elsewhere"
    assert all(prompts.points.tolist() == [list(PLACE)] and prompts.box is None for _, prompts in asked)
    assert [round(window.width, 1) for window, _ in asked] == [20.0]
    assert all(window.center == PLACE for window, _ in asked)


def test_a_box_that_fits_keeps_its_mask_where_the_rivals_are_less_sure() -> None:
    kept = best_outline(predicted(SMALL), LIKE, lambda *_: predicted(Box(14, 14, 26, 27), iou=0.6))
    assert Box.of_mask(kept.mask) == SMALL
    assert not best_outline(predicted(), LIKE, lambda *_: predicted()).mask.any()


def test_the_same_object_and_a_part_of_it_are_repeats_and_a_larger_one_is_none() -> None:
    small, inner, beside = (predicted(box).mask for box in (SMALL, Box(17, 17, 21, 21), Box(23, 15, 33, 27)))
    assert is_repeated(small, [beside, small])
    assert is_repeated(inner, [small])
    assert not is_repeated(small, [inner])
    assert not is_repeated(beside, [small])


class OneMask:
    """A segmenter that outlines the same object whatever it is asked."""

    encoder_hash = "one"

    def window_for(self, box: Box, size: tuple[int, int]) -> Box:
        return Box(0.0, 0.0, float(size[1]), float(size[0]))

    def embed(self, image: Image, window: Box | None = None, *, key: str | None = None) -> Embedding:
        whole = Box(0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
        return Embedding("", np.zeros((1, 1, 1), np.float32), (image.shape[0], image.shape[1]), whole)

    def decode(self, embedding: Embedding, prompts: Prompts) -> MaskPrediction:
        return predicted(SMALL)

    def mask_prompt(self, embedding: Embedding, mask: Mask) -> npt.NDArray[np.float32]:
        raise NotImplementedError


class Given:
    known_categories = None

    def __init__(self, *found: Grounding) -> None:
        self._found = found

    def ground(self, image: Image, expression: str, **_: object) -> GroundingResult:
        return GroundingResult(self._found)


def test_what_examples_found_twice_is_there_once_with_the_box_of_its_mask() -> None:
    config = load_config("compact")
    off = config.model_copy(update={"boundary": config.boundary.model_copy(update={"enabled": False})})

    def answered(like: Likeness | None) -> list[Box]:
        found = (Grounding(box, 0.9, "quibble", like=like) for box in (Box(5, 5, 30, 30), Box(10, 10, 50, 40)))
        pipeline = PslgSam(Given(*found), OneMask(), off, "tiny-00000000")
        return [item.box for item in pipeline.prelabel(SCENE, "all the quibbles")]

    assert answered(LIKE) == [SMALL]
    assert answered(None) == [Box(5, 5, 30, 30), Box(10, 10, 50, 40)]

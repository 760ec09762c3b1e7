from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import pytest

from backend.pipeline.segmentation.replay import ReplayCache, replay
from backend.pipeline.segmentation.sam import SamSegmenter
from backend.pipeline.segmentation.windows import window_for
from backend.pipeline.types import Box, Embedding, Image, Mask, MaskPrediction, Point, Prompts
from dataset_tools.errors import PromptError
from tests.pipeline.segmentation.small_sams import small_compact_sam, small_vit_sam

SIZE = (240, 300)


@pytest.fixture(scope="module")
def image() -> Image:
    return np.random.default_rng(3).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


class Counting(SamSegmenter):
    """Remembers in which windows it decoded how many points."""

    def __init__(self) -> None:
        super().__init__(small_compact_sam(), window_rule=window_for)
        self.decoded: list[tuple[Box, int]] = []

    def decode(self, embedding: Embedding, prompts: Prompts) -> MaskPrediction:
        self.decoded.append((embedding.window, len(prompts.points)))
        return super().decode(embedding, prompts)


@pytest.fixture
def segmenter() -> Counting:
    return Counting()


def clicks(*made: tuple[float, float, int], box: Box | None = None) -> Prompts:
    points: npt.NDArray[np.float32] = np.array([(x, y) for x, y, _ in made], np.float32).reshape(-1, 2)
    return Prompts(points, np.array([sign for _, _, sign in made], np.int64), box)


def block(x: int, y: int, side: int) -> Mask:
    mask = np.zeros(SIZE, np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def final_window(segmenter: Counting, image: Image, prompts: Prompts, region: Mask | None = None) -> Box:
    replay(segmenter, partial(segmenter.embed, image), SIZE, prompts, region)
    return segmenter.decoded[-1][0]


def test_negative_clicks_keep_the_window(segmenter: Counting, image: Image) -> None:
    first = final_window(segmenter, image, clicks((150, 120, 1)))
    assert first.contains(Box(150, 120, 151, 121).center)
    assert final_window(segmenter, image, clicks((150, 120, 1), (10, 10, 0), (30, 90, 0))) == first


def test_the_window_grows_to_a_positive_click_outside(segmenter: Counting, image: Image) -> None:
    window = final_window(segmenter, image, clicks((20, 20, 1), (290, 230, 1)))
    assert window.x0 <= 20 <= 290 <= window.x1


class Believing:
    """Outlines a square of ``sides[w]`` pixels around the click in a window of width w, as sure as ``sure[w]``."""

    def __init__(self, sides: dict[int, int], sure: dict[int, float]) -> None:
        self.sides, self.sure = sides, sure
        self.windows: list[Box] = []

    def window_for(self, box: Box, image_size: tuple[int, int]) -> Box:
        return window_for(box, image_size)

    def embed(self, window: Box) -> Embedding:
        return Embedding(repr(window), np.zeros((1, 1, 1), np.float16), SIZE, window)

    def decode(self, embedding: Embedding, prompts: Prompts) -> MaskPrediction:
        self.windows.append(embedding.window)
        width = min(self.sides, key=lambda known: abs(known - embedding.window.width))
        half = self.sides[width] // 2
        mask = np.zeros(SIZE, np.bool_)
        x, y = (int(value) for value in prompts.points[0])
        mask[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = True
        mask[:4, -4:] = True  # a scrap far away says nothing about the object
        return MaskPrediction(mask, self.sure[width], np.zeros((4, 4), np.float32), lambda: 1.0)


@pytest.mark.parametrize(
    ("sides", "sure", "expected"),
    [
        # A car: through the large windows the road is outlined, as far as they reach, with more certainty.
        ({70: 16, 175: 170, 300: 300}, {70: 0.6, 175: 0.7, 300: 0.6}, 40),
        # Through the small one a hangar fills everything.
        ({70: 70, 175: 90, 438: 90}, {70: 0.5, 175: 0.9, 438: 0.7}, 158),
    ],
)
def test_one_click_takes_the_object_and_not_what_lies_around_it(
    sides: dict[int, int], sure: dict[int, float], expected: int
) -> None:
    segmenter = Believing(sides, sure)
    replay(segmenter, segmenter.embed, SIZE, clicks((150, 120, 1)))  # type: ignore[arg-type]
    assert segmenter.windows[-1].width == pytest.approx(expected, abs=2)


class Knowing:
    """Outlines ``objects`` as far as a window shows them, the next one from each negative click on."""

    def __init__(self, *objects: Mask) -> None:
        self.objects = objects
        self.decoded: list[tuple[Box, npt.NDArray[np.float32] | None]] = []

    def window_for(self, box: Box, image_size: tuple[int, int]) -> Box:
        return window_for(box, image_size)

    def embed(self, window: Box) -> Embedding:
        return Embedding(repr(window), np.zeros((1, 1, 1), np.float16), SIZE, window)

    def decode(self, embedding: Embedding, prompts: Prompts) -> MaskPrediction:
        window = embedding.window
        self.decoded.append((window, prompts.mask_logits))
        seen = np.zeros(SIZE, np.bool_)
        rows, columns = (slice(max(int(a), 0), int(b)) for a, b in (window[1::2], window[::2]))
        seen[rows, columns] = self.objects[int((prompts.point_labels == 0).sum())][rows, columns]
        sure = 0.9 if window.width <= 122 else 0.3
        return MaskPrediction(seen, sure, np.full((4, 4), 5, np.float32), lambda: 1.0)


def test_a_mask_that_runs_into_its_windows_border_gets_a_larger_one() -> None:
    hangar = block(70, 40, 160)
    segmenter = Knowing(hangar)
    found = replay(segmenter, segmenter.embed, SIZE, clicks((150, 120, 1)))  # type: ignore[arg-type]
    assert np.array_equal(found.mask, hangar)
    (small, _), (large, before) = segmenter.decoded[-2:]
    assert small.width == 123
    assert large.width >= 1.75 * 160
    assert before is not None
    assert (before == -6).any(), "nothing is known of what the small window did not show"


def test_a_negative_click_that_leaves_a_small_object_brings_it_near() -> None:
    segmenter = Knowing(block(100, 70, 100), block(140, 110, 20))
    replay(segmenter, segmenter.embed, SIZE, clicks((150, 120, 1)))  # type: ignore[arg-type]
    assert segmenter.decoded[-1][0].width == 175
    replay(segmenter, segmenter.embed, SIZE, clicks((150, 120, 1), (110, 80, 0)))  # type: ignore[arg-type]
    assert segmenter.decoded[-1][0].width == 40


def test_the_object_that_is_seen_under_a_click_makes_the_window() -> None:
    asked: list[Point] = []

    def supposed(point: Point) -> Box | None:
        asked.append(point)
        return Box(130, 100, 170, 140) if point.x < 200 else None

    segmenter = Knowing(block(130, 100, 40), block(130, 100, 20))
    replay(segmenter, segmenter.embed, SIZE, clicks((150, 120, 1)), supposed=supposed)  # type: ignore[arg-type]
    assert [window.width for window, _ in segmenter.decoded] == [70], "no other one is tried"
    cache = ReplayCache().of("image")
    for made in (clicks((150, 120, 1)), clicks((150, 120, 1), (165, 135, 0))):
        replay(segmenter, segmenter.embed, SIZE, made, kept=cache, supposed=supposed)  # type: ignore[arg-type]
    assert asked == [Point(150, 120)] * 2, "once for an object, however many clicks it takes"
    assert segmenter.decoded[-1][0].width == 40, "what the clicks say counts for more"
    segmenter.decoded.clear()
    replay(segmenter, segmenter.embed, SIZE, clicks((250, 120, 1)), supposed=supposed)  # type: ignore[arg-type]
    assert {70, 175, 300} <= {window.width for window, _ in segmenter.decoded}, "nothing is seen: three are tried"


@pytest.mark.parametrize(
    ("prompts", "region"),
    [(clicks((150, 120, 1)), block(130, 100, 40)), (clicks(box=Box(130, 100, 170, 140)), None)],
)
def test_who_has_a_region_or_a_box_asks_nobody(
    segmenter: Counting, image: Image, prompts: Prompts, region: Mask | None
) -> None:
    def supposed(_: Point) -> Box | None:
        raise AssertionError("the detector need not look")

    replay(segmenter, partial(segmenter.embed, image), SIZE, prompts, region, supposed=supposed)


def test_models_of_whole_images_look_for_no_window(image: Image) -> None:
    whole = SamSegmenter(small_vit_sam())
    asked: list[Box] = []

    def embed(window: Box) -> Embedding:
        asked.append(window)
        return whole.embed(image, window)

    replay(whole, embed, SIZE, clicks((5, 5, 1), (200, 200, 1)), supposed=lambda _: Box(0, 0, 9, 9))
    assert asked == [Box(0, 0, 300, 240)]


def test_what_says_nothing_is_refused(segmenter: Counting, image: Image) -> None:
    embed = partial(segmenter.embed, image)
    with pytest.raises(PromptError, match="positive"):
        replay(segmenter, embed, SIZE, clicks((5, 5, 0)))
    with pytest.raises(PromptError, match="region is refined by"):
        replay(segmenter, embed, SIZE, Prompts(), block(10, 10, 30))
    with pytest.raises(PromptError, match="mask logits itself"):
        replay(segmenter, embed, SIZE, Prompts(mask_logits=np.zeros((4, 4), np.float32)))


def by_hand(segmenter: SamSegmenter, embedding: Embedding, steps: list[Prompts], start: Mask | None) -> MaskPrediction:
    logits = None if start is None else segmenter.mask_prompt(embedding, start)
    for step in steps:
        prediction = segmenter.decode(embedding, Prompts(step.points, step.point_labels, step.box, logits))
        logits = prediction.low_res_logits
    return prediction


def test_each_decode_sees_the_logits_of_the_one_before(segmenter: Counting, image: Image) -> None:
    embed = partial(segmenter.embed, image)
    made = (150.0, 120.0, 1), (140.0, 100.0, 0), (160.0, 125.0, 0)
    found = replay(segmenter, embed, SIZE, clicks(*made))
    embedding = embed(segmenter.decoded[-1][0])
    expected = by_hand(segmenter, embedding, [clicks(*made[:count]) for count in (1, 2, 3)], None)
    assert np.array_equal(found.low_res_logits, expected.low_res_logits)


def test_the_first_decode_sees_the_clicks_up_to_the_first_positive_one(segmenter: Counting, image: Image) -> None:
    embed = partial(segmenter.embed, image)
    made = (290.0, 230.0, 0), (140.0, 110.0, 0), (150.0, 120.0, 1), (145.0, 130.0, 0)
    found = replay(segmenter, embed, SIZE, clicks(*made))
    embedding = embed(segmenter.decoded[-1][0])
    expected = by_hand(segmenter, embedding, [clicks(*made[:count]) for count in (3, 4)], None)
    assert np.array_equal(found.low_res_logits, expected.low_res_logits)


def test_a_box_is_decoded_before_its_clicks(segmenter: Counting, image: Image) -> None:
    embed, box = partial(segmenter.embed, image), Box(100, 80, 180, 150)
    found = replay(segmenter, embed, SIZE, clicks((120, 100, 1), box=box))
    embedding = embed(window_for(box, SIZE))
    expected = by_hand(segmenter, embedding, [clicks(box=box), clicks((120, 100, 1), box=box)], None)
    assert np.array_equal(found.mask, expected.mask)


@pytest.mark.parametrize("sign", [0, 1])
def test_a_region_is_the_first_mask_prompt(segmenter: Counting, image: Image, sign: int) -> None:
    embed, region = partial(segmenter.embed, image), block(100, 80, 60)
    made = (120.0, 100.0, sign), (130.0, 90.0, 1)
    found = replay(segmenter, embed, SIZE, clicks(*made), region)
    embedding = embed(window_for(Box.of_mask(region), SIZE))
    expected = by_hand(segmenter, embedding, [clicks(made[0]), clicks(*made)], region)
    assert np.array_equal(found.mask, expected.mask)


def test_a_positive_click_outside_a_regions_window_widens_it_and_keeps_the_region(
    segmenter: Counting, image: Image
) -> None:
    embed, region = partial(segmenter.embed, image), block(100, 80, 30)
    made = (110.0, 90.0, 1), (280.0, 200.0, 1)
    found = replay(segmenter, embed, SIZE, clicks(*made), region)
    window = segmenter.decoded[-1][0]
    assert window.x0 <= 100
    assert window.x1 >= 280
    expected = by_hand(segmenter, embed(window), [clicks(made[0]), clicks(*made)], region)
    assert np.array_equal(found.mask, expected.mask)
    away = final_window(segmenter, image, clicks((110, 90, 1), (280, 200, 0)), region)
    assert away == window_for(Box.of_mask(region), SIZE)


def test_an_empty_region_is_none(segmenter: Counting, image: Image) -> None:
    embed, prompts = partial(segmenter.embed, image), clicks((150, 120, 1))
    found = replay(segmenter, embed, SIZE, prompts, np.zeros(SIZE, np.bool_))
    assert np.array_equal(found.mask, replay(segmenter, embed, SIZE, prompts).mask)


SESSIONS: list[tuple[Prompts, Mask | None]] = [
    (clicks((150, 120, 1), (290, 230, 1), (30, 40, 1), (100, 100, 0), (20, 200, 1)), None),
    (clicks((10, 10, 0), (150, 120, 1), (160, 130, 1)), None),
    (clicks((110, 90, 0), (280, 200, 1), (120, 100, 1)), block(100, 80, 40)),
    (clicks((120, 100, 1), (130, 110, 0), box=Box(100, 80, 180, 150)), None),
]


@pytest.mark.parametrize("session", SESSIONS)
def test_what_is_kept_changes_no_mask_and_leaves_one_decode(
    segmenter: Counting, image: Image, session: tuple[Prompts, Mask | None]
) -> None:
    embed = partial(segmenter.embed, image)
    prompts, region = session
    kept = ReplayCache().of("model", "image", "region")
    for count in range(2, len(prompts.points) + 1):
        made = Prompts(prompts.points[:count], prompts.point_labels[:count], prompts.box)
        found = replay(segmenter, embed, SIZE, made, region, kept)
        assert np.array_equal(found.mask, replay(segmenter, embed, SIZE, made, region).mask)
        before = len(segmenter.decoded)
        again = replay(segmenter, embed, SIZE, made, region, kept)
        assert len(segmenter.decoded) == before + 1
        assert np.array_equal(again.mask, found.mask)


def test_one_image_does_not_answer_for_another(segmenter: Counting, image: Image) -> None:
    cache, prompts = ReplayCache(), clicks((150, 120, 1), (100, 100, 0))
    other = np.ascontiguousarray(image[::-1])
    for name, pixels in (("one", image), ("other", other)):
        embed = partial(segmenter.embed, pixels)
        found = replay(segmenter, embed, SIZE, prompts, kept=cache.of("model", name))
        assert np.array_equal(found.mask, replay(segmenter, embed, SIZE, prompts).mask)

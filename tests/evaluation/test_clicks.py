"""Clicks counted with a real decoder (random weights: it never gets there, but must go on as the server would)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from PIL import Image as PillowImage

from backend.evaluation.clicks import HOLE_AREA, SPECK_AREA, click_ious, clicks_to, corrected
from backend.evaluation.next_click import Correction, next_click
from backend.pipeline.segmentation.mask_cleaning import clean_mask
from backend.pipeline.segmentation.replay import replay
from backend.pipeline.types import Box, Image, Mask, NamedImage, Point, Prompts
from backend.server.protocol import PredictRequest, validate
from backend.server.service import LabelingService
from backend.settings import Settings
from dataset_tools import brush_rle
from dataset_tools.metrics import iou
from tests.server.conftest import encode, interactive, make_service, make_site, task
from tests.server.editor.test_region_lookup import brush, stored
from tests.server.tiny import tiny_pipeline

HEIGHT, WIDTH = 120, 160


@pytest.fixture(scope="module")
def pixels() -> Image:
    return np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def square(x: int, y: int, side: int) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


STARTS = [
    None,
    square(90, 70, 45),  # beside the object
    square(10, 10, 100),  # around it
    square(20, 20, 16),  # a part of it; its window is smaller than the object
    square(15, 20, 60),
]
TARGETS = [square(15, 20, 70), square(15, 20, 8) | square(130, 80, 30)]


def test_what_is_good_enough_costs_nothing(pixels: Image) -> None:
    segmenter = tiny_pipeline().segmenter
    target = square(20, 20, 40)
    assert clicks_to(segmenter, partial(segmenter.embed, pixels), target, target, enough=0.85, cap=5) == 0


@pytest.mark.parametrize("start", STARTS)
def test_the_count_ends_at_the_cap_wherever_the_pre_label_lies(start: Mask | None, pixels: Image) -> None:
    segmenter = tiny_pipeline().segmenter
    embed = partial(segmenter.embed, pixels)
    assert 1 <= clicks_to(segmenter, embed, square(15, 20, 30), start, enough=0.99, cap=6) <= 6


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelingService]:
    folder = tmp_path_factory.mktemp("state")
    yield from make_service(Settings(state_dir=folder, image_hosts=("127.0.0.1",), model_threads=1))


@pytest.fixture(scope="module")
def url(pixels: Image) -> Iterator[str]:
    for site in make_site():
        yield site.put("/a.png", encode(PillowImage.fromarray(pixels)))


def asked(service: LabelingService, url: str, clicks: list[Correction], start: Mask | None) -> Mask:
    """What the server answers to clicks in a task whose pre-label is ``start``."""
    items = [
        {
            "type": "keypointlabels",
            "from_name": "point",
            "to_name": "image",
            "id": str(number),
            "is_positive": click.positive,
            "value": {"x": 100 * click.x / WIDTH, "y": 100 * click.y / HEIGHT, "keypointlabels": ["ship"]},
        }
        for number, click in enumerate(clicks)
    ]
    found = task(1, url, predictions=[] if start is None else [stored(brush("start", start))])
    (answer,) = service.predict(validate(PredictRequest, interactive(found, items)))
    assert isinstance(answer, dict)
    masks = [brush_rle.decode(region["value"]["rle"], HEIGHT, WIDTH) for region in answer["result"]]
    return masks[0] if masks else np.zeros((HEIGHT, WIDTH), np.bool_)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("start", STARTS)
def test_server_evaluation_and_simulation_give_one_mask_for_the_same_clicks(
    start: Mask | None, target: Mask, service: LabelingService, url: str, pixels: Image
) -> None:
    segmenter = service.model.pipeline().segmenter
    embed = partial(segmenter.embed, pixels)
    shown = np.zeros_like(target) if start is None else start
    clicks: list[Correction] = []
    scores: list[float] = []
    for mask, _ in corrected(segmenter, embed, target, start, cap=5):
        click = next_click(shown, target)
        assert click is not None
        clicks.append(click)
        assert np.array_equal(mask, asked(service, url, clicks, start))
        scores.append(iou(mask, target))
        shown = mask
    assert scores
    best = int(np.argmax(scores))
    if start is None:
        assert click_ious(segmenter, NamedImage.of(pixels), target, cap=5) == scores
    if start is None or iou(start, target) < scores[best]:
        assert clicks_to(segmenter, embed, target, start, enough=scores[best], cap=5) == best + 1


def test_a_click_outside_the_window_of_the_pre_label_goes_on_from_it(
    service: LabelingService, url: str, pixels: Image
) -> None:
    segmenter = service.model.pipeline().segmenter
    start = square(20, 20, 16)
    clicks = [Correction(22, 22, True), Correction(145, 95, True)]
    assert clicks[1].x > segmenter.window_for(Box.of_mask(start), (HEIGHT, WIDTH)).x1
    prompts = Prompts(np.array([click[:2] for click in clicks], np.float32), np.ones(2, np.int64))
    embed = partial(segmenter.embed, pixels)
    refined = replay(segmenter, embed, (HEIGHT, WIDTH), prompts, start).mask
    cleaned = clean_mask(refined, SPECK_AREA, HOLE_AREA, [Point(x, y) for x, y, _ in clicks])
    assert np.array_equal(asked(service, url, clicks, start), cleaned)
    assert not np.array_equal(asked(service, url, clicks, None), cleaned)  # the pre-label is a prompt still


def test_iou_of_nothing_is_nothing() -> None:
    assert iou(square(0, 0, 0), square(0, 0, 0)) == 0.0
    assert iou(square(0, 0, 10), square(0, 0, 20)) == pytest.approx(0.25)

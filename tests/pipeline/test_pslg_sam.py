"""The pipeline as a whole, with a real (tiny, random) Sam behind a grounder that answers what the test says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from backend.pipeline import PslgSam, load_config, load_pipeline
from backend.pipeline.config import PipelineConfig
from backend.pipeline.pslg_sam import box_and_point
from backend.pipeline.scores import combine_scores
from backend.pipeline.segmentation.compact_sam import build_compact_sam
from backend.pipeline.segmentation.sam import SamSegmenter
from backend.pipeline.segmentation.windows import window_for
from backend.pipeline.types import Abstention, Box, Embedding, Grounding, GroundingResult, Image, Prompts
from dataset_tools.errors import ConfigError, ImageError, PromptError, WeightsError
from tests.pipeline.test_foreground_points import disc, paint

BOX, OTHER = Box(20, 20, 60, 60), Box(70, 10, 110, 50)
SCENE = paint(disc((100, 120), (40, 40), 15) | disc((100, 120), (90, 30), 15))


@dataclass(frozen=True)
class GivenBoxes:
    """Answers every expression with the same result."""

    result: GroundingResult
    known_categories: frozenset[str] | None = None

    def ground(self, image: Image, expression: str, *, key: str | None = None, labels: object = ()) -> GroundingResult:
        return self.result


@pytest.fixture(scope="module")
def segmenter() -> SamSegmenter:
    torch.manual_seed(0)
    sam = build_compact_sam(img_size=64, embed_dim=32, widths=(8, 8, 16, 16, 16), depths=(1, 1, 1, 1), mlp_dim=32)
    with torch.no_grad():  # untrained logits lie near 0: this decides most pixels for the object
        sam.mask_threshold = -10.0
    return SamSegmenter(sam, window_rule=window_for)


def pipeline_of(
    segmenter: SamSegmenter, *boxes: Box, category: str | None = "storagetank", **config: object
) -> PslgSam:
    groundings = tuple(Grounding(box, 0.9, category) for box in boxes)
    result = GroundingResult(groundings, None if boxes else Abstention("absent", "there is none"))
    checked = PipelineConfig.model_validate(
        {
            "name": "tiny",
            "grounder": {"kind": "compact", "weights": "none"},
            "segmenter": {"kind": "compact-sam", "weights": "none"},
            **config,
        }
    )
    return PslgSam(GivenBoxes(result), segmenter, checked, "tiny-00000000")


def test_one_object_gets_every_part_of_a_prelabel(segmenter: SamSegmenter) -> None:
    found = pipeline_of(segmenter, BOX).prelabel(SCENE, "the storage tank")
    assert found.abstained is None
    (item,) = found
    assert item.mask.shape == SCENE.shape[:2]
    assert item.mask.dtype == np.bool_
    assert item.mask.any()
    assert item.box == BOX
    assert item.point is not None
    assert BOX.contains(item.point)
    assert item.category == "storagetank"
    assert item.expression == "the storage tank"
    assert set(item.scores) == {"grounding", "predicted_iou", "stability", "boundary_agreement"}
    assert all(0 <= value <= 1 for value in item.scores.values())
    assert item.score == pytest.approx(combine_scores(item.scores))


def test_several_boxes_give_one_prelabel_each_in_their_order(segmenter: SamSegmenter) -> None:
    found = pipeline_of(segmenter, OTHER, BOX).prelabel(SCENE, "all the storage tanks")
    assert [item.box for item in found] == [OTHER, BOX]
    assert not (found[0].mask & found[1].mask).all()


def test_an_abstention_of_the_grounder_comes_through(segmenter: SamSegmenter) -> None:
    found = pipeline_of(segmenter).prelabel(SCENE, "the storage tank")
    assert len(found) == 0
    assert found.abstained is not None
    assert found.abstained.code == "absent"


@pytest.mark.parametrize("expression", ["", "  \n", "?!..."])
def test_an_empty_expression_never_reaches_the_grounder(segmenter: SamSegmenter, expression: str) -> None:
    found = pipeline_of(segmenter, BOX).prelabel(SCENE, expression)
    assert found.abstained is not None
    assert found.abstained.code == "empty-expression"


def test_the_category_comes_from_the_grounder_then_the_expression_then_the_caller(segmenter: SamSegmenter) -> None:
    silent = pipeline_of(segmenter, BOX, category=None)
    assert pipeline_of(segmenter, BOX, category="ship").prelabel(SCENE, "the plane")[0].category == "ship"
    assert silent.prelabel(SCENE, "the plane", default_category="building")[0].category == "airplane"
    assert silent.prelabel(SCENE, "the big one", default_category="building")[0].category == "building"
    assert silent.prelabel(SCENE, "the big one")[0].category is None


@pytest.mark.parametrize("stage", ["foreground_points", "boundary"])
def test_each_stage_can_be_switched_off_altogether_or_for_a_category(segmenter: SamSegmenter, stage: str) -> None:
    off: tuple[Any, ...] = ({"enabled": False}, {"skip_categories": ["storage tank"]})
    for settings in off:
        (item,) = pipeline_of(segmenter, BOX, **{stage: settings}).prelabel(SCENE, "the storage tank")
        assert (item.point is None) == (stage == "foreground_points")
        assert ("boundary_agreement" in item.scores) == (stage != "boundary")
    other = pipeline_of(segmenter, BOX, category="ship", **{stage: off[1]})
    (item,) = other.prelabel(SCENE, "the ship")
    assert item.point is not None
    assert "boundary_agreement" in item.scores


def test_the_caller_s_embeddings_are_used_and_each_window_is_asked_for_once(segmenter: SamSegmenter) -> None:
    pipeline = pipeline_of(segmenter, BOX, BOX, OTHER)
    made: list[Embedding] = []

    def keep(image: Image, window: Box | None) -> Embedding:
        made.append(pipeline.embed(image, window))
        return made[-1]

    kept = pipeline.prelabel(SCENE, "all the storage tanks", embed=keep)
    assert [one.window for one in made] == [segmenter.window_for(box, (100, 120)) for box in (BOX, OTHER)]
    for one, plain in zip(kept, pipeline.prelabel(SCENE, "all the storage tanks"), strict=True):
        assert np.array_equal(one.mask, plain.mask)


def test_a_prelabel_is_outlined_with_the_window_turned_by_half_and_stores_nothing_more(
    segmenter: SamSegmenter,
) -> None:
    careful = SamSegmenter(segmenter.sam, window_rule=window_for, half_turn=True)
    pipeline = pipeline_of(careful, BOX, boundary={"enabled": False})
    made: list[Embedding] = []

    def keep(image: Image, window: Box | None) -> Embedding:
        made.append(pipeline.embed(image, window))
        return made[-1]

    (item,) = pipeline.prelabel(SCENE, "the storage tank", embed=keep)
    prompts = box_and_point(BOX, item.point)
    (embedding,) = made
    outlined = careful.outline(SCENE, embedding, prompts)
    assert item.scores["predicted_iou"] == outlined.predicted_iou
    assert np.array_equal(item.mask, outlined.mask)
    assert not np.array_equal(outlined.low_res_logits, careful.decode(embedding, prompts).low_res_logits)


def test_boxes_over_the_border_are_cut_and_boxes_outside_left_out(segmenter: SamSegmenter) -> None:
    found = pipeline_of(segmenter, Box(-20, -20, 30, 30), Box(200, 200, 220, 220)).prelabel(SCENE, "the tanks")
    assert [item.box for item in found] == [Box(0, 0, 30, 30)]
    outside = pipeline_of(segmenter, Box(200, 200, 220, 220)).prelabel(SCENE, "the tank")
    assert outside.abstained is not None
    assert outside.abstained.candidates


def test_a_box_without_an_outline_abstains_instead_of_giving_an_empty_mask(segmenter: SamSegmenter) -> None:
    threshold, segmenter.mask_threshold = segmenter.mask_threshold, 1e6
    try:
        found = pipeline_of(segmenter, BOX).prelabel(SCENE, "the storage tank")
    finally:
        segmenter.mask_threshold = threshold
    assert len(found) == 0
    assert found.abstained is not None
    assert "outlined" in found.abstained.message


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((10, 10, 3), np.uint16),
        np.zeros((0, 10, 3), np.uint8),
    ],
)
def test_anything_but_rgb_bytes_is_refused_with_what_it_is(
    segmenter: SamSegmenter, image: npt.NDArray[np.uint8]
) -> None:
    for call in (
        lambda: pipeline_of(segmenter, BOX).prelabel(image, "the tank"),
        lambda: pipeline_of(segmenter, BOX).embed(image),
    ):
        with pytest.raises(ImageError, match=str(image.dtype)):
            call()


def test_a_one_pixel_image_is_an_image(segmenter: SamSegmenter) -> None:
    pixel = np.full((1, 1, 3), 9, np.uint8)
    found = pipeline_of(segmenter, Box(0, 0, 1, 1)).prelabel(pixel, "the tank")
    assert len(found) == 1 or found.abstained is not None


def test_refine_starts_from_an_embedding_and_clicks(segmenter: SamSegmenter) -> None:
    pipeline = pipeline_of(segmenter, BOX)
    embedding = pipeline.embed(SCENE, segmenter.window_for(BOX, (100, 120)))
    click = Prompts(points=np.array([[40, 40]], np.float32), point_labels=np.ones(1, np.int64))
    first = pipeline.refine(embedding, click)
    again = pipeline.refine(embedding, Prompts(click.points, click.point_labels, mask_logits=first.low_res_logits))
    assert first.mask.shape == again.mask.shape == (100, 120)
    with pytest.raises(PromptError):
        pipeline.refine(embedding, Prompts())


def test_the_same_input_gives_the_same_masks(segmenter: SamSegmenter) -> None:
    pipeline = pipeline_of(segmenter, BOX, OTHER)
    one, two = (pipeline.prelabel(SCENE, "all the storage tanks") for _ in range(2))
    assert all(np.array_equal(a.mask, b.mask) and a.score == b.score for a, b in zip(one, two, strict=True))


def test_loading_says_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="no pipeline config named"):
        load_pipeline("no-such-config")
    with pytest.raises(WeightsError, match="nowhere"):
        load_pipeline(
            PipelineConfig.model_validate(
                {
                    "name": "x",
                    "grounder": {"kind": "compact", "weights": "nowhere/a.safetensors"},
                    "segmenter": {"kind": "compact-sam", "weights": "compact_segmenter"},
                }
            )
        )


@pytest.mark.parametrize("section", ["grounder", "segmenter"])
def test_options_that_an_adapter_does_not_take_are_named_with_those_it_does(section: str) -> None:
    values: dict[str, Any] = {
        "name": "x",
        "grounder": {"kind": "grounding-dino", "weights": "nowhere"},
        "segmenter": {"kind": "sam", "weights": "nowhere"},
    }
    values[section]["options"] = {"autocats": True}
    known = {"grounder": "box_threshold", "segmenter": "autocast"}[section]
    with pytest.raises(ConfigError, match=rf"{section}\.options: unknown autocats.*{known}"):
        load_pipeline(PipelineConfig.model_validate(values))


def test_threads_of_the_config_are_set() -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        load_pipeline(load_config("compact").model_copy(update={"threads": before[0] + 1}))
        assert torch.get_num_threads() == cv2.getNumThreads() == before[0] + 1
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
import torch
from segment_anything import SamPredictor

from backend.pipeline.segmentation import sam
from backend.pipeline.segmentation.embedding_store import embedding_address
from backend.pipeline.segmentation.logits import hold_clicks
from backend.pipeline.segmentation.sam import MASK_PROMPT_LOGIT, SamSegmenter
from backend.pipeline.segmentation.windows import window_for
from backend.pipeline.types import Box, Image, Prompts, hash_image
from dataset_tools.errors import ImageError, PromptError
from tests.pipeline.segmentation.small_sams import small_vit_sam

SIZES = [(50, 90), (97, 41), (64, 64), (130, 130)]


def picture(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def clicks(*points: tuple[float, float, int]) -> Prompts:
    return Prompts(
        np.array([p[:2] for p in points], np.float32).reshape(-1, 2), np.array([p[2] for p in points], np.int64)
    )


@pytest.fixture(scope="module")
def segmenter() -> SamSegmenter:
    return SamSegmenter(small_vit_sam(), embedding_dtype="float32")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("points", "with_box", "with_mask"),
    [combination for combination in product((0, 1, 3), (False, True), (False, True)) if any(combination)],
)
def test_masks_equal_sam_predictor(
    segmenter: SamSegmenter, size: tuple[int, int], points: int, with_box: bool, with_mask: bool
) -> None:
    height, width = size
    image = picture(height, width)
    rng = np.random.default_rng(points)
    coordinates = (rng.random((points, 2)) * (width, height)).astype(np.float32)
    labels = np.array([1, 0, 1][:points], np.int64)
    box = Box(width * 0.2, height * 0.25, width * 0.7, height * 0.8) if with_box else None
    logits = rng.normal(0, 4, (16, 16)).astype(np.float32) if with_mask else None

    predictor = SamPredictor(segmenter.sam)
    predictor.set_image(image)
    ambiguous = points == 1 and not with_box and not with_mask
    masks, ious, low_res = predictor.predict(
        coordinates if points else None,
        labels if points else None,
        None if box is None else np.array(box),
        None if logits is None else logits[None],
        multimask_output=ambiguous,
    )
    best = int(ious.argmax())
    prediction = segmenter.decode(segmenter.embed(image), Prompts(coordinates, labels, box, logits))

    assert np.array_equal(prediction.mask, masks[best])
    assert np.allclose(prediction.low_res_logits, low_res[best], rtol=0, atol=1e-5)
    assert prediction.predicted_iou == pytest.approx(float(np.clip(ious[best], 0, 1)))
    assert 0 <= prediction.stability <= 1


def test_half_precision_features_are_rounded_once() -> None:
    image = picture(60, 80)
    exact = SamSegmenter(small_vit_sam(), embedding_dtype="float32").embed(image)
    half = SamSegmenter(small_vit_sam(), embedding_dtype="float16").embed(image)
    assert half.features.dtype == np.float16
    assert np.array_equal(half.features, exact.features.astype(np.float16))


def test_a_window_gives_what_its_crop_gives(segmenter: SamSegmenter) -> None:
    image = picture(80, 100)
    window = Box(20, 10, 70, 60)
    inner = segmenter.decode(segmenter.embed(image[10:60, 20:70]), clicks((5, 6, 1), (30, 40, 0)))
    outer = segmenter.decode(segmenter.embed(image, window), clicks((25, 16, 1), (50, 50, 0)))
    assert outer.mask.shape == (80, 100)
    assert np.array_equal(outer.mask[10:60, 20:70], inner.mask)
    assert not outer.mask[:10].any()
    assert not outer.mask[:, 70:].any()


def test_a_window_over_the_border_sees_the_mean_pixel(segmenter: SamSegmenter) -> None:
    image = picture(40, 40)
    mean = np.round(segmenter.sam.pixel_mean.flatten().numpy()).astype(np.uint8)
    padded = np.broadcast_to(mean, (60, 60, 3)).copy()
    padded[15:55, 10:50] = image
    prompts = clicks((20, 20, 1), (2, 3, 0))
    over = segmenter.decode(segmenter.embed(image, Box(-10, -15, 50, 45)), prompts)
    inside = segmenter.decode(segmenter.embed(padded), clicks((30, 35, 1), (12, 18, 0)))
    assert np.array_equal(over.mask, inside.mask[15:55, 10:50])


def test_key_changes_with_pixels_window_encoder_and_dtype(segmenter: SamSegmenter) -> None:
    image, other = picture(30, 40), picture(30, 40, seed=1)
    keys = [
        segmenter.embed(image).key,
        segmenter.embed(other).key,
        segmenter.embed(image, Box(0, 0, 20, 20)).key,
        SamSegmenter(small_vit_sam(1), embedding_dtype="float32").embed(image).key,
        SamSegmenter(small_vit_sam(), embedding_dtype="float16").embed(image).key,
    ]
    assert len(set(keys)) == len(keys)
    assert embedding_address(hash_image(image), segmenter.encoder_hash, Box(0, 0, 40, 30)) == keys[0]
    assert embedding_address("name", segmenter.encoder_hash, Box(0, 0, 20, 20)) == (
        segmenter.embed(image, Box(0, 0, 20, 20), key="name").key
    )
    assert SamSegmenter(small_vit_sam(), embedding_dtype="float32").embed(image).key == keys[0]


def test_a_window_is_embedded_without_a_look_at_the_rest_of_the_image(
    segmenter: SamSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[tuple[int, ...]] = []

    def counted(image: Image) -> str:
        hashed.append(image.shape)
        return hash_image(image)

    monkeypatch.setattr(sam, "hash_image", counted)
    segmenter.embed(picture(300, 400), Box(100, 100, 120, 130), key="name of the content")
    assert hashed == []
    segmenter.embed(picture(300, 400), Box(100, 100, 120, 130))
    assert hashed == [(30, 20, 3)]


def test_images_of_equal_bytes_and_other_shape_have_other_hashes() -> None:
    image = picture(30, 40)
    assert hash_image(image) != hash_image(image.reshape(40, 30, 3))


def test_threads_share_one_model(segmenter: SamSegmenter) -> None:
    images = [picture(40, 60, seed) for seed in range(6)]
    prompts = clicks((20, 20, 1), (50, 10, 0))
    alone = [segmenter.decode(segmenter.embed(image), prompts).mask for image in images]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda image: segmenter.decode(segmenter.embed(image), prompts).mask, images))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_mask_prompt_marks_the_object_in_the_window(segmenter: SamSegmenter) -> None:
    image = picture(80, 100)
    embedding = segmenter.embed(image, Box(-10, 20, 54, 84))
    mask = np.zeros((80, 100), bool)
    mask[30:60, 5:40] = True
    logits = segmenter.mask_prompt(embedding, mask)
    assert logits.shape == (16, 16)
    expected = np.full((64, 64), -MASK_PROMPT_LOGIT, np.float32)
    expected[10:40, 15:50] = MASK_PROMPT_LOGIT
    assert np.allclose(logits, expected.reshape(16, 4, 16, 4).mean(axis=(1, 3)), atol=1e-4)
    assert segmenter.decode(embedding, Prompts(mask_logits=logits)).mask.shape == (80, 100)


@pytest.mark.parametrize(("x", "y", "label"), [(2.1, 2.6, 1), (13.5, 7.2, 0), (15.4, 15.4, 1), (-0.4, -0.4, 0)])
def test_clicks_hold_where_the_decoder_contradicts_them(x: float, y: float, label: int) -> None:
    logits = torch.full((16, 16), -3.0 if label else 3.0)
    places, labels = np.array([[x, y]]), np.array([label])
    held = hold_clicks(logits, places, labels, 2.0)
    row, column = (min(max(round(v), 0), 15) for v in (y, x))
    assert (float(held[row, column]) > 0) == bool(label)
    changed = (held != logits).nonzero()
    assert ((changed - torch.tensor([y, x])).norm(dim=1) <= 2.0 * 8 / 3 * 1.5 + 1).all()
    assert torch.equal(hold_clicks(-logits, places, labels, 2.0), -logits)


@pytest.mark.parametrize("label", [1, 0])
def test_what_is_alike_and_connected_comes_with_a_click(label: int) -> None:
    sign = 1.0 if label else -1.0
    logits = torch.full((32, 32), -6.0)
    logits[10:22, 4:14] = 5.0  # the body
    logits[14:18, 14:26] = -2.0  # a wing that the mask misses
    logits[25:28, 20:24] = -2.0  # as doubtful, but not connected
    held = sign * hold_clicks(sign * logits, np.array([[20.0, 16.0]]), np.array([label]), 3.0)
    assert (held[15:17, 15:25] > 0).all()
    assert (held[10:13, 14:26] < 0).all()
    assert torch.equal(held[25:28, 20:24], logits[25:28, 20:24])
    assert (held[10:22, 4:14] > 0).all()


@pytest.mark.parametrize("label", [1, 0])
def test_a_click_on_a_sliver_changes_nothing_far_away(label: int) -> None:
    sign = 1.0 if label else -1.0
    before = np.full((64, 64), -4.0, np.float32)
    before[8:56, 8:56] = 4.0
    answer = torch.from_numpy(before).clone()
    answer[8:56, 40:56] = -4.0  # the decoder drops the far side
    place, labels = np.array([[6.0, 30.0]]), np.array([label])  # two pixels beside the mask
    held = sign * hold_clicks(sign * answer, place, labels, 3.0, sign * before)
    assert held[30, 6] > 0
    assert (held[8:56, 8:56] > 0).all()
    assert (held[:20, :4] < 0).all()
    # What it agrees with is no correction: the decoder's answer stays.
    assert torch.equal(hold_clicks(sign * answer, np.array([[20.0, 30.0]]), labels, 3.0, sign * before), sign * answer)


@pytest.mark.parametrize("seed", range(4))
def test_every_click_holds_in_the_mask_itself(seed: int) -> None:
    # Windows that are enlarged and reduced, edges between the pixels of the logits, clicks of both signs close by.
    generator = np.random.default_rng(seed)
    segmenter = SamSegmenter(small_vit_sam(), window_rule=window_for, click_radius=3.0)
    image = picture(160, 200, seed)
    for side in (14, 40, 130):
        window = segmenter.window_for(Box(20, 15, 20 + side, 15 + side), (160, 200))
        embedding = segmenter.embed(image, window)
        inner = np.array([max(window.x0, 0), max(window.y0, 0)]), np.array([min(window.x1, 200), min(window.y1, 160)])
        points = np.floor(generator.uniform(inner[0] + 2, inner[1] - 3, (6, 2))) + 0.5
        apart = points[(np.abs(points[:, None] - points[None]).sum(2) + 99 * np.eye(6) > side / 4).all(1)]
        for count in range(1, len(apart) + 1):
            signs = generator.integers(0, 2, count)
            signs[0] = 1
            prompts = Prompts(apart[:count].astype(np.float32), signs)
            mask = segmenter.decode(embedding, prompts).mask
            assert [mask[int(y), int(x)] for x, y in apart[:count]] == [bool(sign) for sign in signs]


def test_negative_points_outside_the_window_change_nothing(segmenter: SamSegmenter) -> None:
    embedding = segmenter.embed(picture(80, 100), Box(0, 0, 40, 40))
    assert np.array_equal(
        segmenter.decode(embedding, clicks((10, 10, 1), (20, 30, 1), (90, 70, 0))).mask,
        segmenter.decode(embedding, clicks((10, 10, 1), (20, 30, 1))).mask,
    )


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (Prompts(), "a prompt is needed"),
        (clicks((101, 10, 1)), "inside the image of 100 x 80"),
        (clicks((10, -1, 0)), "inside the image"),
        (clicks((float("nan"), 10, 1)), "inside the image"),
        (clicks((10, 10, 2)), "labels must be 1"),
        (clicks((60, 60, 1)), "outside the embedded window"),
        (clicks((60, 60, 0)), "a positive point is needed"),
        (Prompts(box=Box(10, 10, 10, 20)), "is empty"),
        (Prompts(box=Box(60, 60, 80, 80)), "beside the embedded window"),
        (Prompts(mask_logits=np.zeros((8, 8), np.float32)), r"float32\[16, 16\]"),
        (Prompts(mask_logits=np.full((16, 16), np.nan, np.float32)), "finite"),
    ],
)
def test_prompts_that_cannot_work(segmenter: SamSegmenter, prompts: Prompts, message: str) -> None:
    embedding = segmenter.embed(picture(80, 100), Box(0, 0, 40, 40))
    with pytest.raises(PromptError, match=message):
        segmenter.decode(embedding, prompts)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
    ],
)
def test_images_that_cannot_be_embedded(segmenter: SamSegmenter, image: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ImageError, match="uint8"):
        segmenter.embed(image)


def test_a_window_beside_the_image_is_refused(segmenter: SamSegmenter) -> None:
    with pytest.raises(ImageError, match="outside the image of 20 x 10"):
        segmenter.embed(picture(10, 20), Box(20, 0, 30, 10))


def test_a_single_pixel_is_an_image(segmenter: SamSegmenter) -> None:
    assert segmenter.decode(segmenter.embed(picture(1, 1)), clicks((0, 0, 1))).mask.shape == (1, 1)

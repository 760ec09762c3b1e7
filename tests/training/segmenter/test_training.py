from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from backend.commands.train import train
from backend.pipeline.segmentation.compact_sam import load_compact_segmenter
from backend.pipeline.segmentation.sam import SamSegmenter
from backend.pipeline.types import Box, Image, Mask, Prompts
from backend.training.run import load_recipe
from backend.training.segmenter import training as segmenter_training
from backend.training.segmenter.prompts import (
    BatchPrompts,
    damaged_logits,
    decode_batch,
    interior_point,
    with_corrective_clicks,
)
from backend.training.segmenter.run import read_data, run_segmenter_training
from backend.training.segmenter.samples import PHOTOGRAPHS, augment_colors, draw_sample, plain_sample, scene_of
from backend.training.segmenter.settings import SegmenterSettings
from backend.training.segmenter.training import BalancedDraw
from backend.training.segmenter.validation import calibrate_predicted_iou, score_prompts, validate
from dataset_tools.errors import ConfigError
from tests.pipeline.segmentation.small_sams import small_compact_sam, small_vit_sam

WEIGHTS = Path(__file__).resolve().parents[3] / "backend" / "weights" / "compact_segmenter"


def rectangle(height: int, width: int, box: Box) -> tuple[Image, Mask]:
    """A bright rectangle on a dark ground."""
    mask = np.zeros((height, width), bool)
    mask[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = True
    image = np.full((height, width, 3), (60, 80, 50), np.uint8)
    image[mask] = (210, 200, 190)
    return image, mask


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two tiny datasets: one with a split, one whose validation images are named."""
    rng = np.random.default_rng(0)
    for name, count in (("split_set", 4), ("named_set", 2)):
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        images, annotations = [], []
        for index in range(count):
            x, y = rng.integers(10, 60, 2)
            box = Box(float(x), float(y), float(x + 30), float(y + 20))
            image, _ = rectangle(100, 120, box)
            file_name = f"{index}.png"
            cv2.imwrite(str(folder / "images" / file_name), image)
            images.append({"id": index + 1, "file_name": file_name, "width": 120, "height": 100})
            corners = [box.x0, box.y0, box.x1, box.y0, box.x1, box.y1, box.x0, box.y1]
            annotations.append(
                {
                    "id": index + 1,
                    "image_id": index + 1,
                    "category_id": 1 + index % 2,
                    "segmentation": [corners],
                    "bbox": [box.x0, box.y0, box.width, box.height],
                    "area": box.area,
                    "iscrowd": 0,
                }
            )
        categories = [{"id": 1, "name": "vehicle"}, {"id": 2, "name": "tennis_court"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations.json").write_text(json.dumps(content))
    split = {"train": ["0.png", "1.png"], "val": ["2.png"], "test": ["3.png"]}
    (tmp_path / "split_set" / "split.json").write_text(json.dumps(split))
    return tmp_path


@pytest.fixture
def config() -> dict[str, Any]:
    """The shipped config at toy size."""
    shipped = load_recipe(WEIGHTS / "train.yaml")
    return shipped | {
        "init": None,
        "model": {"embed_dim": 32, "widths": [8, 8, 16, 16, 16], "depths": [1, 1, 1, 1], "mlp_dim": 32},
        "data": {
            "split_set": {"split": "train", "validation_split": "val"},
            "named_set": {"validation": ["1.png"]},
        },
        "synthetic_scenes": 0,
        "shape_scenes": 0,
        "steps": 4,
        "sizes": [[0.0, 32], [0.5, 64]],
        "groups": [{**group, "windows": 2} for group in shipped["groups"]],
        "warmup": 1,
        "log_every": 1,
        "validate_every": 2,
    }


def test_training_writes_weights_that_the_pipeline_loads(data: Path, config: dict[str, Any], tmp_path: Path) -> None:
    weights = run_segmenter_training(data, tmp_path / "run", config, resume=False)
    segmenter = load_compact_segmenter(weights)
    image, _ = rectangle(100, 120, Box(20, 20, 60, 50))
    prediction = segmenter.decode(segmenter.embed(image, Box(0, 0, 80, 80)), Prompts(box=Box(20, 20, 60, 50)))
    assert prediction.mask.shape == (100, 120)
    assert segmenter.sam.image_encoder.img_size == 64
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if line["kind"] == "validation"] == [2, 4]
    assert {"score", "box_iou", "jittered_iou", "click_1_iou", "vehicle_iou"} <= set(log[-1])
    assert (tmp_path / "run" / "curves.png").exists()
    assert (tmp_path / "run" / "reliability.png").read_bytes().startswith(b"\x89PNG")
    reported = json.loads((tmp_path / "run" / "validation.json").read_text())
    _, validation = read_data(data, SegmenterSettings.of(config))
    assert isinstance(segmenter, SamSegmenter)
    measured = validate(segmenter.sam, validation, config["seed"])  # the file's, calibrated, in half precision
    assert reported.keys() == {*measured, "calibration"}
    assert {name: reported[name] for name in measured} == pytest.approx(measured, abs=0.01)


def test_calibration_brings_predicted_iou_closer(data: Path, config: dict[str, Any]) -> None:
    _, validation = read_data(data, SegmenterSettings.of(config))
    sam = small_compact_sam()
    before = np.concatenate(list(score_prompts(sam, validation, 0).values()))
    slope, _ = calibrate_predicted_iou(sam, before)
    after = np.concatenate(list(score_prompts(sam, validation, 0).values()))
    assert 0.5 <= slope <= 1.5
    assert ((after[:, 0] - after[:, 1]) ** 2).mean() < ((before[:, 0] - before[:, 1]) ** 2).mean()
    assert abs((after[:, 0] - after[:, 1]).mean()) < 0.02


def test_a_resumed_run_ends_as_an_uninterrupted_one(data: Path, config: dict[str, Any], tmp_path: Path) -> None:
    whole = run_segmenter_training(data, tmp_path / "whole", config, resume=False)
    stopped = config | {"stop_after": 2}
    run_segmenter_training(data, tmp_path / "parts", stopped, resume=False)
    written = tmp_path / "parts" / "config.yaml"
    written.write_text(written.read_text().replace("stop_after: 2", "stop_after: null"))
    parts = run_segmenter_training(data, tmp_path / "parts", config, resume=True)
    checkpoints = [torch.load(path.parent / "checkpoint.pt", weights_only=True)["model"] for path in (whole, parts)]
    assert all(torch.equal(checkpoints[0][name], value) for name, value in checkpoints[1].items())


def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint(
    data: Path, config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config |= {"validate_every": 4, "save_every": 1, "threads": 1}
    draw = segmenter_training._draw_batch
    drawn: list[int] = []

    def killed(*args: Any) -> Any:
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(args[-1])
        return draw(*args)

    monkeypatch.setattr(segmenter_training, "_draw_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        run_segmenter_training(data, tmp_path / "run", config, resume=False)
    drawn.clear()
    run_segmenter_training(data, tmp_path / "run", config, resume=True)
    assert drawn[0] > 0
    assert drawn[-1] == 3


def test_weights_to_start_from_are_used(data: Path, config: dict[str, Any], tmp_path: Path) -> None:
    run_segmenter_training(data, tmp_path / "first", config, resume=False)
    frozen = config | {"init": str(tmp_path / "first" / "best.safetensors"), "learning_rate": 0.0, "stop_after": 1}
    run_segmenter_training(data, tmp_path / "second", frozen, resume=False)
    first, second = (load_file(tmp_path / name / "best.safetensors") for name in ("first", "second"))
    assert torch.equal(first["image_encoder.stem.0.weight"], second["image_encoder.stem.0.weight"])


def test_the_mean_with_the_first_weights_is_exported(data: Path, config: dict[str, Any], tmp_path: Path) -> None:
    run_segmenter_training(data, tmp_path / "first", config, resume=False)
    first = tmp_path / "first" / "best.safetensors"
    changed = config | {"init": str(first), "average_with_init": 0.25}
    exported = run_segmenter_training(data, tmp_path / "second", changed, resume=False)
    name = "image_encoder.stem.0.weight"
    before, best = load_file(first)[name], load_file(tmp_path / "second" / "best.safetensors")[name]
    assert not torch.equal(best, before)
    assert torch.equal(load_file(exported)[name], torch.lerp(best, before, 0.25).half())
    run_segmenter_training(data, tmp_path / "second", changed, resume=True)  # it is finished: nothing may change
    assert torch.equal(load_file(exported)[name], torch.lerp(best, before, 0.25).half())


def test_the_best_weights_are_of_the_last_size(
    data: Path, config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    falling = iter((0.9, 0.8, 0.7, 0.6))
    monkeypatch.setattr(segmenter_training, "validate", lambda *_: {"score": next(falling)})
    run_segmenter_training(data, tmp_path / "run", config | {"validate_every": 1}, resume=False)
    assert json.loads((tmp_path / "run" / "best.json").read_text())["step"] == 3


def test_data_keeps_the_splits_apart(data: Path, config: dict[str, Any]) -> None:
    training, validation = read_data(data, SegmenterSettings.of(config))
    assert [scene.name for scene in training] == ["0.png", "1.png", "0.png"]
    assert [scene.name for scene in validation] == ["2.png", "1.png"]
    training, _ = read_data(data, SegmenterSettings.of(config | {"exclude_categories": ["tenniscourt"]}))
    assert {target.category for scene in training for target in scene.objects} == {"vehicle"}
    with pytest.raises(ConfigError, match="missing_set"):
        read_data(data, SegmenterSettings.of(config | {"data": {"missing_set": {"validation": []}}}))


def test_a_dataset_gets_the_share_of_the_windows_that_it_is_given(data: Path, config: dict[str, Any]) -> None:
    first = next(iter(config["data"]))
    shared = config | {"data": config["data"] | {first: config["data"][first] | {"share": 0.9}}, "synthetic_share": 0.0}
    scenes, _ = read_data(data, SegmenterSettings.of(shared | {"shape_share": 0.0}))
    draw, rng = BalancedDraw(scenes, 0.6, {first: 0.9}), np.random.default_rng(0)
    origins = [draw(rng)[0].origin for _ in range(1000)]
    assert set(origins) == {first, PHOTOGRAPHS}
    assert origins.count(first) == pytest.approx(900, abs=40)
    with pytest.raises(ConfigError, match=r"they add up to 1\.4"):
        SegmenterSettings.of(shared | {"shape_share": 0.5})


def test_a_training_by_the_clock_ends_with_weights_whatever_draws_its_windows(
    data: Path, config: dict[str, Any], tmp_path: Path
) -> None:
    weights = run_segmenter_training(data, tmp_path / "run", config, resume=False, minutes=0.02, workers=1)
    assert load_compact_segmenter(weights).sam.image_encoder.img_size == 64
    assert (tmp_path / "run" / "checkpoint.pt").exists()


def test_synthetic_scenes_are_drawn_from_the_seed(data: Path, config: dict[str, Any]) -> None:
    drawn = [read_data(data, SegmenterSettings.of(config | {"synthetic_scenes": 1}))[0][-1] for _ in range(2)]
    assert drawn[0].origin == "synthetic"
    assert np.array_equal(drawn[0].image, drawn[1].image)
    assert drawn[0].objects


def test_the_command_takes_overrides_and_explains_bad_ones(data: Path, tmp_path: Path) -> None:
    arguments = ["compact-segmenter", "--data", str(data), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(train, [*arguments, "--set", "stepps=3"])
    assert isinstance(result.exception, ConfigError)
    assert "stepps" in str(result.exception)
    assert "compact-segmenter" in CliRunner().invoke(train, ["--help"]).output


def test_kinds_of_prompts_are_checked(data: Path, config: dict[str, Any], tmp_path: Path) -> None:
    groups = [{"windows": 1, "prompts": {"scribble": 1.0}, "rounds": [1.0]}]
    with pytest.raises(ConfigError, match="scribble"):
        run_segmenter_training(
            data,
            tmp_path / "run",
            config | {"groups": groups},
            resume=False,
        )


@pytest.mark.parametrize(
    ("section", "wrong", "value", "message"),
    [
        ((), "learning_rat", 0.1, "no setting 'learning_rat': did you mean 'learning_rate'?"),
        (("model",), "width", [8], "model has no setting 'width': did you mean 'widths'?"),
        (("groups", 0), "window", 3, "groups has no setting 'window': did you mean 'windows'?"),
        (("data", "split_set"), "validation_spilt", "val", "did you mean 'validation_split'?"),
        (("data", "split_set"), "validation", ["0.png"], "data: split_set needs split and validation_split, or"),
        ((), "exclude_categories", ["aeroplane"], "'aeroplane' is no canonical category"),
    ],
)
def test_a_wrong_setting_is_named(
    config: dict[str, Any], section: tuple[str | int, ...], wrong: str, value: object, message: str
) -> None:
    place: Any = config
    for name in section:
        place = place[name]
    place[wrong] = value
    with pytest.raises(ConfigError) as caught:
        SegmenterSettings.of(config)
    assert message in str(caught.value)


@pytest.mark.parametrize("recipe", sorted(WEIGHTS.glob("train*.yaml")), ids=lambda path: path.name)
def test_every_shipped_recipe_is_valid(recipe: Path) -> None:
    assert SegmenterSettings.of(load_recipe(recipe)).steps > 0


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("free_window", [False, True])
def test_image_mask_and_box_of_a_sample_move_together(seed: int, free_window: bool) -> None:
    image, mask = rectangle(300, 400, Box(120, 90, 220, 150))
    scene = scene_of("scene", image, [("vehicle", mask)])
    rng = np.random.default_rng(seed)
    sample = draw_sample(scene, scene.objects[0], 96, rng, jitter=0.0, free_window=free_window)
    bright = sample.image.mean(axis=2)
    inside, outside = bright[sample.mask == 1], bright[sample.mask == 0]
    if inside.size and outside.size:
        assert np.median(inside) > np.median(outside)
    tight = np.array(Box.of_mask(sample.mask.astype(bool)))
    if (sample.box >= 0).all() and (sample.box <= 96).all():
        assert np.abs(sample.box - tight).max() <= 2.5
    assert sample.full_area >= sample.mask.sum() * 0.9


def test_a_plain_sample_is_what_inference_embeds() -> None:
    image, mask = rectangle(200, 260, Box(100, 80, 140, 110))
    scene = scene_of("scene", image, [("vehicle", mask)])
    sample = plain_sample(scene, scene.objects[0], scene.objects[0].box, 140)
    # 40 x 30 pixels in a window of 70, magnified twice.
    assert tuple(sample.box) == pytest.approx((30, 40, 110, 100), abs=1e-3)
    assert tuple(Box.of_mask(sample.mask.astype(bool))) == pytest.approx((30, 40, 110, 100), abs=1)
    assert sample.full_area == pytest.approx(40 * 30 * 4)


def test_colors_change_but_size_and_type_do_not() -> None:
    image, _ = rectangle(64, 64, Box(10, 10, 50, 40))
    seen = set()
    for seed in range(40):
        augmented = augment_colors(image, np.random.default_rng(seed))
        assert augmented.shape == image.shape
        assert augmented.dtype == np.uint8
        seen.add(augmented.tobytes())
    assert len(seen) == 40


def test_batched_decoding_equals_the_adapter() -> None:
    sam = small_compact_sam()
    segmenter = SamSegmenter(sam, embedding_dtype="float32")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    points = rng.uniform(0, 64, (3, 2, 2)).astype(np.float32)
    labels = np.array([[1, 0]] * 3)
    boxes = np.array([[5, 6, 40, 50], [10, 0, 64, 60], [20, 20, 30, 30]], np.float32)
    logits = rng.normal(0, 3, (3, 32, 32)).astype(np.float32)
    embeddings = [segmenter.embed(image) for image in images]
    features = torch.from_numpy(np.stack([embedding.features for embedding in embeddings]))
    batch = BatchPrompts(*(torch.from_numpy(array) for array in (points, labels, boxes, logits)))
    with torch.no_grad():
        low, iou = decode_batch(sam, features, batch)
    for index, embedding in enumerate(embeddings):
        box = Box(*(float(v) for v in boxes[index]))
        alone = segmenter.decode(embedding, Prompts(points[index], labels[index], box, logits[index]))
        assert np.allclose(low[index].numpy(), alone.low_res_logits, atol=1e-4)
        assert float(iou[index].clamp(0, 1)) == pytest.approx(alone.predicted_iou, abs=1e-5)


def test_prompt_positions_stay_exact_under_autocast() -> None:
    sam = small_compact_sam()
    boxes = torch.tensor([[5.25, 6.5, 40.75, 50.125]])
    prompts = BatchPrompts(torch.zeros(1, 0, 2), torch.zeros(1, 0, dtype=torch.int64), boxes)
    features = torch.randn(1, 32, 8, 8)
    with torch.no_grad():
        exact, _ = decode_batch(sam, features, prompts)
        with torch.autocast("cpu", torch.bfloat16):
            rounded, _ = decode_batch(sam, features, prompts)
    assert torch.allclose(exact, rounded, atol=0.1 * float(exact.abs().max()))


def test_corrective_clicks_go_to_the_error_and_perfect_masks_get_a_positive_one() -> None:
    target = np.zeros((2, 20, 20), bool)
    target[:, 4:12, 4:12] = True
    predicted = target.copy()
    predicted[0, 12:18, 4:12] = True
    none = BatchPrompts(torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 4))
    clicked = with_corrective_clicks(none, predicted, target, None, keep_box=False)
    assert clicked.labels[:, 0].tolist() == [0, 1]
    x, y = clicked.points[0, 0].int().tolist()
    assert predicted[0, y, x]
    assert not target[0, y, x]
    x, y = clicked.points[1, 0].int().tolist()
    assert target[1, y, x]
    assert clicked.boxes is None


@pytest.mark.parametrize("seed", range(8))
def test_damaged_regions_resemble_the_object(seed: int) -> None:
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 10:50, 15:45] = True
    damaged, logits = damaged_logits(mask, 32, np.random.default_rng(seed))
    assert logits.shape == (1, 32, 32)
    assert (damaged & mask).sum() / (damaged | mask).sum() > 0.3
    assert ((logits[0].numpy() > 0) == (damaged[0].reshape(32, 2, 32, 2).mean(axis=(1, 3)) > 0.5)).mean() > 0.98


def test_interior_points_lie_inside() -> None:
    mask = np.zeros((30, 30), bool)
    mask[3:9, 20:29] = True
    for seed in range(20):
        x, y = interior_point(mask, np.random.default_rng(seed))
        assert mask[int(y), int(x)]
    assert interior_point(np.zeros((10, 20), bool), np.random.default_rng(0)) == (10.0, 5.0)


def test_a_mask_prompt_means_the_same_in_training_and_use() -> None:
    segmenter = SamSegmenter(small_vit_sam(), embedding_dtype="float32")
    mask = np.zeros((64, 64), bool)
    mask[20:50, 10:40] = True
    embedding = segmenter.embed(np.zeros((64, 64, 3), np.uint8))
    used = segmenter.mask_prompt(embedding, mask)
    resized = cv2.resize(mask.astype(np.float32), (16, 16), interpolation=cv2.INTER_AREA)
    assert np.allclose(used, (resized * 2 - 1) * used.max())

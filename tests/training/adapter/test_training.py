"""The adapter: learns labels the detector never heard of, and leaves what it knew as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.pipeline.grounding.compact.detections import prepare
from backend.pipeline.grounding.compact.detector_file import load_detector, save_adapted
from backend.pipeline.grounding.compact.grounder import load_compact_grounder
from backend.training.adapter.adaptation import AdaptationOptions, adapt_grounder
from backend.training.adapter.calibration import FIRST_EVEN, cross_fitted
from backend.training.adapter.training import AdapterData, AdapterOptions, train_adapter, with_adapter
from backend.training.adapter.views import FeatureCache, FeatureView, adapted_output, training_views
from dataset_tools.image_files import read
from dataset_tools.labelled import LabelledObject
from tests.learning.project_scenes import LABEL, panels, tiny_grounder

OPTIONS = AdapterOptions(
    steps=400, rows=512, background=60, hard=20, mined=4, learning_rate=3e-3, output_rate=5.0
)  # random features need more steps than trained ones


def test_a_new_label_is_learnt_and_nothing_known_changes(tmp_path: Path) -> None:
    base = tiny_grounder(tmp_path / "base.safetensors")
    detector, calibration = load_detector(base)
    cache = FeatureCache(detector, tmp_path / "features")
    images = panels(tmp_path / "train", 8)
    views = [(image, view) for image in images for view in training_views(calibration.scales, 3)]
    adapted = with_adapter(detector, (LABEL,), 16, seed=0)
    data = AdapterData(cache, adapted.config.categories, (LABEL,), views, [], OPTIONS)
    train_adapter(adapted, data, range(len(views)), OPTIONS.steps)
    learnt = cross_fitted(detector, calibration, data, (LABEL,), (), 16, 400)
    assert {name: learnt.even[name] for name in calibration.even} == calibration.even
    save_adapted(base, adapted, learnt, tmp_path / "adapted.safetensors")

    grounder = load_compact_grounder(tmp_path / "adapted.safetensors", bfloat16=False)
    assert grounder.known_categories == {"ship", "bridge", LABEL}
    for image in panels(tmp_path / "test", 3, seed=9):
        pixels = read(image.path)
        result = grounder.ground(pixels, "the yellow solar panel")
        assert [g.category for g in result.groundings] == [LABEL]
        assert result.groundings[0].box.iou(image.objects[0].box) > 0.4
        with torch.inference_mode():
            before, after = (network(prepare(pixels, 1.0)) for network in (detector, adapted))
        for level in range(len(before.heat)):
            assert torch.equal(before.heat[level], after.heat[level][:, :2])
            assert torch.equal(before.sides[level], after.sides[level][:, :4])


def test_a_category_of_which_nothing_is_found_yet_is_answered_from_low_scores_on(tmp_path: Path) -> None:
    detector, calibration = load_detector(tiny_grounder(tmp_path / "base.safetensors"))
    cache = FeatureCache(detector, tmp_path / "features")
    whole = panels(tmp_path / "train", 6)
    speck = np.zeros((whole[0].height, whole[0].width), np.bool_)
    speck[1:4, 1:4] = True
    images = [replace(image, objects=(LabelledObject.of(LABEL, speck),)) for image in whole]
    views = [(image, FeatureView(calibration.scales[-1])) for image in images]
    data = AdapterData(cache, ("ship", "bridge", LABEL), (LABEL,), views, [], OPTIONS)
    learnt = cross_fitted(detector, calibration, data, (LABEL,), (), 16, 20)
    assert learnt.even == {**calibration.even, LABEL: FIRST_EVEN}
    assert min(calibration.even.values()) > FIRST_EVEN


@pytest.mark.parametrize("calibration_steps", [0, 1])
def test_a_project_reads_images_as_the_weights_it_began_with(tmp_path: Path, calibration_steps: int) -> None:
    detector, calibration = load_detector(tiny_grounder(tmp_path / "base.safetensors"))
    options = AdaptationOptions(replace(OPTIONS, steps=1), 8, 1, calibration_steps=calibration_steps)
    images = panels(tmp_path / "train", 4)
    adapted = adapt_grounder(FeatureCache(detector, None), replace(calibration, mirrored=1), images, [], options)
    assert adapted is not None
    assert (adapted[1].scales, adapted[1].mirrored) == (calibration.scales, 1)


def test_before_the_first_step_the_labels_are_known_already(tmp_path: Path) -> None:
    detector, calibration = load_detector(tiny_grounder(tmp_path / "base.safetensors"))
    cache = FeatureCache(detector, tmp_path / "features")
    views = [(image, FeatureView(calibration.scales[-1])) for image in panels(tmp_path / "train", 8)]
    adapted = with_adapter(detector, (LABEL,), 16, seed=0)
    data = AdapterData(cache, adapted.config.categories, (LABEL,), views, [], OPTIONS)
    train_adapter(adapted, data, range(len(views)), 0)
    inside = []
    for image in panels(tmp_path / "test", 4, seed=9):
        with torch.inference_mode():
            heat = adapted(prepare(read(image.path), 1.0)).heat[0][0, 2]
        (x, y), place = image.objects[0].box.center, np.unravel_index(int(heat.argmax()), heat.shape)
        inside.append(
            abs(place[0] * 4 + 2 - y) <= image.objects[0].box.height / 2 + 4
            and abs(place[1] * 4 + 2 - x) <= image.objects[0].box.width / 2 + 4
        )
    assert sum(inside) >= 3, inside


def test_kept_readings_give_what_the_network_gives(tmp_path: Path) -> None:
    detector, calibration = load_detector(tiny_grounder(tmp_path / "base.safetensors"))
    image = panels(tmp_path / "images", 1)[0]
    pixels = read(image.path)
    for _ in range(2):  # computed, then read back
        cache = FeatureCache(detector, tmp_path / "features")
        for side in calibration.scales:
            kept = adapted_output(detector, cache.reading(image, FeatureView(side)))
            with torch.inference_mode():
                direct = detector(prepare(pixels, side / max(pixels.shape[:2])))
            for found, wanted in zip(kept.heat + kept.sides, direct.heat + direct.sides, strict=True):
                assert torch.allclose(found.float(), wanted, rtol=0.02, atol=0.06)  # kept as float16 or bfloat16
    assert len(list((tmp_path / "features").rglob("*.npy"))) == len(calibration.scales)


def test_a_full_folder_gives_up_what_other_detectors_left_and_then_keeps_nothing_more(tmp_path: Path) -> None:
    detector, _ = load_detector(tiny_grounder(tmp_path / "base.safetensors"))
    image = panels(tmp_path / "images", 1)[0]
    stale = tmp_path / "features" / ("0" * 16)
    stale.mkdir(parents=True)
    np.save(stale / "old.npy", np.zeros(200_000, np.uint8))
    (tmp_path / "features" / "windows").mkdir()
    cache = FeatureCache(detector, tmp_path / "features", limit_bytes=200_000)
    assert not stale.exists()
    assert (tmp_path / "features" / "windows").is_dir()
    for side in (64, 96, 128, 192, 256):
        cache.reading(image, FeatureView(side))
    kept = sum(path.stat().st_size for path in (tmp_path / "features").rglob("*.npy"))
    assert 0 < kept <= 200_000
    again = FeatureCache(detector, tmp_path / "features", limit_bytes=kept)
    again.reading(image, FeatureView(320))
    assert sum(path.stat().st_size for path in (tmp_path / "features").rglob("*.npy")) == kept


@pytest.mark.parametrize("view", [FeatureView(192, turns, flip) for turns in range(4) for flip in (False, True)])
def test_boxes_follow_the_turned_pixels(view: FeatureView) -> None:
    mask = np.zeros((96, 192), np.bool_)
    mask[10:30, 50:110] = True
    rows, columns = np.nonzero(view.apply(mask))
    box = view.boxes(np.array([[50, 10, 110, 30]], np.float32), (96, 192))[0]
    assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]

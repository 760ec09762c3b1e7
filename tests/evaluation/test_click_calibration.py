"""The number beside a click's suggestion: known odds are found again, and what is observed is what is shown."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from backend.commands.calibrate_score import calibrate_score
from backend.evaluation import click_calibration
from backend.evaluation.click_calibration import ShownMask, cross_fitted, fit, observe, scored
from backend.evaluation.clicks import clicks_to, evaluate_prelabels, supposing
from backend.evaluation.expressions import read_questions
from backend.pipeline import load_pipeline
from backend.pipeline.config import LogisticConfig, PipelineConfig, load_config
from backend.pipeline.scores import clicked_score, log_odds
from backend.pipeline.types import MaskPrediction, NamedImage
from backend.pipeline.weights import model_version
from dataset_tools import synthetic
from dataset_tools.errors import ConfigError
from dataset_tools.image_files import read
from dataset_tools.labelled import read as read_labelled
from dataset_tools.labelled import spread, whole_objects
from dataset_tools.metrics import iou
from tests.conftest import REPOSITORY


def drawn(count: int, seed: int = 0) -> list[ShownMask]:
    """Masks that are accepted by one known rule."""
    generator = np.random.default_rng(seed)
    masks = []
    for number in range(count):
        parts = {
            "predicted_iou": float(generator.uniform(0.4, 0.97)),
            "stability": float(generator.uniform(0.6, 0.97)),
        }
        odds = 1.5 * log_odds(parts["predicted_iou"]) + 0.5 * log_odds(parts["stability"]) - 2.0
        good = generator.random() < 1 / (1 + math.exp(-odds))
        masks.append(
            ShownMask(f"image-{number // 4}", "box" if number % 4 == 0 else "click", parts, 0.9 if good else 0.7)
        )
    return masks


def test_known_odds_are_found_again_and_hold_on_what_was_not_seen() -> None:
    model = fit(drawn(4000))
    assert model.offset == pytest.approx(-2, abs=0.4)
    assert model.weights == pytest.approx({"predicted_iou": 1.5, "stability": 0.5}, abs=0.2)
    unseen = drawn(2000, seed=1)
    assert scored(unseen, None, 0.85)["clicks"].ece > 0.15
    for rows in (scored(unseen, model, 0.85), cross_fitted(unseen)):
        assert rows["clicks"].n == 1500
        assert rows["boxes"].n == 500
        assert max(row.ece for row in rows.values()) < 0.08
    with pytest.raises(ConfigError, match="0 clicked or boxed masks with an IoU of"):
        fit([ShownMask("a", "click", {"predicted_iou": 0.5, "stability": 0.5}, 0.1)])


def prediction(predicted_iou: float, stability: float) -> MaskPrediction:
    return MaskPrediction(np.zeros((2, 2), np.bool_), predicted_iou, np.zeros((1, 1), np.float32), lambda: stability)


def test_the_number_is_the_calibrated_one_where_the_config_has_it() -> None:
    config = load_config("compact").score
    assert config is not None
    plain = config.model_copy(update={"clicked": None})
    assert clicked_score(prediction(0.7, 0.9), None) == clicked_score(prediction(0.7, 0.9), plain) == 0.7
    model = LogisticConfig(offset=-1.0, weights={"predicted_iou": 2.0})
    value = clicked_score(prediction(0.7, 0.9), config.model_copy(update={"clicked": model}))
    assert value == pytest.approx(1 / (1 + math.exp(1.0 - 2.0 * log_odds(0.7))))
    assert config.clicked is not None, "pslg calibrate-score has not been run for clicks"
    with pytest.raises(ValueError, match="clicks have no part grounding"):
        type(config).model_validate({**config.model_dump(), "clicked": {"offset": 0.0, "weights": {"grounding": 1.0}}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One drawn scene with its expressions, all in ``val``."""
    scenes = [synthetic.draw_scene(5, 320, 240, "airport")]
    return synthetic.write(tmp_path_factory.mktemp("data"), scenes, split=(0.0, 1.0, 0.0))


def test_clicks_end_where_the_mask_is_good(folder: Path) -> None:
    pipeline = load_pipeline("compact")
    targets = spread(whole_objects(read_labelled(folder, "val")), 2)
    seen = observe(pipeline, targets, read)
    assert [mask.by for mask in seen].count("box") == len(targets)
    (labelled, target), begins = targets[0], [n for n, mask in enumerate(seen) if mask.by == "box"]
    clicks = seen[1 : begins[1]]
    assert all(mask.iou < 0.85 for mask in clicks[:-1])
    image = read(labelled.path)
    supposed = supposing(pipeline, NamedImage.of(image), target.category)
    embed = partial(pipeline.segmenter.embed, image)
    needed = clicks_to(pipeline.segmenter, embed, target.mask(), None, enough=0.85, cap=6, supposed=supposed)
    assert needed == len(clicks)


def test_what_a_pre_label_saves_is_counted_on_the_same_objects(folder: Path) -> None:
    pipeline = load_pipeline("compact")
    asked = [question for question in read_questions(folder, "val") if len(question.targets) == 1][:6]
    report = evaluate_prelabels(pipeline, asked, read, (0.8, 0.95), cap=4)
    begun, alone = report["from_prelabel"], report["without_prelabel"]
    assert begun["n"] == alone["n"] == report["answered"] - report["good"]
    assert begun["n"] > 0
    found = [(question, pipeline.prelabel(read(question.image.path), question.expression.text)) for question in asked]
    reached = [iou(one[0].mask, question.targets[0].mask()) for question, one in found if len(one) == 1]
    below = [value for value in reached if value < 0.95]
    assert begun["n"] == pytest.approx(len(below), abs=1)  # cleaned of specks
    assert begun["NoC@0.80"] <= 4 * sum(value < 0.8 for value in below) / len(below) + 1e-9
    assert alone["NoC@0.80"] >= 1


def test_one_command_fits_clicks_alone_and_keeps_the_rest(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The masks are drawn (one scene cannot calibrate anything); everything after them is real."""
    monkeypatch.setattr(click_calibration, "observe", lambda *_: drawn(400))
    mine = tmp_path / "mine.yaml"
    mine.write_text((REPOSITORY / "configs" / "compact.yaml").read_text())
    before: PipelineConfig = load_config(mine)
    words = ["--data", str(folder), "--config", str(mine), "--only", "clicks", "--write", "--json", "--measure", "val"]
    result = CliRunner().invoke(calibrate_score, words)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    after = load_config(mine)
    assert before.score is not None
    assert after.score == before.score.model_copy(update={"clicked": fit(drawn(400))})
    assert model_version(after) == model_version(before)
    assert list(report["reliability"]) == ["val, predicted IoU", "val, clicks cross-fitted", "val, clicks calibrated"]

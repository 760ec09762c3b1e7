"""Calibration: known odds are found again, figures worked out by hand, and a config's file keeps its comments."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from backend.commands.calibrate_score import calibrate_score
from backend.evaluation import score_calibration
from backend.evaluation.expressions import read_questions
from backend.evaluation.score_calibration import (
    ObservedAnswer,
    cross_fitted,
    fit,
    observe,
    reliability,
    scored,
    with_score,
)
from backend.pipeline import load_pipeline
from backend.pipeline.config import LogisticConfig, PipelineConfig, ScoreConfig, load_config
from backend.pipeline.scores import log_odds
from backend.pipeline.weights import model_version
from dataset_tools import metrics, synthetic
from dataset_tools.errors import ConfigError
from dataset_tools.image_files import read
from tests.conftest import REPOSITORY


def logistic(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


def drawn(count: int, seed: int = 0) -> list[ObservedAnswer]:
    """Objects that are found with the grounder's own probability and outlined well by one known rule."""
    generator = np.random.default_rng(seed)
    answers = []
    for number in range(count):
        part = {
            "grounding": float(generator.uniform(0.3, 0.97)),
            "predicted_iou": float(generator.uniform(0.5, 0.97)),
            "stability": float(generator.uniform(0.7, 0.97)),
        }
        iou = 0.0
        if generator.random() < part["grounding"]:
            odds = 2.0 * log_odds(part["predicted_iou"]) + log_odds(part["stability"]) - 5.0
            iou = 0.9 if generator.random() < logistic(odds) else 0.7
        answers.append(ObservedAnswer(f"image-{number // 3}", (part,), (iou,), iou))
    return answers


def test_known_odds_are_found_again() -> None:
    fitted = fit(drawn(6000))
    assert fitted.found.offset == pytest.approx(0, abs=0.15)
    assert fitted.found.weights["grounding"] == pytest.approx(1, abs=0.1)
    assert fitted.found.weights["predicted_iou"] == pytest.approx(0, abs=0.1)
    assert fitted.outlined.offset == pytest.approx(-5, abs=0.6)
    assert fitted.outlined.weights["predicted_iou"] == pytest.approx(2, abs=0.2)
    assert fitted.outlined.weights["stability"] == pytest.approx(1, abs=0.2)


def test_a_part_that_speaks_against_itself_gets_no_weight() -> None:
    turned = [
        ObservedAnswer(a.image, ({**a.parts[0], "grounding": 1 - a.parts[0]["grounding"]},), a.ious, a.iou)
        for a in drawn(1500)
    ]
    assert fit(turned).found.weights["grounding"] == 0.0


def test_calibrated_scores_hold_on_answers_that_were_not_seen() -> None:
    seen, unseen = drawn(1500), drawn(1500, seed=1)
    before, after = scored(unseen, None, 0.85)["objects"], scored(unseen, fit(seen), 0.85)["objects"]
    assert before.ece > 0.3
    assert after.ece < 0.06
    assert after.auc > 0.75
    assert cross_fitted(seen)["objects"].ece < 0.06


def test_an_answer_is_as_good_as_its_least_object() -> None:
    good, bad = dict.fromkeys(("grounding", "predicted_iou", "stability"), 0.9), dict.fromkeys(("grounding",), 0.1)
    rows = scored(
        [ObservedAnswer("a", (good, bad), (0.9, 0.1), 0.6), ObservedAnswer("b", (good,), (0.9,), 0.9)], None, 0.85
    )
    assert rows["objects"].n == 3
    assert rows["answers"].mean == pytest.approx((0.1 + 0.9) / 2)
    assert rows["answers"].accepted == 0.5


def test_figures_worked_out_by_hand() -> None:
    found = reliability(np.array([0.2, 0.8]), np.array([False, True]))
    assert found.ece == pytest.approx(0.2)
    assert found.brier == pytest.approx(0.04)
    assert found.auc == 1.0
    assert found.bins == ((0.2, 0.0, 1), (0.8, 1.0, 1))
    tied = reliability(np.full(10, 0.5), np.arange(10) < 5)
    assert tied.auc == 0.5
    assert reliability(np.array([0.5]), np.array([True])).auc == 0.5


def test_too_little_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="too little to calibrate scores on: 0 objects found, 1 not"):
        fit([ObservedAnswer("a", ({"grounding": 0.5, "predicted_iou": 0.5, "stability": 0.5},), (0.1,), 0.1)])


@pytest.mark.parametrize("name", ["compact", "sam_vit_b"])
def test_the_section_is_replaced_or_added_and_all_else_stays(name: str) -> None:
    text = (REPOSITORY / "configs" / f"{name}.yaml").read_text()
    score = ScoreConfig(
        accepted_iou=0.8,
        found=LogisticConfig(offset=-0.5, weights={"grounding": 1.5}),
        outlined=LogisticConfig(offset=-3.0, weights={"stability": 2.0}),
        clicked=LogisticConfig(offset=-2.0, weights={"predicted_iou": 1.5}),
    )
    changed = with_score(text, score)
    values = {"name": name, **yaml.safe_load(changed)}
    assert PipelineConfig.model_validate(values).score == score
    assert {**yaml.safe_load(text), "score": None} == {**yaml.safe_load(changed), "score": None}
    assert with_score(changed, score) == changed
    assert set(text.splitlines()) - set(changed.splitlines()) <= {
        line
        for line in text.splitlines()
        if line.startswith(("score:", "  accepted_iou", "  found", "  outlined", "  clicked"))
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One drawn scene with its expressions, all in ``val``."""
    scenes = [synthetic.draw_scene(5, 320, 240, "airport")]
    return synthetic.write(tmp_path_factory.mktemp("data"), scenes, split=(0.0, 1.0, 0.0))


def test_what_is_observed_is_what_the_pipeline_answers(folder: Path) -> None:
    asked = read_questions(folder, "val")
    pipeline = load_pipeline("compact")
    observed = observe(pipeline, asked, read)
    assert len(observed) > 2
    expected = []
    for question in asked:
        found = pipeline.prelabel(read(question.image.path), question.expression.text)
        truth = [target.mask() for target in question.targets]
        if found:
            best = [max((metrics.iou(item.mask, mask) for mask in truth), default=0.0) for item in found]
            expected.append(([dict(item.scores) for item in found], best))
    assert [([*answer.parts], [*answer.ious]) for answer in observed] == expected


def test_the_command_writes_what_a_load_reads(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers are drawn (one scene cannot calibrate anything); everything after them is real."""
    monkeypatch.setattr(score_calibration, "observe", lambda *_: drawn(400))
    mine = tmp_path / "mine.yaml"
    mine.write_text((REPOSITORY / "configs" / "compact.yaml").read_text())
    before = load_config(mine)
    words = ["--data", str(folder), "--config", str(mine), "--only", "answers"]
    shown = CliRunner().invoke(calibrate_score, words)
    assert shown.exit_code == 0, shown.output
    assert load_config(mine) == before
    written = CliRunner().invoke(calibrate_score, [*words, "--write", "--json", "--measure", "val"])
    assert written.exit_code == 0, written.output
    report = json.loads(written.stdout)
    after = load_config(mine)
    assert before.score is not None
    wanted = fit(drawn(400)).model_copy(update={"clicked": before.score.clicked})
    assert after.score == ScoreConfig.model_validate(report["score"]) == wanted
    assert model_version(after) == model_version(before) == report["model_version"]
    assert list(report["reliability"]) == ["val, geometric mean", "val, cross-fitted", "val, calibrated"]
    assert shown.stdout.splitlines()[-5:] == mine.read_text().splitlines()[-5:]

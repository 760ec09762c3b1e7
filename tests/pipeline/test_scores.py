"""Scores: a mean without a calibration, a probability with one, and never lower for a better part."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.pipeline.config import LogisticConfig, PipelineConfig, ScoreConfig, load_config
from backend.pipeline.scores import combine_scores
from backend.pipeline.weights import model_version
from dataset_tools.errors import ConfigError

CALIBRATION = ScoreConfig(
    found=LogisticConfig(offset=-1.0, weights={"grounding": 1.0, "predicted_iou": 1.0}),
    outlined=LogisticConfig(offset=-9.0, weights={"predicted_iou": 3.0, "stability": 2.0}),
)
PARTS = {"grounding": 0.9, "predicted_iou": 0.9, "stability": 0.95}


def test_without_a_calibration_it_is_the_geometric_mean() -> None:
    assert combine_scores({"grounding": 1.0, "stability": 1.0}) == 1.0
    assert combine_scores({"grounding": 0.25, "stability": 1.0}) == pytest.approx(0.5)
    assert combine_scores({"grounding": 0.0, "stability": 1.0, "predicted_iou": 0.9}) == 0.0


def test_two_questions_that_are_even_odds_give_a_quarter() -> None:
    """All parts at 0.5 are log odds of 0, so that only the offsets count."""
    even = dict.fromkeys(PARTS, 0.5)
    flat = ScoreConfig(found=LogisticConfig(offset=0, weights={}), outlined=LogisticConfig(offset=0, weights={}))
    assert combine_scores(even, flat) == pytest.approx(0.25)
    assert combine_scores(even, CALIBRATION) == pytest.approx(1 / (1 + 2.718281828) / (1 + 2.718281828**9), rel=1e-6)


@given(
    st.fixed_dictionaries({part: st.floats(0, 1) for part in PARTS}),
    st.sampled_from(sorted(PARTS)),
    st.floats(0, 1),
    st.sampled_from([None, CALIBRATION]),
)
def test_a_better_part_never_lowers_the_score(
    scores: dict[str, float], part: str, better: float, config: ScoreConfig | None
) -> None:
    low, high = sorted((scores[part], better))
    worse, improved = (combine_scores({**scores, part: value}, config) for value in (low, high))
    assert 0.0 <= worse <= improved + 1e-12 <= 1.0 + 1e-12


def test_boundary_agreement_is_no_part_of_a_calibrated_score() -> None:
    assert combine_scores({**PARTS, "boundary_agreement": 0.1}, CALIBRATION) == combine_scores(PARTS, CALIBRATION)


def test_a_calibration_makes_no_new_model_version() -> None:
    config = load_config("compact")
    assert config.score is not None
    assert model_version(config) == model_version(config.model_copy(update={"score": None}))


def test_a_wrong_calibration_is_told_what_is_wrong() -> None:
    values = load_config("compact").model_dump()
    values["score"]["found"]["weights"] = {"grounding": -1.0}
    values["score"]["outlined"]["weights"] = {"beauty": 1.0}
    with pytest.raises(ValueError, match=r"score\.found\.weights\.grounding[\s\S]*beauty"):
        PipelineConfig.model_validate(values)


def test_an_unknown_key_names_the_keys_of_the_section(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "grounder: {kind: compact, weights: a}\nsegmenter: {kind: compact-sam, weights: b}\n"
        "score: {found: {offset: 0, weights: {}}, outlined: {offset: 0, weights: {}, slope: 1}, iou: 0.9}\n"
    )
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert "score.iou: unknown key (value 0.9); keys here: accepted_iou, found, outlined" in str(error.value)
    assert "score.outlined.slope: unknown key (value 1); keys here: offset, weights" in str(error.value)

"""A project's labels become a version of the model that finds them, also when the training is killed on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from backend.learning.retraining.gate import compare
from backend.learning.retraining.project import ProjectTrainingOptions, train_project
from backend.learning.retraining.replay import drawn_scenes
from backend.learning.retraining.verdict import Rules
from backend.pipeline import load_pipeline
from backend.training.adapter.adaptation import AdaptationOptions
from backend.training.adapter.training import AdapterOptions
from backend.training.decoder.training import DecoderOptions
from dataset_tools.categories import canonical
from dataset_tools.errors import ConfigError
from tests.learning.project_scenes import LABEL, panels, tiny_config

HEAD = AdapterOptions(steps=80, rows=512, background=60, hard=20, mined=2, learning_rate=3e-3)
OPTIONS = ProjectTrainingOptions(
    grounder=AdaptationOptions(head=HEAD, width=16, views=2, replay_views=1, calibration_steps=40),
    decoder=DecoderOptions(steps=4, batch=4, validate_every=2, autocast=False),
    least_replay=2,
)


class KilledError(Exception):
    """Stands for a kill between two steps."""


def test_a_new_word_survives_a_killed_training_and_the_gate_promotes_it(tmp_path: Path) -> None:
    assert canonical(LABEL) is None, f"{LABEL} has become a canonical category: test with another new word"
    base = tiny_config(tmp_path)
    training = panels(tmp_path / "train", 8)
    replay = drawn_scenes(tmp_path / "replay", 2, width=192, height=160)
    whole = train_project(base, training, replay, tmp_path / "whole", OPTIONS)

    def kill_once(share: float, _: str) -> None:
        if share > 0.8 and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            raise KilledError

    # What may be kept on disk changes nothing of what is learnt.
    unkept = replace(OPTIONS, features=tmp_path / "features", disk=0)
    with pytest.raises(KilledError):
        train_project(base, training, replay, tmp_path / "cut", unkept, kill_once)
    cut = train_project(base, training, replay, tmp_path / "cut", unkept, kill_once)
    assert not list((tmp_path / "features").rglob("*.npy"))
    assert (tmp_path / "killed").exists()
    for name in ("grounder.safetensors", "config.yaml", "training.json"):
        assert (whole.folder / name).read_bytes() == (cut.folder / name).read_bytes()
    assert not (whole.folder / "work").exists()
    record = json.loads((whole.folder / "training.json").read_text())
    assert record["training"] == sorted(image.key for image in training)
    assert record["figures"]["grounder"]["learnt"] == [LABEL]

    moved = (tmp_path / "whole").rename(tmp_path / "moved")
    old, new = load_pipeline(base), load_pipeline(moved / "config.yaml")
    assert old.model_version != new.model_version
    assert new.model_version.startswith("tiny-")
    held_out = panels(tmp_path / "held_out", 10, seed=5)
    report = compare(old, new, held_out, replay)
    assert report.held_out_old == 0.0
    assert report.held_out_new is not None
    assert report.held_out_new > 0.0
    assert report.replay_old == report.replay_new
    assert report.promoted, report.reason
    assert (report.objects, report.images, report.most_labelled) == (10, 10, 1)
    assert report.gain_low is not None
    assert report.gain_low > 0
    # Lessons of the training's images are asked too: a version that finds less than they do would not be promoted.
    taught = compare(old, new, held_out, [], training=training)
    assert taught.held_out_lessons is not None
    assert taught.promoted == (
        taught.held_out_new is not None and taught.held_out_new >= taught.held_out_lessons - 0.01
    )
    assert not compare(new, old, held_out, replay).promoted
    waiting = compare(old, new, held_out[:9], replay)
    assert waiting.waits
    assert waiting.held_out_new is None
    crowded = compare(old, new, held_out, replay, rules=Rules(most_objects=1, crowd_floor=0, crowd=0.5))
    assert not crowded.promoted
    assert "too many false detections" in crowded.reason

    with pytest.raises(ConfigError, match="something else"):
        train_project(base, training[1:], replay, tmp_path / "cut", OPTIONS)

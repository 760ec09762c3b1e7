"""Whether a project's mask decoder gains is asked of the project's objects, not of what it is reminded of."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from backend.learning.retraining.decoder_part import project_decoder, tune_for_project
from backend.learning.retraining.replay import drawn_scenes
from backend.pipeline.segmentation.embedding_store import EmbeddingStore
from backend.pipeline.segmentation.sam import SamSegmenter
from backend.pipeline.segmentation.windows import window_for
from backend.training.decoder.samples import stored
from backend.training.decoder.training import DecoderOptions
from dataset_tools.labelled import LabelledImage
from tests.learning.project_scenes import LABEL, panels
from tests.pipeline.segmentation.small_sams import small_compact_sam


def test_the_projects_held_out_objects_judge_its_decoder(tmp_path: Path) -> None:
    segmenter = SamSegmenter(small_compact_sam(), window_rule=window_for)
    training = panels(tmp_path / "train", 4)
    replay = drawn_scenes(tmp_path / "replay", 2, width=192, height=160)
    assert {item.category for image in replay for item in image.objects}
    seen: list[LabelledImage] = []
    tune = partial(
        tune_for_project,
        segmenter,
        training,
        replay,
        embed=stored(segmenter, EmbeddingStore(tmp_path / "windows", 10**9, 0)),
        progress=lambda *_: None,
    )
    options = DecoderOptions(steps=2, batch=2, autocast=False)
    tuned = tune(options, embedded=seen.append, folder=tmp_path / "run")
    assert [image.key for image in seen] == [image.key for image in (*training, *replay)]
    assert {name for name in tuned.before if name.endswith("_iou") and "box" not in name} == {
        *(f"click_{k}_iou" for k in (1, 2, 3)),
        "jittered_iou",
        f"{LABEL}_iou",
    }
    hard = replace(options, least_gain=1.0)
    assert tune(hard, embedded=seen.append, folder=tmp_path / "hard").step == 0


def test_of_more_steps_more_are_made() -> None:
    assert (project_decoder(1).steps, project_decoder(1).validate_every) == (1, 1)
    assert project_decoder(200).steps == 200

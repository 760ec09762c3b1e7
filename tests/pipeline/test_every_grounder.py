"""Every registered kind of grounder is asked as the pipeline asks it: with the image's name and a project's labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.pipeline import load_pipeline
from backend.pipeline.config import GROUNDERS, PipelineConfig
from tests.florence2_tiny import write_florence2
from tests.grounding_dino_tiny import write_grounding_dino
from tests.lqvg_tiny import write_checkpoint, write_tokenizer
from tests.pipeline.grounding.test_class_list import save_omdet_turbo, save_owl
from tests.sam3_tiny import write_sam3
from tests.vlm_tiny import write_vlm

IMAGE = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
POLYGON = [f"<loc_{place}>" for place in (100, 201, 502, 203, 504, 805, 106, 807)]


def only(path: Path) -> dict[str, str]:
    return {"weights": str(path)}


def lqvg(folder: Path) -> dict[str, str]:
    tokenizer = write_tokenizer(folder / "roberta", ["the upper solar panel"])
    return {"weights": str(write_checkpoint(folder / "lqvg.pth")), "tokenizer": str(tokenizer)}


def owl(folder: Path) -> dict[str, str]:
    save_owl(folder, "Owlv2")
    return only(folder)


def omdet(folder: Path) -> dict[str, str]:
    save_omdet_turbo(folder)
    return only(folder)


def compact_vlm(_: Path) -> dict[str, Any]:
    """Nobody listens there: the expression of the test leaves nothing open."""
    return {"weights": "compact_grounder", "options": {"url_env": "VLM_URL", "model": "m"}}


TINY: dict[str, Callable[[Path], dict[str, Any]]] = {
    "compact": lambda _: {"weights": "compact_grounder"},
    "compact-vlm": compact_vlm,
    "lqvg": lqvg,
    "florence2": lambda folder: only(write_florence2(folder, POLYGON)),
    "grounding-dino": lambda folder: only(write_grounding_dino(folder)),
    "omdet-turbo": omdet,
    "owlv2": owl,
    "sam3": lambda folder: only(write_sam3(folder)),
    "vlm": lambda folder: only(write_vlm(folder, ["[]"])),
}
"""Kind -> what writes random weights of it to a folder and gives the grounder's part of a config."""


@pytest.mark.parametrize("kind", GROUNDERS)
def test_every_kind_takes_what_the_pipeline_asks_with(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_URL", "http://127.0.0.1:9/v1")
    assert kind in TINY, f"a new kind of grounder: add what writes a tiny {kind} to TINY"
    config = PipelineConfig.model_validate(
        {
            "name": "tiny",
            "grounder": {"kind": kind, **TINY[kind](tmp_path)},
            "segmenter": {"kind": "compact-sam", "weights": "compact_segmenter"},
            "device": "cpu",
        }
    )
    pipeline = load_pipeline(config)
    asked = {"key": "image", "labels": ("solar panel",)}
    found = pipeline.ground(IMAGE, "the upper solar panel", **asked)  # type: ignore[arg-type]
    assert bool(found.groundings) != (found.abstention is not None)
    answer = pipeline.prelabel(IMAGE, "the upper solar panel", candidates=2, **asked)  # type: ignore[arg-type]
    assert bool(answer.items) != (answer.abstained is not None)
    assert pipeline.version_answering("the upper solar panel") == pipeline.model_version

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.torch import load_file

from backend.commands.train import train
from backend.pipeline import load_pipeline
from backend.pipeline.segmentation.compact_sam import ARCHITECTURE
from backend.pipeline.types import Box, Image, Prompts
from backend.training.decoder.run import kept_share
from backend.training.run import save_weights
from dataset_tools.errors import ConfigError, DatasetError
from dataset_tools.export import export
from dataset_tools.labelled import LabelledImage, LabelledObject, read
from dataset_tools.records import Record, Sample, SourceImage, Target
from tests.learning.labelled import labelled_rectangles
from tests.pipeline.segmentation.small_sams import small_compact_sam, small_vit_sam


@pytest.fixture
def images(tmp_path: Path) -> list[LabelledImage]:
    return labelled_rectangles(tmp_path / "source", 6)


@pytest.fixture(params=["coco_jsonl", "refer"])
def data(images: list[LabelledImage], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A dataset of the images: four to train on, one for validation, one to test; two expressions for each mask."""
    samples = []
    for number, image in enumerate(images):
        source = SourceImage(image.path.name, image.width, image.height, str(image.path))
        split = "train" if number < 4 else ("val", "test")[number - 4]
        (item,) = image.objects
        targets = (Target(str(item.rle["counts"])),)
        words = (f"the {item.category}", f"the only {item.category}")
        samples.append(Sample(source, tuple(Record(text, item.category, targets, split) for text in words)))
    export(samples, tmp_path / "data", request.param)
    return tmp_path / "data"


@pytest.fixture(params=["compact-sam", "sam"])
def config(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A pipeline config with a small segmenter of random weights."""
    weights = tmp_path / "base"
    if request.param == "compact-sam":
        model = {"embed_dim": 32, "widths": [8, 8, 16, 16, 16], "depths": [1, 1, 1, 1], "mlp_dim": 32}
        metadata = {"architecture": ARCHITECTURE, "img_size": "64", "model": json.dumps(model)}
        save_weights(weights, small_compact_sam().state_dict(), torch.float16, metadata)
    else:
        torch.save(small_vit_sam().state_dict(), weights)
    values = {
        "grounder": {"kind": "compact", "weights": "compact_grounder"},
        "segmenter": {"kind": request.param, "weights": str(weights)},
        "device": "cpu",
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def run(config: Path, data: Path, out: Path, *more: str) -> Result:
    quick = ("steps=4", "validate_every=2", "batch=4", "warmup=1", "autocast=false", "learning_rate=0.003")
    options = [part for value in quick for part in ("--set", value)]
    given = ["sam-decoder", "--config", str(config), "--data", str(data), "--out", str(out), *options, *more]
    return CliRunner().invoke(train, given)


def scene() -> Image:
    return np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)


def test_tuned_weights_are_used_through_the_written_config(config: Path, data: Path, tmp_path: Path) -> None:
    result = run(config, data, tmp_path / "run")
    assert result.exception is None, result.output
    assert "box_iou" in result.output
    written = tmp_path / "run" / "pipeline.yaml"
    assert str(written) in result.output
    before, after = load_pipeline(config), load_pipeline(written)
    assert after.config.name == "small_tuned"
    assert after.model_version != before.model_version
    assert after.config.segmenter.kind == before.config.segmenter.kind
    figures = json.loads((tmp_path / "run" / "figures.json").read_text())
    assert (figures["masks"], figures["images"]) == (4, 4)
    old, new = (
        pipeline.refine(pipeline.embed(scene()), Prompts(box=Box(20, 20, 60, 60))) for pipeline in (before, after)
    )
    assert figures["step"] > 0 or np.array_equal(old.low_res_logits, new.low_res_logits)
    assert (tmp_path / "run" / "best.safetensors").exists()


def test_the_file_holds_every_name_of_the_base_and_only_the_decoder_differs(
    config: Path, images: list[LabelledImage], data: Path, tmp_path: Path
) -> None:
    assert run(config, data, tmp_path / "run", "--validation", "", "--set", "held_out_share=0").exception is None
    if (tmp_path / "run" / "segmenter.pth").exists():
        base, tuned = (torch.load(tmp_path / name, weights_only=True) for name in ("base", "run/segmenter.pth"))
    else:
        base, tuned = load_file(tmp_path / "base"), load_file(tmp_path / "run" / "segmenter.safetensors")
        with safe_open(tmp_path / "run" / "segmenter.safetensors", framework="pt") as file:
            assert file.metadata()["architecture"] == ARCHITECTURE
    assert base.keys() == tuned.keys()
    assert {value.dtype for value in tuned.values()} == {value.dtype for value in base.values()}
    changed = {name for name, value in base.items() if not torch.equal(value, tuned[name])}
    assert changed
    assert all(name.startswith("mask_decoder.") for name in changed)


@pytest.mark.parametrize("config", ["compact-sam"], indirect=True)
@pytest.mark.parametrize("data", ["coco_jsonl"], indirect=True)
def test_a_run_is_resumed_with_its_embeddings_and_no_other_is_overwritten(
    config: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run(config, data, out).exception is None
    embeddings = {path: path.stat().st_ctime_ns for path in (out / "embeddings").rglob("*.embedding")}
    assert embeddings
    again = run(config, data, out)
    assert isinstance(again.exception, ConfigError)
    assert "--resume" in str(again.exception)
    first = load_file(out / "segmenter.safetensors")
    assert run(config, data, out, "--resume").exception is None
    assert set(embeddings) == set((out / "embeddings").rglob("*.embedding"))
    assert all(torch.equal(value, first[name]) for name, value in load_file(out / "segmenter.safetensors").items())
    other = run(config, data, out, "--resume", "--share", "0.5")
    assert isinstance(other.exception, ConfigError)
    assert "share" in str(other.exception)


def test_masks_are_read_once_and_by_split(data: Path, images: list[LabelledImage]) -> None:
    training = read(data, "train")
    assert [len(image.objects) for image in training] == [1, 1, 1, 1]
    assert len(read(data)) == 6
    assert [item.category for image in training for item in image.objects] == ["vehicle", "harbor"] * 2
    for image, source in zip(training, images[:4], strict=True):
        assert np.array_equal(image.objects[0].mask(), source.objects[0].mask())
        assert image.objects[0].box == source.objects[0].box
    with pytest.raises(DatasetError, match="nowhere"):
        read(data, "nowhere")


def test_shares_are_nested_and_keep_every_category(images: list[LabelledImage]) -> None:
    mask = np.zeros((100, 120), bool)
    mask[2:10, 3:9] = True
    many = [
        replace(image, objects=tuple(LabelledObject.of(name, mask) for name in ["vehicle"] * 4 + ["harbor"]))
        for image in images
    ]
    places = []
    for share in (0.1, 0.25, 0.5, 1.0):
        kept = kept_share(many, share, 0)
        counts = Counter(item.category for image in kept for item in image.objects)
        assert counts == {"vehicle": max(1, round(24 * share)), "harbor": max(1, round(6 * share))}
        places.append({(image.key, id(item)) for image in kept for item in image.objects})
    assert all(smaller <= larger for smaller, larger in itertools.pairwise(places))
    assert [image.key for image in kept_share(many, 0.1, 1)] != [image.key for image in kept_share(many, 0.1, 0)]
    with pytest.raises(ConfigError, match="share"):
        kept_share(many, 0.0, 0)


@pytest.mark.parametrize("config", ["compact-sam"], indirect=True)
@pytest.mark.parametrize("data", ["coco_jsonl"], indirect=True)
def test_what_cannot_work_is_explained(config: Path, data: Path, tmp_path: Path) -> None:
    unknown = run(config, data, tmp_path / "run", "--set", "stepps=3")
    assert isinstance(unknown.exception, ConfigError)
    assert "stepps" in str(unknown.exception)
    other = run(Path("sam2_hiera_tiny"), data, tmp_path / "run")
    assert isinstance(other.exception, ConfigError)
    assert "hf-sam" in str(other.exception)

"""Loading LQVG's checkpoints: the published layout, and what is said about files that do not fit."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.pipeline.grounding.lqvg import load_lqvg
from backend.pipeline.grounding.lqvg.checkpoint import checkpoint_content
from backend.pipeline.grounding.lqvg.network import LqvgNetwork
from dataset_tools.errors import WeightsError
from tests.lqvg_tiny import TINY, tiny_network


def arguments(height: int = 70, width: int = 93) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(1, 3, height, width, generator=generator),
        torch.zeros(1, height, width, dtype=torch.bool),
        torch.tensor([[0, 17, 31, 2]]),
        torch.ones(1, 4, dtype=torch.int64),
    )


@pytest.mark.parametrize("zip_container", [False, True])
def test_the_published_layout_loads(tmp_path: Path, zip_container: bool) -> None:
    network = tiny_network()
    content = checkpoint_content(network)
    content["model"]["text_encoder.embeddings.position_ids"] = torch.arange(64)[None]
    content["model"]["backbone.0.body.layer1.total_ops"] = torch.zeros(1)
    content["model"]["total_params"] = torch.zeros(1)
    optimizer = torch.optim.AdamW(network.parameters())
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [40])
    content |= {"optimizer": optimizer.state_dict(), "lr_scheduler": scheduler.state_dict(), "epoch": 69}
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zip_container)

    loaded = load_lqvg(path)

    assert isinstance(loaded, LqvgNetwork)
    assert loaded.architecture == TINY
    assert not loaded.training
    with torch.no_grad():
        expected, found = network(*arguments()), loaded(*arguments())
    assert torch.equal(expected["pred_boxes"], found["pred_boxes"])
    assert torch.equal(expected["pred_logits"], found["pred_logits"])
    assert found["pred_boxes"].shape == (1, 1, 10, 4)
    assert found["pred_logits"].shape == (1, 1, 10, 1)
    assert len(found["aux_outputs"]) == TINY.decoder_layers - 1


def test_half_precision_weights_are_used_as_float32(tmp_path: Path) -> None:
    content = checkpoint_content(tiny_network())
    content["model"] = {name: tensor.half() for name, tensor in content["model"].items()}
    torch.save(content, tmp_path / "half.pth")
    loaded = load_lqvg(tmp_path / "half.pth")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_every_wrong_name_and_shape_is_reported(tmp_path: Path) -> None:
    content = checkpoint_content(tiny_network())
    missing = [name for name in content["model"] if name.startswith(("fusion_module_text.", "class_embed.1."))]
    for name in missing:
        del content["model"][name]
    content["model"]["fusion_module_3.weight"] = torch.zeros(2)
    content["model"]["class_embed.0.weight"] = torch.zeros(65, 64)
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsError) as error:
        load_lqvg(tmp_path / "other.pth")
    message = str(error.value)
    assert f"{len(missing)} missing" in message
    assert all(name in message for name in missing)
    assert "1 unexpected: fusion_module_3.weight" in message
    assert "class_embed.0.weight [65, 64] instead of [1, 64]" in message


def test_the_box_heads_second_name_must_agree(tmp_path: Path) -> None:
    content = checkpoint_content(tiny_network())
    name = "transformer.decoder.bbox_embed.1.layers.2.bias"
    content["model"][name] = content["model"][name] + 1
    torch.save(content, tmp_path / "alias.pth")
    with pytest.raises(WeightsError, match=rf"inconsistent: '{name}' must equal"):
        load_lqvg(tmp_path / "alias.pth")


def _args(**values: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda content: {**content, "args": argparse.Namespace(**{**vars(content["args"]), **values})}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_args(dilation=True), "trained with dilation=True"),
        (_args(with_box_refine=False), "trained with with_box_refine=False"),
        (_args(nheads=5), "sizes that cannot be built"),
        (lambda _: {"image_encoder.pos_embed": torch.zeros(1)}, "is a segment-anything checkpoint"),
        (lambda _: {"conv1.weight": torch.zeros(1), "layer4.2.conv3.weight": torch.zeros(1)}, "a torchvision ResNet"),
        (lambda _: {"roberta.embeddings.word_embeddings.weight": torch.zeros(1)}, "is a RoBERTa checkpoint"),
        (lambda _: {"model": {"module.bert.x": torch.zeros(1)}}, "is a Grounding DINO checkpoint, not LQVG"),
        (lambda _: {"model": {"transformer.decoder.x": torch.zeros(1)}}, "without LQVG's cross-modal gates"),
        (lambda _: {"step": 3, "network": {}}, "not an LQVG checkpoint.*this file has 'network', 'step'"),
        (lambda _: torch.zeros(3), "holds a Tensor, not LQVG's dictionary"),
    ],
)
def test_files_of_another_kind_are_recognised(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    torch.save(change(checkpoint_content(tiny_network())), tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=message):
        load_lqvg(tmp_path / "x.pth")


def test_missing_damaged_and_downloaded_wrongly(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is not at .*nowhere\.pth.*download it by hand"):
        load_lqvg(tmp_path / "nowhere.pth")
    page = tmp_path / "page.pth"
    page.write_bytes(b"<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>")
    with pytest.raises(WeightsError, match="is a web page"):
        load_lqvg(page)
    for zip_container in (False, True):
        whole = tmp_path / "whole.pth"
        torch.save(checkpoint_content(tiny_network()), whole, _use_new_zipfile_serialization=zip_container)
        cut = tmp_path / "cut.pth"
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        with pytest.raises(WeightsError, match=r"not a checkpoint of plain tensors.*cut short"):
            load_lqvg(cut)


class Payload:
    """Unpickling this would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('code from a checkpoint was run')",))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"model": Payload()}, protocol=2))
    torch.save({"model": {}, "args": Payload()}, tmp_path / "evil_zip.pth")
    for name in ("evil.pth", "evil_zip.pth"):
        with pytest.raises(WeightsError, match=r"Python objects \((builtins\.)?exec\), which could run code"):
            load_lqvg(tmp_path / name)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (31, 400), (257, 64)])
def test_any_image_size_is_accepted(height: int, width: int) -> None:
    with torch.no_grad():
        boxes = tiny_network()(*arguments(height, width))["pred_boxes"]
    assert boxes.shape == (1, 1, 10, 4)
    assert bool(((boxes >= 0) & (boxes <= 1)).all())

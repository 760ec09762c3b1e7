"""Runs LQVG on the reference's cases and collects every tensor that the original's run recorded."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from backend.pipeline.grounding.lqvg import load_lqvg
from backend.pipeline.grounding.lqvg.network import LqvgNetwork
from tests.data.lqvg import make_weights

DATA = Path(make_weights.__file__).parent
CASES = ("single", "odd", "padded")
Arrays = dict[str, npt.NDArray[Any]]


def load_reference(name: str) -> Arrays:
    """All arrays of ``reference_<name>.npz``."""
    with np.load(DATA / f"reference_{name}.npz") as file:
        return {key: file[key] for key in file.files}


def load_network(folder: Path) -> LqvgNetwork:
    """The network with the reference's weights, written as the published file is and read by the production loader."""
    state = make_weights.make_state_dict()
    state["text_encoder.embeddings.position_ids"] = torch.arange(514)[None]
    path = folder / "lqvg.pth"
    content = {"model": state, "epoch": 69, "args": argparse.Namespace(nheads=8, dilation=False, backbone="resnet50")}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    network = load_lqvg(path)
    path.unlink()  # 0.7 GB
    assert isinstance(network, LqvgNetwork)
    return network


def make_batch(reference: Arrays, case: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The case's images and tokens as one padded batch: the arguments of ``LqvgNetwork.forward``."""
    keys = [key for key in reference if key.startswith(f"{case}/image_")]
    images = [make_weights.normalise(reference[key]) for key in keys]
    tokens = [reference[key.replace("image_", "tokens_")] for key in keys]
    height, width = max(i.shape[1] for i in images), max(i.shape[2] for i in images)
    longest = max(map(len, tokens))
    pixels = torch.zeros(len(images), 3, height, width)
    padding = torch.ones(len(images), height, width, dtype=torch.bool)
    ids = torch.ones(len(images), longest, dtype=torch.int64)
    attention = torch.zeros_like(ids)
    for i, (image, text) in enumerate(zip(images, tokens, strict=True)):
        _, h, w = image.shape
        pixels[i, :, :h, :w] = torch.from_numpy(image)
        padding[i, :h, :w] = False
        ids[i, : len(text)] = torch.from_numpy(text)
        attention[i, : len(text)] = 1
    return pixels, padding, ids, attention


@torch.no_grad()
def run_case(network: LqvgNetwork, reference: Arrays, case: str) -> dict[str, Tensor]:
    """Outputs and intermediates of one forward pass under the reference's names and in its layouts."""
    found: dict[str, Tensor] = {}
    calls: dict[str, list[tuple[Any, Any]]] = {}
    modules = {
        "backbone": network.backbone,
        "resizer": network.resizer,
        "text_encoder": network.text_encoder,
        "text_gate": network.fusion_module_text,
        "pool": network.poolout_module,
        "transformer": network.transformer,
        "encoder": network.transformer.encoder,
        "decoder": network.transformer.decoder,
    }
    hooks = [
        module.register_forward_hook(lambda _m, args, out, name=name: calls.setdefault(name, []).append((args, out)))
        for name, module in modules.items()
    ]
    outputs = network(*make_batch(reference, case))
    for hook in hooks:
        hook.remove()

    found |= {name: outputs[name] for name in ("pred_logits", "pred_boxes")}
    found["aux_logits"] = torch.stack([aux["pred_logits"] for aux in outputs["aux_outputs"]])
    found["aux_boxes"] = torch.stack([aux["pred_boxes"] for aux in outputs["aux_outputs"]])
    found["best_query_of_first"] = outputs["pred_logits"][0].argmax()
    for level, features in enumerate(calls["backbone"][0][1]):
        found[f"backbone_c{level + 3}"] = features
    found["text_hidden"] = calls["text_encoder"][0][1].last_hidden_state
    found["text_resized"] = calls["resizer"][0][1]
    found["sentence"] = calls["pool"][0][1]
    for level, (_, words) in enumerate(calls["text_gate"]):
        found[f"fused_text_{level}"] = words.transpose(0, 1)
    for i, level in enumerate(calls["transformer"][0][0][0]):
        found[f"fused_visual_{i}"] = level.features.flatten(2).permute(2, 0, 1)
        found[f"mask_c{i + 3}"] = level.padding
        found[f"pos_c{i + 3}"] = level.position
    features, position, sizes, ratios, padding = calls["encoder"][0][0]
    found |= {"encoder_input": features, "encoder_pos": position, "valid_ratios": ratios, "encoder_pad_mask": padding}
    found["spatial_shapes"] = torch.tensor(sizes)
    found["memory"] = calls["encoder"][0][1]
    found["decoder_tgt"], found["query_pos"], found["init_reference"] = calls["decoder"][0][0][:3]
    found["decoder_hidden"], found["decoder_refs"] = calls["decoder"][0][1]
    return found


def compare(found: dict[str, Tensor], reference: Arrays, case: str) -> Iterator[tuple[str, Any, Any]]:
    """(name, found values, recorded values) of every recorded tensor; a name ``x@step`` holds every step-th value."""
    for key, recorded in reference.items():
        name, _, step = key.removeprefix(f"{case}/").partition("@")
        if not key.startswith(f"{case}/") or name.startswith(("image_", "tokens_")) or name.endswith("_float64"):
            continue
        values = found[name].detach().numpy()
        yield name, values.ravel()[:: int(step)] if step else values, recorded

"""Reading and writing LQVG's checkpoints, in the published file's own layout."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backend.pipeline.grounding.lqvg.architecture import LEVELS, Architecture
from backend.pipeline.grounding.lqvg.network import LqvgNetwork
from backend.pipeline.weights.refusals import refusal
from dataset_tools.errors import WeightsError

_ALIAS = "transformer.decoder.bbox_embed."
_BOX_HEADS = "bbox_embed."
_LEGACY_BUFFER = "text_encoder.embeddings.position_ids"
_COUNTERS = ("total_params", "total_ops")
_NAMES_SHOWN = 20

_OTHER_KINDS = (
    ("image_encoder.", "a segment-anything checkpoint"),
    ("vision_encoder.", "a SAM checkpoint of transformers"),
    ("bert.", "a Grounding DINO checkpoint"),
    ("module.bert.", "a Grounding DINO checkpoint"),
    ("model.text_backbone.", "a Grounding DINO checkpoint of transformers"),
    ("roberta.", "a RoBERTa checkpoint without the rest of LQVG"),
    ("embeddings.word_embeddings.", "a RoBERTa checkpoint without the rest of LQVG"),
    ("layer4.2.conv3.", "a torchvision ResNet"),
)

# Options of the original that change the network without changing a parameter's name or shape.
_REQUIRED_ARGS = {"dilation": False, "two_stage": False, "with_box_refine": True}


def load_lqvg(checkpoint: Path) -> torch.nn.Module:
    """Build LQVG from a checkpoint (the published ``.pth`` or one of ``pslg train lqvg``).

    The file is a dictionary with the weights under ``model`` and optionally the training arguments under ``args``, in
    torch's legacy or zip container. Sizes are taken from the weights' shapes; the number of attention heads from
    ``args`` (8 without it).

    Returns:
        ``LqvgNetwork`` in evaluation mode, float32 on the CPU. ``forward(images float32[B, 3, H, W] RGB,
        ImageNet-normalised; image_padding bool[B, H, W], True = padding; token_ids int64[B, L]; text_attention
        int64[B, L], 1 = token)`` -> ``pred_logits`` [B, 1, Q, 1], ``pred_boxes`` [B, 1, Q, 4] (cx, cy, w, h) in 0..1,
        ``aux_outputs``.

    Raises:
        WeightsError: the file is missing, damaged or of another kind, or a name or shape does not fit; the message
            lists the names.
    """
    content = _read(checkpoint)
    state, args = _select(content, checkpoint)
    try:
        architecture = _architecture(state, args)
    except ValueError as error:
        raise WeightsError(f"{checkpoint} holds an LQVG of sizes that cannot be built: {error}") from error
    with torch.device("meta"):
        network = LqvgNetwork(architecture)
    _check_names(network, state, checkpoint)
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    # RoBERTa keeps two buffers out of its state dict; they are constants.
    embeddings = network.text_encoder.embeddings
    embeddings.position_ids = torch.arange(architecture.text_positions)[None]
    embeddings.token_type_ids = torch.zeros((1, architecture.text_positions), dtype=torch.long)
    return network.eval()


def checkpoint_content(network: LqvgNetwork) -> dict[str, Any]:
    """``network`` in the layout of the published file: ``model`` with the original's names, and ``args``."""
    state = dict(network.state_dict())
    state |= {_ALIAS + name.removeprefix(_BOX_HEADS): state[name] for name in state if name.startswith(_BOX_HEADS)}
    sizes = network.architecture
    args = argparse.Namespace(
        nheads=sizes.heads,
        text_heads=sizes.text_heads,
        dropout=sizes.dropout,
        num_queries=sizes.queries,
        hidden_dim=sizes.hidden_dim,
        **_REQUIRED_ARGS,
    )
    return {"model": state, "args": args}


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise WeightsError(
            f"LQVG's checkpoint is not at {path}. Its authors publish it on Google Drive only (github LANMNG/LQVG): "
            "download it by hand and set the config's path to it."
        )
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        raise WeightsError(f"{path} is a web page, not a checkpoint: download the file itself in a browser.")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling damaged data raises whatever it likes
        raise refusal(path, error) from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not LQVG's dictionary with the key 'model'.")
    return content


def _select(content: Mapping[str, Any], path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The weights without aliases and legacy names, and the training arguments."""
    found = content.get("model")
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        kind = _kind(content.get("state_dict", content))
        raise WeightsError(
            f"{path} is {kind or 'not an LQVG checkpoint'}: LQVG keeps its weights under the key 'model', "
            f"this file has {_names(sorted(map(str, content)))}."
        )
    state = {
        str(name): tensor
        for name, tensor in found.items()
        if not str(name).endswith(_COUNTERS) and name != _LEGACY_BUFFER
    }
    kind = _kind(state)
    if kind and not any(name.startswith("fusion_module.") for name in state):
        raise WeightsError(f"{path} is {kind}, not LQVG. Set the config's path to LQVG's .pth.")
    different = []
    for name in [name for name in state if name.startswith(_ALIAS)]:
        alias, original = state.pop(name), state.get(_BOX_HEADS + name.removeprefix(_ALIAS))
        if original is not None and not torch.equal(alias, original):
            different.append(name)
    if different:
        raise WeightsError(
            f"{path} is inconsistent: {_names(different)} must equal the same names under '{_BOX_HEADS}' "
            "(one module under two names), but differ."
        )
    args = content.get("args")
    arguments = vars(args) if isinstance(args, argparse.Namespace) else {}
    for name, required in _REQUIRED_ARGS.items():
        if arguments.get(name, required) != required:
            raise WeightsError(
                f"{path} was trained with {name}={arguments[name]!r}; only {name}={required!r}, as in the published "
                "weights, is implemented."
            )
    return state, arguments


def _kind(state: object) -> str | None:
    """What a state dict belongs to when it is not LQVG's."""
    if not isinstance(state, Mapping):
        return None
    names = [str(name) for name in state]
    for prefix, kind in _OTHER_KINDS:
        if any(name.startswith(prefix) for name in names):
            return kind
    if any(name.startswith("transformer.decoder.") for name in names):
        return "a detection transformer without LQVG's cross-modal gates (ReferFormer, Deformable DETR)"
    return None


def _architecture(state: Mapping[str, Tensor], args: Mapping[str, Any]) -> Architecture:
    """Sizes read from the weights; a name that is missing leaves the published size, and is reported later."""
    published = Architecture()

    def size(name: str, axis: int, default: int) -> int:
        tensor = state.get(name)
        return tensor.shape[axis] if tensor is not None and tensor.dim() > axis else default

    def count(prefix: str, default: int) -> int:
        return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)}) or default

    heads = int(args.get("nheads", published.heads))
    text_dim = size("text_encoder.embeddings.word_embeddings.weight", 1, published.text_dim)
    sampling = size("transformer.encoder.layers.0.self_attn.attention_weights.weight", 0, published.points * heads * 4)
    blocks = [
        count(f"backbone.0.body.layer{i}.", default) for i, default in enumerate(published.resnet_blocks, start=1)
    ]
    return Architecture(
        hidden_dim=size("query_embed.weight", 1, published.hidden_dim),
        heads=heads,
        encoder_layers=count("transformer.encoder.layers.", published.encoder_layers),
        decoder_layers=count("transformer.decoder.layers.", published.decoder_layers),
        feedforward_dim=size("transformer.encoder.layers.0.linear1.weight", 0, published.feedforward_dim),
        points=sampling // (heads * LEVELS),
        queries=size("query_embed.weight", 0, published.queries),
        dropout=float(args.get("dropout", published.dropout)),
        resnet_blocks=(blocks[0], blocks[1], blocks[2], blocks[3]),
        resnet_width=size("backbone.0.body.layer1.0.conv1.weight", 0, published.resnet_width),
        text_dim=text_dim,
        text_layers=count("text_encoder.encoder.layer.", published.text_layers),
        text_heads=int(args.get("text_heads", max(1, text_dim // 64))),  # 64 per head in every published RoBERTa
        text_feedforward_dim=size(
            "text_encoder.encoder.layer.0.intermediate.dense.weight", 0, published.text_feedforward_dim
        ),
        vocabulary=size("text_encoder.embeddings.word_embeddings.weight", 0, published.vocabulary),
        text_positions=size("text_encoder.embeddings.position_embeddings.weight", 0, published.text_positions),
    )


def _check_names(network: LqvgNetwork, state: Mapping[str, Tensor], path: Path) -> None:
    """Report every name that is missing, unexpected or of another shape."""
    expected = network.state_dict()
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    shapes = [
        f"{name} {list(state[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    problems = [
        f"{len(names)} {what}: {', '.join(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise WeightsError(f"{path} does not fit LQVG's network. {'; '.join(problems)}.")


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(repr(name) for name in names[:_NAMES_SHOWN]) + more

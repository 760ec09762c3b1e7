"""What a weight file holds, told from the names of its tensors: so that a mix-up is named instead of ending in a list
of six hundred missing keys.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Set as AbstractSet
from pathlib import Path

from backend.pipeline.weights.refusals import refusal
from dataset_tools.errors import WeightsError

__all__ = ["checkpoint_kind"]

# kind -> tensors that a file of this kind has; the first kind that fits is the answer.
_MARKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("sam", ("image_encoder.pos_embed", "image_encoder.blocks.0.attn.qkv.weight", "mask_decoder.iou_token.weight")),
    ("compact-sam", ("image_encoder.stem.0.weight", "mask_decoder.iou_token.weight")),
    ("compact-grounder", ("stem.0.conv.weight", "heat.conv.weight")),
    ("lqvg", ("text_encoder.embeddings.word_embeddings.weight", "query_embed.weight")),
)


def checkpoint_kind(path: Path) -> str:
    """``sam``, ``compact-sam``, ``compact-grounder``, ``lqvg``, ``transformers <model_type>`` or ``unknown``.

    Raises:
        WeightsError: the file is no checkpoint that can be read safely (plain tensors only).
    """
    if path.is_dir():
        try:
            return f"transformers {json.loads((path / 'config.json').read_text(encoding='utf-8'))['model_type']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "unknown"
    names = _tensor_names(path)
    return next((kind for kind, marks in _MARKS if names >= set(marks)), "unknown")


def _tensor_names(path: Path) -> AbstractSet[str]:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as tensors:
                return set(tensors.keys())
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error
    import torch

    with path.open("rb") as file:
        if file.read(512).lstrip().lower().startswith((b"<!doctype", b"<html")):
            raise WeightsError(f"{path} is a web page, not a checkpoint: download the file itself in a browser")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # LQVG's checkpoints carry their options
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # unpickling damaged data raises whatever it likes
        raise refusal(path, error) from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    return set(content) if isinstance(content, dict) else set()

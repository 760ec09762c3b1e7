"""A tiny LQVG and a tiny byte-level BPE vocabulary in the published files' formats, for tests that run end to end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer

from backend.pipeline.grounding.lqvg.architecture import Architecture
from backend.pipeline.grounding.lqvg.checkpoint import checkpoint_content
from backend.pipeline.grounding.lqvg.network import LqvgNetwork

TINY = Architecture(
    hidden_dim=64,
    heads=2,
    encoder_layers=1,
    decoder_layers=2,
    feedforward_dim=32,
    points=2,
    queries=10,
    resnet_blocks=(1, 1, 1, 1),
    resnet_width=4,
    text_dim=16,
    text_layers=1,
    text_heads=2,
    text_feedforward_dim=32,
    vocabulary=400,
    text_positions=64,
)

EXPRESSIONS = ("the ship on the left", "the large white airplane", "a storage tank near the harbor", "the tennis court")


def write_tokenizer(folder: Path, expressions: Sequence[str] = EXPRESSIONS) -> Path:
    """``vocab.json`` and ``merges.txt`` with at most 400 entries in ``folder``; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        expressions,
        vocab_size=TINY.vocabulary,
        min_frequency=1,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        show_progress=False,
    )
    tokenizer.save_model(str(folder))
    return folder


def tiny_network(seed: int = 0) -> LqvgNetwork:
    """Random weights; every parameter that training starts at zero is moved off zero."""
    torch.manual_seed(seed)
    network = LqvgNetwork(TINY)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return network.eval()


def write_checkpoint(path: Path, seed: int = 0) -> Path:
    """A checkpoint in the published file's layout and (legacy) container; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint_content(tiny_network(seed)), path, _use_new_zipfile_serialization=False)
    return path

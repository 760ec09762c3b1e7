"""A tiny Grounding DINO of transformers with random weights and a vocabulary of its own, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    SwinConfig,
)

WORDS = ["ship", "storage", "tank", "swimming", "pool", "bridge", "plane", "airplane", "harbor", "red", "the"]
# Grounding DINO tells phrases apart by BERT's ids of [CLS], [SEP], "." and "?".
FIXED = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}


def vocabulary() -> dict[str, int]:
    vocab = dict(FIXED)
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    for word in [*WORDS, *letters, *(f"##{letter}" for letter in letters)]:
        vocab.setdefault(word, 1030 + len(vocab))
    taken = set(vocab.values())
    vocab |= {f"[unused{i}]": i for i in range(max(taken) + 1) if i not in taken}
    return dict(sorted(vocab.items(), key=lambda item: item[1]))


def write_mm_grounding_dino(path: Path) -> Path:
    """MM-Grounding-DINO, whose type LLMDet has as well."""
    return write_grounding_dino(path, MMGroundingDinoConfig, MMGroundingDinoForObjectDetection)


def write_grounding_dino(
    path: Path, config_kind: Any = GroundingDinoConfig, model_kind: Any = GroundingDinoForObjectDetection
) -> Path:
    """Model, image processor and tokenizer as ``save_pretrained`` writes them into the folder ``path``."""
    vocab = vocabulary()
    processor = GroundingDinoProcessor(
        GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 160}), BertTokenizer(vocab=vocab)
    )
    torch.manual_seed(0)
    config = config_kind(
        backbone_config=SwinConfig(
            image_size=96, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=3,
            out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=BertConfig(
            vocab_size=len(vocab), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        ),
        num_queries=12, d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_feature_levels=4,
    )  # fmt: skip
    model = model_kind(config)
    with torch.no_grad():  # MM-Grounding-DINO begins by holding everything for unlikely
        for name, value in model.named_parameters():
            if "class_embed" in name and name.endswith("bias"):
                value.zero_()
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path

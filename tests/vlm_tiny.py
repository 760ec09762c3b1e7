"""A tiny Qwen2.5-VL or Qwen3-VL of transformers whose weights make it say one thing, whatever it sees.

All its layers are there and random, but what attention and MLPs add to a token is nothing; so the next word depends on
the last one only, and the output layer is set such that the words of ``answer`` follow one another.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

SPECIAL = ["<|end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|user|>", "<|model|>"]
TEMPLATE = (
    "{% for m in messages %}<|{{ 'user' if m.role == 'user' else 'model' }}|>{% for c in m.content %}"
    "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<|model|>{% endif %}"
)


def write_vlm(folder: Path, answer: list[str], *, kind: str = "qwen2_5_vl") -> Path:
    """Model, processor and tokenizer as ``save_pretrained`` writes them; ``answer``'s words all differ."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: number for number, word in enumerate([*SPECIAL, "[UNK]", *answer])}
    assert len(words) == len(SPECIAL) + 1 + len(answer)
    raw = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|end|>", pad_token="<|end|>", unk_token="[UNK]",
        additional_special_tokens=SPECIAL[1:],
    )  # fmt: skip
    sides: dict[str, Any] = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    pixels = {"min_pixels": 28 * 28 * 4, "max_pixels": 28 * 28 * 64}
    images = transformers.Qwen2VLImageProcessor(**sides, **pixels)
    videos = transformers.Qwen2VLVideoProcessor(**sides)
    ids = {
        "image_token_id": words["<|image_pad|>"], "video_token_id": words["<|video_pad|>"],
        "vision_start_token_id": words["<|vision_start|>"], "vision_end_token_id": words["<|vision_end|>"],
    }  # fmt: skip
    text = {
        "vocab_size": len(words), "hidden_size": 48, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 4, 4]},
        "eos_token_id": 0, "bos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip
    vision: dict[str, Any] = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 48,
    }
    torch.manual_seed(0)
    model: Any
    if kind == "qwen2_5_vl":
        vision |= {"fullatt_block_indexes": [0]}
        model = transformers.Qwen2_5_VLForConditionalGeneration(
            transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision | {"patch_size": 14}, **ids)
        )
        processor: Any = transformers.Qwen2_5_VLProcessor(images, tokenizer, videos, chat_template=TEMPLATE)
    else:
        text["head_dim"] = 24
        vision |= {"patch_size": 14, "deepstack_visual_indexes": [0], "num_position_embeddings": 64}
        model = transformers.Qwen3VLForConditionalGeneration(
            transformers.Qwen3VLConfig(text_config=text, vision_config=vision, **ids)
        )
        processor = transformers.Qwen3VLProcessor(images, tokenizer, videos, chat_template=TEMPLATE)
    _make_it_say(model, [words["<|model|>"], *(words[word] for word in answer), words["<|end|>"]])
    model.generation_config.eos_token_id = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@torch.no_grad()
def _make_it_say(model: Any, tokens: list[int]) -> None:
    language = model.model.language_model
    for layer in language.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    embedding = torch.nn.functional.normalize(torch.randn_like(language.embed_tokens.weight), dim=1)
    language.embed_tokens.weight.copy_(embedding)
    model.lm_head.weight.zero_()
    for last, following in pairwise(tokens):
        model.lm_head.weight[following] = embedding[last]

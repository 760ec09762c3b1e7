"""A tiny Florence-2 of transformers whose weights make it say one thing, whatever it sees (as ``tests.vlm_tiny``)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<image>"]


def write_florence2(folder: Path, answer: list[str]) -> Path:
    """Model, processor and tokenizer as ``save_pretrained`` writes them; ``answer``'s words all differ."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = {word: number for number, word in enumerate([*SPECIAL, *answer])}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.decoder = decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    images = transformers.CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 5
    processor = transformers.Florence2Processor(images, tokenizer, post_processor_config={"polygons": {}})
    vision = {
        "depths": [1, 1, 1, 1], "embed_dim": [8, 8, 16, 16], "num_heads": [1, 1, 2, 2], "num_groups": [1, 1, 2, 2],
        "window_size": 2, "projection_dim": 48,
    }  # fmt: skip
    text = {
        "model_type": "bart", "vocab_size": len(words), "d_model": 48, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
        "max_position_embeddings": 128, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
        "decoder_start_token_id": 2, "forced_eos_token_id": None, "tie_word_embeddings": False,
    }  # fmt: skip
    torch.manual_seed(0)
    config = transformers.Florence2Config(
        text_config=text, vision_config=vision, image_token_id=words["<image>"], tie_word_embeddings=False
    )
    model = transformers.Florence2ForConditionalGeneration(config)
    _make_it_say(model, [2, *(words[word] for word in answer), 2])
    model.generation_config.update(decoder_start_token_id=2, eos_token_id=2, pad_token_id=1, bos_token_id=0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@torch.no_grad()
def _make_it_say(model: Any, tokens: list[int]) -> None:
    """What attention and MLPs add to a token is nothing, so that the next word depends on the last one only.

    The answer begins after the token that ends it: its last word leads to the end, the end to the first one.
    """
    decoder = model.model.language_model.decoder
    for layer in decoder.layers:
        for part in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
            part.weight.zero_()
            part.bias.zero_()
    decoder.embed_positions.weight.zero_()
    embedding = torch.nn.functional.normalize(torch.randn_like(decoder.embed_tokens.weight), dim=1)
    for shared in (model.model.language_model.shared, decoder.embed_tokens):
        shared.weight.copy_(embedding)
    model.lm_head.weight.zero_()
    for last, following in pairwise(tokens):
        model.lm_head.weight[following] = embedding[last] * 10

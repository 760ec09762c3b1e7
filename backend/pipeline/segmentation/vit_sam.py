"""segment-anything's own checkpoints (ViT-B, ViT-L, ViT-H) through the same ``SamSegmenter`` as the compact model."""

from __future__ import annotations

from pathlib import Path

import torch
from segment_anything import sam_model_registry

from backend.errors import WeightsError
from backend.pipeline.segmentation.sam import EmbeddingDtype, SamSegmenter

__all__ = ["load_sam"]

# Channels of the image encoder -> name in segment-anything's registry.
_BY_WIDTH = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}


def load_sam(
    weights: Path,
    *,
    embedding_dtype: EmbeddingDtype = "float16",
    device: str = "cpu",
    threads: int | None = None,
    autocast: bool = False,
) -> SamSegmenter:
    """The model of a checkpoint under segment-anything's names; its size is read from the checkpoint.

    Args:
        weights: ``sam_vit_{b,l,h}_*.pth`` as published.
        embedding_dtype: type of stored features, see ``SamSegmenter``.
        device: where the network runs; ``auto`` takes a GPU when there is one.
        threads: torch's threads, a setting of the whole process; None leaves it alone.
        autocast: run the encoder in bfloat16.

    Raises:
        WeightsError: the file is missing, damaged, or holds another model.
    """
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise WeightsError(
            f"the SAM checkpoint {weights} is missing: run pslg weights list to see how to get it"
        ) from error
    except Exception as error:  # unpickling damaged data raises whatever it likes
        raise WeightsError(f"{weights} is not a checkpoint of plain tensors ({error}): download it again") from error
    patches = state.get("image_encoder.patch_embed.proj.weight") if isinstance(state, dict) else None
    width = None if patches is None else int(patches.shape[0])
    if width not in _BY_WIDTH:
        raise WeightsError(
            f"{weights} holds no ViT-B, ViT-L or ViT-H of segment-anything (encoder channels: {width}): choose a file "
            "sam_vit_b, sam_vit_l or sam_vit_h"
        )
    sam = sam_model_registry[_BY_WIDTH[width]]()
    try:
        sam.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{weights} is not a complete {_BY_WIDTH[width]} checkpoint: {error}") from error
    return SamSegmenter(sam, embedding_dtype=embedding_dtype, device=device, threads=threads, autocast=autocast)

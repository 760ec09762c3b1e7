"""Masks as the documentation of transformers shows how to get them: what its SAMs are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from backend.pipeline.types import Box, Image, Prompts

IMAGE: Image = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
POINT = Prompts(np.array([[30, 20]], np.float32), np.ones(1, np.int64))
POINTS = Prompts(np.array([[30, 20], [60, 40]], np.float32), np.array([1, 0]))
BOX = Prompts(box=Box(10, 5, 60, 40))
BOTH = Prompts(np.array([[30, 20]], np.float32), np.ones(1, np.int64), Box(10, 5, 60, 40))
PROMPTS = {"point": POINT, "points": POINTS, "box": BOX, "both": BOTH}


def library_mask(
    folder: Path, prompts: Prompts, kind: Any = None, processor_kind: Any = None
) -> tuple[npt.NDArray[np.bool_], float]:
    """Mask bool[H, W] of ``IMAGE`` and predicted IoU by the model in ``folder``."""
    from transformers import AutoModelForMaskGeneration, AutoProcessor

    model = (kind or AutoModelForMaskGeneration).from_pretrained(folder).eval()
    processor = (processor_kind or AutoProcessor).from_pretrained(folder)
    if model.config.model_type == "sam_hq":
        _mend_sam_hq(model.mask_decoder)
    given: dict[str, Any] = {}
    if len(prompts.points):
        given["input_points"] = [[prompts.points.tolist()]]
        given["input_labels"] = [[prompts.point_labels.tolist()]]
    if prompts.box is not None:
        given["input_boxes"] = [[list(prompts.box)]]
    inputs = processor(images=IMAGE, return_tensors="pt", **given)
    sizes = [inputs.pop("original_sizes")]
    if "reshaped_input_sizes" in inputs:
        sizes.append(inputs.pop("reshaped_input_sizes"))
    if len(prompts.points) and inputs["input_points"].ndim == 3:
        inputs["input_points"] = inputs["input_points"][None]
    inputs = {key: value.float() if value.is_floating_point() else value for key, value in inputs.items()}
    if prompts.mask_logits is not None:
        inputs["input_masks"] = torch.from_numpy(prompts.mask_logits)[None, None]
    lone = len(prompts.points) == 1 and prompts.box is None and prompts.mask_logits is None
    with torch.inference_mode():
        outputs = model(**inputs, multimask_output=lone)
    best = int(outputs.iou_scores[0, 0].argmax())
    masks = processor.post_process_masks(outputs.pred_masks, *sizes)
    return np.asarray(masks[0][0, best]), float(outputs.iou_scores[0, 0, best])


def _mend_sam_hq(decoder: Any) -> None:
    """Have the masks made of what the transformer made of the image, as in SAM-HQ's own code.

    transformers 5.23 drops it (``point_embedding, iou_token_out = self.transformer(...)``) and enlarges the embedding
    from before instead, with rows and columns swapped; its decoder of SAM is right.
    """
    seen: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        seen[:] = [output[1]]

    def give(_module: Any, inputs: Any) -> Any:
        return (seen[0][0].transpose(1, 2).reshape(inputs[0].shape),)

    decoder.transformer.register_forward_hook(keep)
    decoder.upscale_conv1.register_forward_pre_hook(give)

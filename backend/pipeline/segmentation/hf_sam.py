"""SAM, SAM-HQ and SAM 2 / 2.1 of transformers as a ``Segmenter``: a folder written by ``save_pretrained``.

Masks equal those of the library's own processor and model on the same weights when features are stored as float32.
These models embed whole images. (EdgeTAM has the same interface but needs the package timm; MobileSAM is not in
transformers.)
"""

from __future__ import annotations

import math
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from segment_anything.utils.amg import calculate_stability_score
from torch import Tensor
from torch.nn import functional

from backend.pipeline.memory_fallback import MemoryFallback, placed
from backend.pipeline.segmentation.embedding_store import embedding_address
from backend.pipeline.segmentation.sam import MASK_PROMPT_LOGIT, STABILITY_OFFSET, EmbeddingDtype
from backend.pipeline.types import Box, Embedding, Image, Mask, MaskPrediction, Prompts, hash_image
from backend.pipeline.weights.records import record, recorded_sha256
from dataset_tools.errors import ImageError, PromptError, WeightsError

__all__ = ["HfSamSegmenter", "load_hf_sam"]

_MODEL_TYPES = ("sam", "sam_hq", "sam2", "sam2_video")


class HfSamSegmenter:
    """A mask generation model of transformers with explicit embeddings; one object may serve many threads.

    Args:
        model: ``SamModel``, ``SamHQModel`` or ``Sam2Model``; put into evaluation mode on ``device``.
        processor: the model's own; resizes and normalises the image.
        embedding_dtype: type of stored features.
        device: where the network runs.
        weights_hash: identifies the weights.
    """

    def __init__(
        self, model: Any, processor: Any, *, embedding_dtype: EmbeddingDtype, device: str, weights_hash: str
    ) -> None:
        self._model = placed(model, device, "the segmenter").eval().requires_grad_(False)
        self._device = next(self._model.parameters()).device
        self.memory_fallback: MemoryFallback[Any] = MemoryFallback(self._model, "the segmenter's encoder")
        self._processor = processor
        self.embedding_dtype = np.dtype(embedding_dtype)
        self._weights_hash = weights_hash
        size = processor.image_processor.size
        self._longest_edge: int | None = size.get("longest_edge")
        self._side = int(self._longest_edge or size["height"])

    @cached_property
    def encoder_hash(self) -> str:
        """Identifies weights, input size and storage dtype."""
        return f"{self._weights_hash[:16]}-{self._side}-{self.embedding_dtype.name}"

    def window_for(self, box: Box, image_size: tuple[int, int]) -> Box:  # noqa: ARG002 - the protocol's signature
        """The whole image, whatever the box."""
        return Box(0.0, 0.0, float(image_size[1]), float(image_size[0]))

    @torch.inference_mode()
    def embed(self, image: Image, window: Box | None = None, *, key: str | None = None) -> Embedding:
        """Features of ``image`` uint8[H, W, 3] RGB; ``window`` may only be None or the whole image.

        ``key`` names the image's content; None hashes its pixels.

        Raises:
            ImageError: another form of image, or a window that is a part of it.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ImageError(f"an image must be uint8[H, W, 3] with H, W > 0, got {image.dtype}{list(image.shape)}")
        height, width = image.shape[:2]
        whole = Box(0.0, 0.0, float(width), float(height))
        if window is not None and window != whole:
            raise ImageError(f"this model embeds whole images, not the window {tuple(window)} of {width} x {height} px")
        inputs = self._processor(images=image, return_tensors="pt", input_data_format="channels_last")

        def encode(model: Any) -> npt.NDArray[np.float32]:
            maps = _image_features(model, inputs["pixel_values"].to(next(model.parameters()).device))
            flattened: npt.NDArray[np.float32] = torch.cat([one.flatten() for one in maps]).float().cpu().numpy()
            return flattened

        flat = self.memory_fallback.run(encode)
        limit = np.finfo(self.embedding_dtype).max
        return Embedding(
            key=embedding_address(key or hash_image(image), self.encoder_hash, whole),
            features=np.clip(flat, -limit, limit).astype(self.embedding_dtype)[None, None],
            image_size=(height, width),
            window=whole,
        )

    @torch.inference_mode()
    def decode(self, embedding: Embedding, prompts: Prompts) -> MaskPrediction:
        """The mask for ``prompts`` at the image's size; of a lone point's several masks the most confident one.

        Raises:
            PromptError: no prompt, a point outside the image, or mask logits of another shape than the model's.
        """
        height, width = embedding.image_size
        inputs = self._prompt_tensors(embedding, prompts)
        lone_point = len(prompts.points) == 1 and prompts.box is None and prompts.mask_logits is None
        outputs = self._model(**inputs, **self._unpacked(embedding), multimask_output=lone_point)
        ious = outputs.iou_scores[0, 0]
        best = int(ious.argmax())
        low_res = outputs.pred_masks[:, 0, best : best + 1].float()
        logits = self._at_image_size(low_res, height, width)
        return MaskPrediction(
            mask=logits[0, 0].cpu().numpy() > 0,
            predicted_iou=float(ious[best].float().clamp(0, 1)),
            low_res_logits=low_res[0, 0].cpu().numpy(),
            measure_stability=partial(_stability, logits[0]),
        )

    def mask_prompt(self, embedding: Embedding, mask: Mask) -> npt.NDArray[np.float32]:
        """``mask`` bool[H, W] of the original image as mask logits float32[h, w] for ``Prompts.mask_logits``."""
        if mask.shape != embedding.image_size:
            raise PromptError(f"the mask has shape {list(mask.shape)}, the image is {list(embedding.image_size)}")
        rows_in, columns_in = self._input_size(*mask.shape)
        rows, columns = self._mask_input_size
        scale = rows / self._side
        inside = (max(1, round(columns_in * scale)), max(1, round(rows_in * scale)))
        resized = cv2.resize(mask.astype(np.float32), inside, interpolation=cv2.INTER_AREA)
        logits = np.full((rows, columns), -MASK_PROMPT_LOGIT, np.float32)
        logits[: inside[1], : inside[0]] = (2 * resized - 1) * MASK_PROMPT_LOGIT
        return logits

    @cached_property
    def _shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the maps of ``_image_features``, found on the meta device so that nothing is computed."""
        with torch.device("meta"):
            skeleton = type(self._model)(self._model.config).eval()
        pixels = torch.zeros((1, 3, self._side, self._side), device="meta")
        return tuple(tuple(one.shape) for one in _image_features(skeleton, pixels))

    def _unpacked(self, embedding: Embedding) -> dict[str, Any]:
        flat = torch.from_numpy(embedding.features).to(self._device, self._model.dtype).flatten()
        sizes = [math.prod(shape) for shape in self._shapes]
        parts = torch.split(flat, sizes)
        maps = [one.reshape(shape) for one, shape in zip(parts, self._shapes, strict=True)]
        if self._model.config.model_type == "sam_hq":
            return {"image_embeddings": maps[0], "intermediate_embeddings": maps[1:]}
        return {"image_embeddings": maps[0] if len(maps) == 1 else maps}

    @property
    def _mask_input_size(self) -> tuple[int, int]:
        side = 4 * int(self._model.prompt_encoder.image_embedding_size[0])
        return side, side

    def _input_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the image within the network's square input."""
        if self._longest_edge is None:
            return self._side, self._side
        scale = self._side / max(height, width)
        return int(height * scale + 0.5), int(width * scale + 0.5)

    def _at_image_size(self, low_res: Tensor, height: int, width: int) -> Tensor:
        if self._longest_edge is not None:
            rows, columns = self._input_size(height, width)
            square = (self._side, self._side)
            low_res = functional.interpolate(low_res, square, mode="bilinear", align_corners=False)
            low_res = low_res[..., :rows, :columns]
        return functional.interpolate(low_res, (height, width), mode="bilinear", align_corners=False)

    def _prompt_tensors(self, embedding: Embedding, prompts: Prompts) -> dict[str, Tensor]:
        """The model's keywords: points [1, 1, N, 2], labels [1, 1, N], boxes [1, 1, 4], masks [1, 1, h, w]."""
        if not len(prompts.points) and prompts.box is None and prompts.mask_logits is None:
            raise PromptError("a prompt is needed: at least one point, a box, or mask logits")
        height, width = embedding.image_size
        rows, columns = self._input_size(height, width)
        scale = np.array([columns / width, rows / height])
        inputs: dict[str, Tensor] = {}
        if len(prompts.points):
            x, y = prompts.points.T
            if not ((x >= 0) & (y >= 0) & (x <= width) & (y <= height)).all():
                raise PromptError(
                    f"points {prompts.points.tolist()} must lie inside the image of {width} x {height} pixels"
                )
            inputs["input_points"] = self._tensor(prompts.points * scale)[None, None]
            inputs["input_labels"] = torch.as_tensor(prompts.point_labels, device=self._device)[None, None]
        if prompts.box is not None:
            if prompts.box.clip(width, height).area <= 0:
                raise PromptError(f"the box {tuple(prompts.box)} is empty or beside the image of {width} x {height} px")
            inputs["input_boxes"] = self._tensor(np.array(prompts.box) * np.tile(scale, 2))[None, None]
        if prompts.mask_logits is not None:
            if prompts.mask_logits.shape != self._mask_input_size:
                raise PromptError(
                    f"mask logits must be float32{list(self._mask_input_size)} for this model, got shape "
                    f"{list(prompts.mask_logits.shape)}"
                )
            inputs["input_masks"] = self._tensor(prompts.mask_logits)[None, None]
        return inputs

    def _tensor(self, values: npt.NDArray[Any]) -> Tensor:
        return torch.as_tensor(values, dtype=self._model.dtype, device=self._device)


def _image_features(model: Any, pixel_values: Tensor) -> list[Tensor]:
    """What the decoder needs of the image: one map, or several at falling resolution (SAM 2), or two (SAM-HQ)."""
    found = model.get_image_embeddings(pixel_values)
    if isinstance(found, Tensor):
        return [found]
    if isinstance(found, list):
        return found
    embedding, intermediate = found
    return [embedding, intermediate[0]]  # the decoder reads the first of them only


def _stability(logits: Tensor) -> float:
    return float(calculate_stability_score(logits, 0.0, STABILITY_OFFSET)[0].nan_to_num(0.0))


def load_hf_sam(weights: Path, *, embedding_dtype: EmbeddingDtype = "float16", device: str = "cpu") -> HfSamSegmenter:
    """The model in a folder of ``save_pretrained`` (config.json, preprocessor, model.safetensors); no network is used.

    Raises:
        WeightsError: not such a folder, or a model of another kind.
    """
    from transformers import AutoModelForMaskGeneration, AutoProcessor

    from backend.pipeline.weights.kinds import checkpoint_kind

    kind = checkpoint_kind(weights)
    if kind not in [f"transformers {name}" for name in _MODEL_TYPES]:
        raise WeightsError(
            f"{weights} holds {kind!r}, not a SAM of transformers ({', '.join(_MODEL_TYPES)}): give a folder written by"
            " save_pretrained or fetched from the hub"
        )
    try:
        model = AutoModelForMaskGeneration.from_pretrained(weights, local_files_only=True, dtype=torch.float32)  # nosec B615 # a local folder
        processor = AutoProcessor.from_pretrained(weights, local_files_only=True)  # nosec B615 # a local folder
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"the model in {weights} cannot be loaded: {error}") from error
    digest = recorded_sha256(weights) or record(weights)
    return HfSamSegmenter(model, processor, embedding_dtype=embedding_dtype, device=device, weights_hash=digest)

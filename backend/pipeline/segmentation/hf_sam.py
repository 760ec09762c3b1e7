"""SAM, SAM-HQ, SAM 2 / 2.1 and EdgeTAM of transformers as a ``Segmenter``: a folder written by ``save_pretrained``.

Masks equal those of the library's own processor and model on the same weights when features are stored as float32, with
torch and with OpenVINO; the decoder runs in its folded form (``hf_decoder``), so that logits differ by rounding only.
These models embed whole images. (MobileSAM is not in transformers.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from backend.bounded_cache import BoundedCache
from backend.pipeline.devices import MemoryFallback, placed
from backend.pipeline.segmentation.embedding_store import embedding_address
from backend.pipeline.segmentation.hf_decoder import FoldedHfDecoder, ImageSide, feature_shapes
from backend.pipeline.segmentation.hiera_encoder import HieraRows, is_hiera
from backend.pipeline.segmentation.logits import STABILITY_OFFSET, upsampled
from backend.pipeline.segmentation.openvino_engine import compile_network
from backend.pipeline.segmentation.sam import MASK_PROMPT_LOGIT, Autocast, EmbeddingDtype, Engine
from backend.pipeline.types import Box, Embedding, Image, Mask, MaskPrediction, Prompts, hash_image
from backend.pipeline.weights.records import record, recorded_sha256
from backend.pipeline.weights.transformers_folders import load_model, load_processor, require_type
from dataset_tools.errors import ConfigError, ImageError, PromptError

__all__ = ["HfSamSegmenter", "load_hf_sam"]

_MODEL_TYPES = ("sam", "sam_hq", "sam2", "sam2_video", "edgetam", "edgetam_video")
_FEATURE_BYTES = 48_000_000
"""Embeddings kept in the form in which the decoder reads them, beside the store's: two of SAM 2."""


class HfSamSegmenter:
    """A mask generation model of transformers with explicit embeddings; one object may serve many threads.

    Args:
        model: ``SamModel``, ``SamHQModel``, ``Sam2Model``, ``EdgeTamModel`` or ``Sam3TrackerModel``; put into
            evaluation mode on ``device``.
        processor: the model's own; resizes and normalises the image.
        embedding_dtype: type of stored features.
        device: where the network runs.
        weights_hash: identifies the weights.
        autocast: run the encoder in half precision, see ``SamSegmenter``.
        engine: what runs encoder and decoder, see ``SamSegmenter``; with ``openvino`` the model loses its encoder.

    Raises:
        ConfigError: OpenVINO is asked for and not installed, or asked to run on a GPU.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        embedding_dtype: EmbeddingDtype,
        device: str,
        weights_hash: str,
        autocast: Autocast = False,
        engine: Engine = "torch",
    ) -> None:
        if autocast not in (False, True, "bfloat16", "float16"):
            raise ConfigError(f"autocast must be false, true, bfloat16 or float16, got {autocast!r}")
        self._model = placed(model, device, "the segmenter").eval().requires_grad_(False)
        self._device = next(self._model.parameters()).device
        self.memory_fallback: MemoryFallback[Any] = MemoryFallback(self._model, "the segmenter's encoder")
        self._processor = processor
        self.embedding_dtype = np.dtype(embedding_dtype)
        self._weights_hash = weights_hash
        self._autocast: Autocast = autocast if autocast != "bfloat16" else True
        self._engine = engine
        size = processor.image_processor.size
        self._longest_edge: int | None = size.get("longest_edge")
        self._side = int(self._longest_edge or size["height"])
        self._shapes = feature_shapes(model)
        self._features: BoundedCache[str, tuple[Tensor, ...]] = BoundedCache(_FEATURE_BYTES)
        self._decoder = FoldedHfDecoder(self._model).eval()
        self._run_decoder: Callable[..., tuple[Tensor, ...]] = self._decoder
        self._run_encoder: Callable[[Tensor], tuple[Tensor, ...]] | None = None
        if engine == "openvino":
            self._compile()

    def _compile(self) -> None:
        if self._device.type != "cpu":
            raise ConfigError(f"segmenter.engine openvino runs on the CPU, the device is {self._device}: set cpu")
        image, *others = [torch.zeros(shape) for shape in self._shapes]
        tokens = self._decoder.prompt_tokens(torch.zeros(2, image.shape[1]))
        image, *looks = self._decoder.image_side(image)
        dense = self._decoder.dense_prompt(None)
        self._run_decoder = compile_network(self._decoder, [image, tokens, *looks, dense, *others], varying=[1])
        pixels = torch.zeros(1, 3, self._side, self._side)
        encoder = HieraRows(self._model) if is_hiera(self._model) else ImageSide(self._model)
        self._run_encoder = compile_network(
            encoder, [pixels], precision="bf16" if self._autocast is True else "f32", forgetful=True
        )
        del self._model.vision_encoder  # OpenVINO has its own copy of it

    @cached_property
    def encoder_hash(self) -> str:
        """Identifies weights, input size, storage dtype and precision, and the order of what is stored."""
        # In bfloat16 the engines round at other places.
        precision = f"-{self._autocast}-{self._engine}" if self._autocast else ""
        return f"{self._weights_hash[:16]}-{self._side}-{self.embedding_dtype.name}-rows{precision}"

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

        def encode(model: Any) -> npt.NDArray[np.floating]:
            pixels = inputs["pixel_values"]
            if self._run_encoder is not None:
                rows = self._run_encoder(pixels)
            else:
                device = next(model.parameters()).device
                half = torch.float16 if self._autocast == "float16" else torch.bfloat16
                lowered = bool(self._autocast) and (half is torch.bfloat16 or device.type != "cpu")
                with torch.autocast(device.type, half, enabled=lowered):
                    rows = ImageSide(model)(pixels.to(device))
            limit = np.finfo(self.embedding_dtype).max
            flat: npt.NDArray[np.floating] = np.empty(sum(one.numel() for one in rows), self.embedding_dtype)
            start = 0
            for one in rows:
                part = one.float().flatten().cpu().numpy()
                flat[start : start + len(part)] = np.clip(part, -limit, limit)
                start += len(part)
            return flat

        return Embedding(
            key=embedding_address(key or hash_image(image), self.encoder_hash, whole),
            features=self.memory_fallback.run(encode)[None, None],
            image_size=(height, width),
            window=whole,
        )

    @torch.inference_mode()
    def decode(self, embedding: Embedding, prompts: Prompts) -> MaskPrediction:
        """The mask for ``prompts`` at the image's size; of a lone point's several masks the most confident one.

        Raises:
            PromptError: no prompt, a point outside the image, or mask logits of another shape than the model's.
        """
        size = embedding.image_size
        sparse, mask = self._encoded(embedding, prompts)
        image, keys, values, queries, *others = self._in_rows(embedding)
        dense = self._decoder.dense_prompt(mask)
        if mask is not None:
            image = torch.addmm(image, dense, self._decoder.mixing().T)
        tokens = self._decoder.prompt_tokens(sparse)
        masks, ious = self._run_decoder(image, tokens, keys, values, queries, dense, *others)
        lone_point = len(prompts.points) == 1 and prompts.box is None and prompts.mask_logits is None
        best = self._chosen(masks, ious, lone_point=lone_point)
        low_res = masks[best].cpu().numpy()
        side = self._side if self._longest_edge is not None else len(low_res)
        input_size = self._input_size(*size) if self._longest_edge is not None else (side, side)
        at_size = upsampled(low_res, side, input_size, size, -STABILITY_OFFSET)
        return MaskPrediction(
            mask=at_size.mask(0.0, embedding),
            predicted_iou=float(ious[best].clamp(0, 1)),
            low_res_logits=low_res,
            measure_stability=partial(at_size.stability, 0.0),
        )

    def _chosen(self, masks: Tensor, ious: Tensor, *, lone_point: bool) -> int:
        """Which of the decoder's masks is the answer, as the library chooses: its first but for an ambiguous prompt.

        SAM 2 takes the most confident one of the others, too, where the first is unstable.
        """
        decoder = self._model.mask_decoder
        if not lone_point and getattr(decoder, "dynamic_multimask_via_stability", False):
            delta = decoder.dynamic_multimask_stability_delta
            inner, outer = (masks[0] > delta).sum(), (masks[0] > -delta).sum()
            lone_point = bool(outer) and float(inner / outer) < decoder.dynamic_multimask_stability_thresh
        return 1 + int(ious[1:].argmax()) if lone_point else 0

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

    def _in_rows(self, embedding: Embedding) -> tuple[Tensor, ...]:
        """The embedding as the decoder reads it, float32: of ``image_side``, then the finest and the finer rows as far
        as there are any. Kept, since further clicks ask for it again.
        """
        rows = self._features.get(embedding.key)
        if rows is None:
            flat = torch.from_numpy(embedding.features).to(self._device, torch.float32).flatten()
            parts = torch.split(flat, [math.prod(shape) for shape in self._shapes])
            tokens, *others = (one.view(shape) for one, shape in zip(parts, self._shapes, strict=True))
            rows = (*self._decoder.image_side(tokens), *others)
            self._features.put(embedding.key, rows, sum(one.nbytes for one in rows))
        return rows

    def _encoded(self, embedding: Embedding, prompts: Prompts) -> tuple[Tensor | None, Tensor | None]:
        """As the decoder reads prompts: tokens float[N, C], and the mask float[1, 1, 4 h, 4 w]."""
        given = self._prompt_tensors(embedding, prompts)
        if not given.keys() & {"input_points", "input_boxes"} and hasattr(self._model, "no_memory_embedding"):
            given["input_points"] = self._tensor(np.zeros((1, 1, 1, 2)))  # as SAM 2 does: a point that is none
            given["input_labels"] = -torch.ones(1, 1, 1, dtype=torch.int32, device=self._device)
        mask = given.pop("input_masks", None)
        names = ("input_points", "input_labels", "input_boxes", "input_masks")
        sparse, _ = self._model.prompt_encoder(**{name: given.get(name) for name in names})
        return None if sparse is None else sparse[0, 0], mask

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


def load_hf_sam(
    weights: Path,
    *,
    embedding_dtype: EmbeddingDtype = "float16",
    device: str = "cpu",
    autocast: Autocast = False,
    engine: Engine = "torch",
) -> HfSamSegmenter:
    """The model in a folder of ``save_pretrained`` (config.json, preprocessor, model.safetensors); no network is used.

    Args:
        weights: the folder.
        embedding_dtype: type of stored features.
        device: where the network runs.
        autocast: run the encoder in half precision, see ``SamSegmenter``.
        engine: what runs the networks, see ``SamSegmenter``.

    Raises:
        WeightsError: not such a folder, a model of another kind, or tensors are missing or left over.
        ConfigError: a package that it needs is not installed.
    """
    from transformers import AutoModelForMaskGeneration, AutoProcessor

    require_type(weights, _MODEL_TYPES, "a SAM of transformers")
    model = load_model(AutoModelForMaskGeneration, weights)
    processor = load_processor(AutoProcessor, weights)
    digest = recorded_sha256(weights) or record(weights)
    return HfSamSegmenter(
        model,
        processor,
        embedding_dtype=embedding_dtype,
        device=device,
        weights_hash=digest,
        autocast=autocast,
        engine=engine,
    )

"""Any ``segment_anything.modeling.Sam`` (compact, ViT-B, ViT-L, ViT-H) as a ``Segmenter``.

For a window that is the whole image, masks equal those of ``segment_anything.SamPredictor`` on the same weights when
features are stored as float32; half-precision storage rounds the features once, before their first use. The decoder
runs in its folded form (``folded_decoder``), with torch or OpenVINO: logits differ by rounding only, 1e-6 of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property, partial
from typing import Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from backend.bounded_cache import BoundedCache
from backend.pipeline.devices import MemoryFallback, placed, resolved
from backend.pipeline.segmentation.embedding_store import embedding_address
from backend.pipeline.segmentation.folded_decoder import FoldedDecoder
from backend.pipeline.segmentation.logits import STABILITY_OFFSET, hold_clicks, upsampled
from backend.pipeline.segmentation.openvino_engine import compile_network
from backend.pipeline.segmentation.windows import (
    PromptTensors,
    half_turned,
    prompt_tensors,
    whole_image,
)
from backend.pipeline.types import Box, Embedding, Image, Mask, MaskPrediction, Prompts, hash_image
from dataset_tools.errors import ConfigError, ImageError, PromptError

__all__ = ["MASK_PROMPT_LOGIT", "Autocast", "EmbeddingDtype", "Engine", "SamSegmenter", "WindowRule"]

MASK_PROMPT_LOGIT = 6.0
"""Logit of the object in a mask prompt made from a binary mask, minus this outside; the compact model is trained so."""

_IMAGE_TOKEN_BYTES = 32_000_000
"""Embeddings kept in the form in which the decoder reads them, beside the store's: eight of ViT-B."""

EmbeddingDtype: TypeAlias = Literal["float16", "float32"]
Autocast: TypeAlias = bool | Literal["bfloat16", "float16"]
"""Precision of an encoder: False is float32, True means bfloat16."""
Engine: TypeAlias = Literal["torch", "openvino"]
"""What runs the networks. In float32 both give the same masks."""
WindowRule: TypeAlias = Callable[[Box, tuple[int, int]], Box]
"""(box, (height, width) of the image) -> window, both in pixels."""


class SamSegmenter:
    """A promptable segmentation model with explicit embeddings; one object may serve many threads at once.

    The network is only read after construction, and everything a decode needs is in the embedding, so no lock is held.

    Args:
        sam: the network; put into evaluation mode on ``device``.
        window_rule: the window for an object's box; None embeds whole images.
        embedding_dtype: type of stored features: ``float16`` halves memory and disk, ``float32`` is exact.
        device: where the network runs; ``auto`` takes a GPU when there is one.
        threads: torch's threads within one operation, a setting of the whole process; None leaves it alone.
        autocast: run the encoder in bfloat16 (True), or in float16, which only a GPU does: on a CPU it then stays in
            float32. The decoder stays in float32: bfloat16 there flips mask pixels.
        click_radius: make every click hold: where the mask contradicts one, its logits are corrected within this
            distance, in low-resolution pixels. None leaves the decoder's answer alone (segment-anything's behaviour).
        weights_hash: identifies the weights (their file's sha256); None hashes the encoder's tensors on first use.
        engine: ``openvino`` runs encoder and decoder on the CPU with as many threads as torch has at this moment.
        mask_threshold: logit above which a pixel is the object's; None: the network's own (0).
        half_turn: outline (``outline``) what the window shows together with what it shows turned by half, which costs
            a second embedding and a second decode. For square windows.

    Attributes:
        window_for: the rule, see ``Segmenter``.
        mask_threshold, half_turn: as given.

    Raises:
        ConfigError: OpenVINO is asked for and not installed, or asked to run on a GPU.
    """

    def __init__(
        self,
        sam: Sam,
        *,
        window_rule: WindowRule | None = None,
        embedding_dtype: EmbeddingDtype = "float16",
        device: str = "cpu",
        threads: int | None = None,
        autocast: Autocast = False,
        click_radius: float | None = None,
        weights_hash: str | None = None,
        engine: Engine = "torch",
        mask_threshold: float | None = None,
        half_turn: bool = False,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        if autocast not in (False, True, "bfloat16", "float16"):
            raise ConfigError(f"autocast must be false, true, bfloat16 or float16, got {autocast!r}")
        self.sam = placed(sam, resolved(device), "the segmenter").eval().requires_grad_(False)
        self.memory_fallback = MemoryFallback(self.sam, "the segmenter's encoder")
        self.embedding_dtype = np.dtype(embedding_dtype)
        self.window_for: WindowRule = window_rule or whole_image
        self._autocast: Autocast = autocast if autocast != "bfloat16" else True
        self.mask_threshold = float(sam.mask_threshold if mask_threshold is None else mask_threshold)
        self.half_turn = half_turn
        self._click_radius = click_radius
        self._weights_hash = weights_hash
        self._transform = ResizeLongestSide(sam.image_encoder.img_size)
        # low-resolution pixels per input pixel
        self._scale = sam.prompt_encoder.mask_input_size[0] / float(self._transform.target_length)
        self._image_tokens: BoundedCache[str, tuple[Tensor, ...]] = BoundedCache(_IMAGE_TOKEN_BYTES)
        self._decoder = FoldedDecoder(self.sam).eval()
        self._engine = engine
        self._run_decoder: Callable[[Tensor, Tensor], tuple[Tensor, ...]] = self._decoder
        self._run_encoder: Callable[[Tensor], Tensor] | None = None
        if engine == "openvino":
            self._compile()

    def _compile(self) -> None:
        if self.sam.device.type != "cpu":
            raise ConfigError(f"segmenter.engine openvino runs on the CPU, the device is {self.sam.device}: set cpu")
        grid, side = self._decoder.image_pe.shape, self.sam.image_encoder.img_size
        tokens = self._decoder.prompt_tokens(torch.zeros(2, grid[1]))
        self._run_decoder = compile_network(self._decoder, [torch.zeros(grid), tokens], varying=[1])
        precision: Literal["f32", "bf16"] = "bf16" if self._autocast is True else "f32"
        pixels = torch.zeros(1, 3, side, side)
        encoder = compile_network(self.sam.image_encoder, [pixels], precision=precision, forgetful=True)
        self._run_encoder = lambda inputs: encoder(inputs)[0]

    @cached_property
    def encoder_hash(self) -> str:
        """16 hex digits over weights, input size, storage dtype and precision."""
        digest = hashlib.sha256()
        if self._weights_hash is not None:
            digest.update(self._weights_hash.encode())
        else:
            for name, tensor in self.sam.image_encoder.state_dict().items():
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
        settings = (self.sam.image_encoder.img_size, self.embedding_dtype.name, self._autocast)
        digest.update(repr(settings).encode())
        if self._autocast and self._engine != "torch":  # in bfloat16 the engines round at other places
            digest.update(self._engine.encode())
        return digest.hexdigest()[:16]

    def embed(self, image: Image, window: Box | None = None, *, key: str | None = None) -> Embedding:
        """Features of ``image`` or of one ``window`` of it.

        Args:
            image: uint8[H, W, 3] RGB.
            window: (x0, y0, x1, y1) in whole pixels; what lies outside the image is filled with the mean pixel. None:
                the whole image.
            key: names the image's content; None hashes the window's pixels, which say as much about its features.

        Raises:
            ImageError: the image is not uint8[H, W, 3] or is empty, or the window does not overlap it.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ImageError(f"an image must be uint8[H, W, 3] with H, W > 0, got {image.dtype}{list(image.shape)}")
        height, width = image.shape[:2]
        x0, y0, x1, y1 = (round(v) for v in window) if window is not None else (0, 0, width, height)
        if min(x1, width) <= max(x0, 0) or min(y1, height) <= max(y0, 0):
            raise ImageError(f"the window {(x0, y0, x1, y1)} lies outside the image of {width} x {height} pixels")
        placed = Box(float(x0), float(y0), float(x1), float(y1))
        pixels = self._pixels_in(image, placed)
        features = self._encode(pixels)
        address = embedding_address(key or hash_image(pixels), self.encoder_hash, placed)
        return Embedding(key=address, features=features, image_size=(height, width), window=placed)

    def _pixels_in(self, image: Image, window: Box) -> Image:
        """The pixels of a window of ``image`` that overlaps it, the mean pixel where it reaches out of it."""
        height, width = image.shape[:2]
        x0, y0, x1, y1 = (round(v) for v in window)
        pixels = np.ascontiguousarray(image[max(y0, 0) : y1, max(x0, 0) : x1])
        borders = (max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0))
        if any(borders):
            mean = [round(float(v)) for v in self.sam.pixel_mean.flatten()]
            pixels = cv2.copyMakeBorder(pixels, *borders, cv2.BORDER_CONSTANT, value=mean).astype(np.uint8)
        return pixels

    @torch.inference_mode()
    def _encode(self, pixels: Image) -> npt.NDArray[np.floating]:
        """Features [C, h, w] in the storage dtype of ``pixels`` uint8[H, W, 3]."""
        resized = torch.from_numpy(self._transform.apply_image(pixels))

        def encode(sam: Sam) -> npt.NDArray[np.float32]:
            inputs = sam.preprocess(resized.to(sam.device).permute(2, 0, 1).contiguous()[None])
            if self._run_encoder is not None:
                return self._run_encoder(inputs)[0].numpy()
            half = torch.float16 if self._autocast == "float16" else torch.bfloat16
            lowered = bool(self._autocast) and (half is torch.bfloat16 or sam.device.type != "cpu")
            with torch.autocast(sam.device.type, half, enabled=lowered):
                encoded: npt.NDArray[np.float32] = sam.image_encoder(inputs)[0].float().cpu().numpy()
            return encoded

        features = self.memory_fallback.run(encode)
        limit = np.finfo(self.embedding_dtype).max
        stored: npt.NDArray[np.floating] = np.clip(features, -limit, limit).astype(self.embedding_dtype)
        return stored

    @torch.inference_mode()
    def decode(self, embedding: Embedding, prompts: Prompts) -> MaskPrediction:
        """The mask for ``prompts``, pasted at the original image's size; empty outside the embedding's window.

        A single point without box or mask is ambiguous: of a decoder with several mask tokens the mask with the best
        predicted IoU is taken (SamPredictor's ``multimask_output=True``), in every other case its single mask. Negative
        points outside the window are left out, since the mask is empty there anyway.

        Args:
            embedding: from ``embed`` of this model, or read back from storage.
            prompts: points, box, mask logits in any combination; the box may reach over the window.

        Raises:
            PromptError: no prompt at all; a point outside the image, or a positive one outside the window; an empty box
                or one beside the window; mask logits of another shape than the model's.
        """
        tokens = self._looks(embedding)[0]
        given = prompt_tensors(self.sam, self._transform, embedding, prompts)
        return self._prediction(*self._decoded(tokens, given), embedding, given, prompts.mask_logits)

    @torch.inference_mode()
    def outline(self, image: Image, embedding: Embedding, prompts: Prompts) -> MaskPrediction:
        """The mask of a pre-label: as ``decode``, with ``half_turn`` by the mean of two looks.

        Seen from above no side is up, and the network errs differently on the two views.

        Args:
            image: uint8[H, W, 3] RGB, of which ``embedding`` is.
            embedding: of a square window.
            prompts: as of ``decode``; the same errors.
        """
        if not self.half_turn:
            return self.decode(embedding, prompts)
        upright, other = self._looks(embedding, image)
        given = prompt_tensors(self.sam, self._transform, embedding, prompts)
        turned = half_turned(given, self._transform.target_length)
        logits, iou = self._decoded(upright, given)
        others, its_iou = self._decoded(other, turned)
        mean = (logits + others.flip(0, 1)) / 2
        return self._prediction(mean, (iou + its_iou) / 2, embedding, given, prompts.mask_logits)

    def _decoded(self, tokens: Tensor, given: PromptTensors) -> tuple[Tensor, Tensor]:
        """The best mask's logits float32[h, w] and its predicted IoU, of features ``tokens`` float32[h * w, C]."""
        points, labels, box, logits = given[:4]
        single_point = labels is not None and labels.shape[1] == 1
        ambiguous = single_point and box is None and logits is None
        several = ambiguous and self.sam.mask_decoder.num_multimask_outputs > 0
        pairs = None if points is None else (points, labels)
        sparse, _ = self.sam.prompt_encoder(points=pairs, boxes=box, masks=None)
        image = self._decoder.image_tokens(tokens, logits)
        masks, ious = self._run_decoder(image, self._decoder.prompt_tokens(sparse[0]))
        first = 1 if several else 0
        best = first + int(ious[first : None if several else 1].argmax())
        return masks[best], ious[best]

    def _prediction(
        self,
        logits: Tensor,
        iou: Tensor,
        embedding: Embedding,
        given: PromptTensors,
        before: npt.NDArray[np.float32] | None,
    ) -> MaskPrediction:
        """``logits`` float32[h, w], made to hold the clicks where they have to, as a mask of the image."""
        if self._click_radius is not None and len(given.signs):
            logits = hold_clicks(logits, given.places, given.signs, self._click_radius, before)
        side, threshold = self._transform.target_length, self.mask_threshold
        input_size = self._transform.get_preprocess_shape(*given.size, side)
        low_res_logits = logits.cpu().numpy()
        placed = upsampled(low_res_logits, side, input_size, given.size, threshold - STABILITY_OFFSET)
        return MaskPrediction(
            mask=placed.mask(threshold, embedding),
            predicted_iou=float(iou.clamp(0, 1)),
            low_res_logits=low_res_logits,
            measure_stability=partial(placed.stability, threshold),
        )

    def _looks(self, embedding: Embedding, image: Image | None = None) -> tuple[Tensor, ...]:
        """The embedding as the decoder reads it, float32[h * w, C]; with its ``image`` the turned window's after it.

        Kept, since further clicks ask for it again. The turned window's is stored nowhere else: clicks never ask.
        """
        kept = self._image_tokens.get(embedding.key) or ()
        if kept and (image is None or len(kept) == 2):
            return kept
        looks = kept or (self._tokens(embedding.features),)
        if image is not None:
            turned = np.ascontiguousarray(self._pixels_in(image, embedding.window)[::-1, ::-1])
            looks = (*looks, self._tokens(self._encode(turned)))
        self._image_tokens.put(embedding.key, looks, sum(tokens.nbytes for tokens in looks))
        return looks

    def _tokens(self, features: npt.NDArray[np.floating]) -> Tensor:
        tensor = torch.from_numpy(features).to(self.sam.device, torch.float32)
        return tensor.flatten(1).T.contiguous()

    def mask_prompt(self, embedding: Embedding, mask: Mask) -> npt.NDArray[np.float32]:
        """``mask`` bool[H, W] of the original image as mask logits float32[h, w] for ``Prompts.mask_logits``."""
        if mask.shape != embedding.image_size:
            raise PromptError(f"the mask has shape {list(mask.shape)}, the image is {list(embedding.image_size)}")
        x0, y0, x1, y1 = (round(v) for v in embedding.window)
        height, width = embedding.image_size
        window = np.zeros((y1 - y0, x1 - x0), np.float32)
        rows, columns = slice(max(y0, 0), min(y1, height)), slice(max(x0, 0), min(x1, width))
        window[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0] = mask[rows, columns]
        side = self._transform.target_length
        scale = self._scale
        rows_in, columns_in = (
            max(1, round(v * scale)) for v in self._transform.get_preprocess_shape(*window.shape, side)
        )
        shrinks = rows_in < window.shape[0]
        resized = cv2.resize(
            window, (columns_in, rows_in), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
        logits = np.full(self.sam.prompt_encoder.mask_input_size, -MASK_PROMPT_LOGIT, np.float32)
        logits[:rows_in, :columns_in] = (2 * resized - 1) * MASK_PROMPT_LOGIT
        return logits

"""A language model that runs in this process, through transformers: a folder of ``save_pretrained``."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from backend.pipeline.grounding.vlm.answers import Coordinates
from backend.pipeline.grounding.vlm.chat import Observe, Reply, unobserved
from backend.pipeline.types import Image
from backend.pipeline.weights.transformers_folders import load_model, load_processor
from dataset_tools.errors import UnavailableError, WeightsError

__all__ = ["InProcess"]

_COORDINATES: dict[str, Coordinates] = {
    "qwen2_5_vl": "pixels",
    "qwen3_vl": "thousandths",
    "qwen3_vl_moe": "thousandths",
}
"""How models of these types count; others have to be told (option ``coordinates``)."""


class InProcess:
    """Implements ``Chat`` with an image-text-to-text model; one conversation at a time.

    Args:
        folder: config.json, safetensors, processor and tokenizer with a chat template.
        device: where it runs; on a GPU in bfloat16.
        max_tokens: longest answer.

    Raises:
        WeightsError: not such a folder, incomplete or damaged.
    """

    elsewhere = False

    def __init__(self, folder: Path, *, device: str, max_tokens: int) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        try:
            self._processor = load_processor(AutoProcessor, folder)
            model = load_model(AutoModelForImageTextToText, folder, dtype=dtype)
        except WeightsError as error:
            raise WeightsError(f"no language model that sees images: {error}") from error
        if not getattr(self._processor, "chat_template", None):
            raise WeightsError(f"{folder} has no chat template (chat_template.jinja): a model to talk to has one")
        self._model: Any = model.to(device).eval()
        self._device = device
        self._max_tokens = max_tokens
        self._lock = threading.Lock()
        self.observe: Observe = unobserved

    @property
    def coordinates(self) -> Coordinates | None:
        """What the numbers in this type's answers are, None if not known."""
        return _COORDINATES.get(self._model.config.model_type)

    def ask(self, image: Image, turns: Sequence[str], until: float) -> Reply:
        """The model's words about ``image``; see ``Chat``."""
        start = time.monotonic()
        first = [{"type": "image", "image": image}, {"type": "text", "text": turns[0]}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": first}]
        for number, turn in enumerate(turns[1:], start=1):
            role = ("user", "assistant")[number % 2]
            messages.append({"role": role, "content": [{"type": "text", "text": turn}]})
        text = self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = self._processor(text=[text], images=[image], return_tensors="pt").to(self._device)
        asked = inputs["input_ids"].shape[1]
        with self._lock, torch.inference_mode():
            left = until - time.monotonic()
            if left > 0:
                said = self._model.generate(**inputs, max_new_tokens=self._max_tokens, do_sample=False, max_time=left)[
                    0, asked:
                ]
        if left <= 0 or time.monotonic() > until:
            self.observe("timeout", time.monotonic() - start, asked)
            raise UnavailableError(
                "the language model did not answer in time; is the grounder's option deadline_s long enough?"
            )
        self.observe("answered", time.monotonic() - start, asked, len(said))
        words: str = self._processor.tokenizer.decode(said, skip_special_tokens=True)
        return Reply(words, self._seen(image, inputs), complete=len(said) < self._max_tokens)

    def _seen(self, image: Image, inputs: Any) -> tuple[int, int]:
        """(width, height) that the processor has made of ``image``."""
        if "image_grid_thw" in inputs:
            patch = int(self._processor.image_processor.patch_size)
            _, rows, columns = inputs["image_grid_thw"][0].tolist()
            return columns * patch, rows * patch
        return image.shape[1], image.shape[0]

"""Training data of LQVG: expression, image and one box; augmented and batched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image as PilImage
from torch import Tensor

from backend.pipeline.grounding.lqvg.inference import Tokenizer
from backend.pipeline.grounding.lqvg.letterbox import normalize
from backend.pipeline.types import Box, Image
from backend.training.run import step_generator
from dataset_tools import image_files
from dataset_tools.errors import ConfigError, DatasetError
from dataset_tools.labelled import questions, read

__all__ = ["Batch", "GroundingBatches", "GroundingExample", "collate", "grounding_examples", "resize"]

_MULTIPLE = 32
_PADDING_TOKEN = 1


@dataclass(frozen=True)
class GroundingExample:
    """One referring expression with one target.

    Attributes:
        image: path of the image file.
        expression: as the annotator wrote it.
        box: of the target, pixels.
    """

    image: Path
    expression: str
    box: Box


class Batch(NamedTuple):
    """Arguments of ``LqvgNetwork.forward`` and the targets.

    ``images`` float32[B, 3, H, W], H and W multiples of 32; ``image_padding`` bool[B, H, W]; ``token_ids`` and
    ``text_attention`` int64[B, L]; ``targets`` float32[B, 4], (cx, cy, w, h) in 0..1 of the image without padding.
    """

    images: Tensor
    image_padding: Tensor
    token_ids: Tensor
    text_attention: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


def grounding_examples(folder: Path, split: str) -> list[GroundingExample]:
    """Every expression with exactly one target in a split of a dataset folder.

    Args:
        folder: of any format that ``dataset_tools.labelled`` reads, DIOR-RSVG and REFER (RRSIS-D) among them.
        split: the name of a split of that folder, or a file that lists images.

    Raises:
        DatasetError: of no known format, a damaged file, no such split, or no such expression in it.
    """
    examples = []
    for question in questions(read(folder, split, masks=False)):
        targets = question.targets
        if len(targets) == 1 and targets[0].box.area > 0:
            examples.append(GroundingExample(question.image.path, question.expression.text, targets[0].box))
    if not examples:
        raise DatasetError(f"split {split!r} of {folder} holds no expression with exactly one target")
    return examples


def resize(image: Image, side: int, longest: int) -> Image:
    """Bring the shorter side of ``image`` uint8[H, W, 3] to ``side`` pixels, the longer to at most ``longest``."""
    height, width = image.shape[:2]
    short, long = min(height, width), max(height, width)
    if long / short * side > longest:
        side = round(longest * short / long)
    if short == side:
        return image
    new_width, new_height = (side, int(side * long / short)) if width < height else (int(side * long / short), side)
    resized = PilImage.fromarray(image).resize((new_width, new_height), PilImage.Resampling.BILINEAR)
    return np.asarray(resized)


def collate(images: Sequence[Image], expressions: Sequence[Sequence[int]], boxes: Sequence[Sequence[float]]) -> Batch:
    """Pad images (after normalisation, bottom and right, with zeros) and token ids to a common size.

    Args:
        images: uint8[H, W, 3] RGB each.
        expressions: token ids each.
        boxes: (cx, cy, w, h) in 0..1 of the image each.
    """
    height, width = (-(-max(image.shape[axis] for image in images) // _MULTIPLE) * _MULTIPLE for axis in (0, 1))
    longest = max(map(len, expressions))
    pixels = torch.zeros(len(images), 3, height, width)
    padding = torch.ones(len(images), height, width, dtype=torch.bool)
    token_ids = torch.full((len(images), longest), _PADDING_TOKEN)
    attention = torch.zeros_like(token_ids)
    for i, (image, tokens) in enumerate(zip(images, expressions, strict=True)):
        h, w = image.shape[:2]
        pixels[i, :, :h, :w] = torch.from_numpy(normalize(image))
        padding[i, :h, :w] = False
        token_ids[i, : len(tokens)] = torch.tensor(tokens)
        attention[i, : len(tokens)] = 1
    return Batch(pixels, padding, token_ids, attention, torch.tensor(boxes, dtype=torch.float32))


class GroundingBatches:
    """The batches of a run by step number: what a step holds depends on seed, step and process only.

    An epoch is a permutation of the examples, filled up from its beginning to whole batches for every process.

    Args:
        examples: of the training split.
        tokenizer: of the text encoder.
        seed: of permutations and augmentation.
        batch_size: examples of one process in one step.
        sides: the shorter side in pixels is drawn from these for each image.
        longest: limit of the longer side, pixels.
        process: number of this process, from 0.
        processes: how many processes train together.
    """

    def __init__(
        self,
        examples: Sequence[GroundingExample],
        tokenizer: Tokenizer,
        *,
        seed: int,
        batch_size: int,
        sides: Sequence[int],
        longest: int,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        if not sides or min(sides) < 1 or longest < max(sides):
            raise ConfigError(f"sides must be positive and at most longest={longest}, got {list(sides)}")
        self._examples = examples
        self._tokenizer = tokenizer
        self._seed = seed
        self._batch_size = batch_size
        self._sides = list(sides)
        self._longest = longest
        self._process = process
        self._processes = processes
        self.steps_per_epoch = -(-len(examples) // (batch_size * processes))

    def __getitem__(self, step: int) -> Batch:
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self._seed, 1, epoch)).permutation(len(self._examples))
        order = np.resize(order, self.steps_per_epoch * self._batch_size * self._processes)
        first = (position * self._processes + self._process) * self._batch_size
        rng = step_generator(self._seed, step * self._processes + self._process)
        images, expressions, boxes = [], [], []
        for index in order[first : first + self._batch_size]:
            example = self._examples[index]
            image = image_files.read(example.image)
            height, width = image.shape[:2]
            images.append(resize(image, int(rng.choice(self._sides)), self._longest))
            expressions.append(self._tokenizer(example.expression))
            box = example.box
            boxes.append((box.center.x / width, box.center.y / height, box.width / width, box.height / height))
        return collate(images, expressions, boxes)

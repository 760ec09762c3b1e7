"""What mask-decoder training sees: objects with the frozen encoder's features, embedded once and then only read.

The compact segmenter sees a window per object: the windows that inference takes for the true and for a jittered box,
and augmented ones (turned, flipped, recoloured; some with a free side, as a lone click has it). Models that embed whole
images share one embedding among an image's objects; their augmented views are quarter turns and flips of the image.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from segment_anything.utils.transforms import ResizeLongestSide

from backend.pipeline.segmentation.compact_sam import ConvEncoder
from backend.pipeline.segmentation.embedding_store import EmbeddingStore
from backend.pipeline.segmentation.sam import SamSegmenter
from backend.pipeline.types import Box, Image, hash_image
from backend.training.segmenter.samples import (
    TrainingObject,
    TrainingScene,
    WindowSample,
    draw_sample,
    plain_sample,
    scene_of,
)
from backend.training.segmenter.validation import jittered
from dataset_tools.errors import ImageError
from dataset_tools.labelled import LabelledImage
from dataset_tools.masks import from_coco, to_coco_rle

__all__ = [
    "DecoderSample",
    "EmbedView",
    "Features",
    "decoder_samples",
    "held_out_split",
    "in_memory",
    "sees_windows",
    "stored",
]

Features = Callable[[], npt.NDArray[np.floating]]
"""Makes a view's features float[C, h, w] in the storage dtype."""
EmbedView = Callable[[Image], Features]
"""Embeds a whole view uint8[H, W, 3] and says where its features are then found."""
View = Literal["exact", "jittered", "augmented", "free"]

FREE_EVERY = 4
"""Of the augmented windows every fourth has a free side."""


@dataclass(frozen=True, eq=False)
class DecoderSample:
    """One object in the square input (side S pixels) of an embedded view; has the form of ``PromptTarget``.

    Attributes:
        features: of the view; called when they are needed.
        rle: the mask as COCO's compressed run-length code, some hundred bytes: a data set's masks stay in memory.
        side: S.
        box: float32[4], the box prompt (x0, y0, x1, y1) in pixels of the input.
        full_area: pixels of the whole object at the input's resolution, parts outside included.
        category: of the object.
        image: key of its image; what belongs to one image is trained on or held out together.
        view: ``exact`` and ``jittered`` (as inference sees a true and a shifted box), ``augmented``, or ``free`` (a
            window that does not follow from the box: for clicks only).
    """

    features: Features = field(repr=False)
    rle: Mapping[str, Any] = field(repr=False)
    side: int
    box: npt.NDArray[np.float32]
    full_area: float
    category: str
    image: str
    view: View

    @property
    def mask(self) -> npt.NDArray[np.uint8]:
        """uint8[S, S], 0 or 1."""
        return from_coco(self.rle, self.side, self.side).astype(np.uint8)


def in_memory(segmenter: SamSegmenter) -> EmbedView:
    """Embeds by ``segmenter`` and keeps the features."""

    def embed(image: Image) -> Features:
        features = segmenter.embed(image).features
        return lambda: features

    return embed


def stored(segmenter: SamSegmenter, store: EmbeddingStore) -> EmbedView:
    """Embeds by ``segmenter`` what ``store`` does not hold, and reads features back from it."""

    def embed(image: Image) -> Features:
        height, width = image.shape[:2]
        key = hash_image(image)
        address = store.embed(segmenter, key, lambda: image, Box(0.0, 0.0, float(width), float(height))).key

        def features() -> npt.NDArray[np.floating]:
            found = store.read(address)
            if found is None:
                raise ImageError(f"the embedding {address} was removed from {store.folder} while it was needed")
            return found.features

        return features

    return embed


def sees_windows(segmenter: SamSegmenter) -> bool:
    """Whether the model embeds a window per object (the compact one) instead of whole images."""
    return isinstance(segmenter.sam.image_encoder, ConvEncoder)


def decoder_samples(
    segmenter: SamSegmenter,
    images: Iterable[LabelledImage],
    *,
    views: int | None = None,
    jitter: float = 0.12,
    seed: int = 0,
    embed: EmbedView | None = None,
    progress: Callable[[LabelledImage], None] = lambda _: None,
) -> list[DecoderSample]:
    """Samples of every object of ``images``, all embedded: an ``exact`` and a ``jittered`` one each, then augmented.

    Args:
        segmenter: whose encoder embeds, as it does in use.
        images: read one at a time.
        views: augmented views per object (windows) or per image (whole images); None: 4 and 0.
        jitter: largest shift of a box side in augmented views, as a share of the box's extent.
        seed: what is drawn for an object depends on it, the image and the object alone, so that a part of the images or
            of their objects finds its views in a store that holds those of all.
        embed: embeds views; None keeps their features in memory.
        progress: called with each image that is done.

    Raises:
        ImageError: a file cannot be read, or has another size than its labels.
    """
    windows = sees_windows(segmenter)
    make = _windows if windows else _whole_images
    count = (4 if windows else 0) if views is None else views
    samples: list[DecoderSample] = []
    for image in images:
        scene = _scene(image)
        if scene.objects:
            samples += make(segmenter, scene, count, jitter, seed, embed or in_memory(segmenter))
        progress(image)
    return samples


def _scene(image: LabelledImage) -> TrainingScene:
    return scene_of(image.key, image.pixels(), ((item.category, item.mask()) for item in image.objects))


def _windows(
    segmenter: SamSegmenter, scene: TrainingScene, count: int, jitter: float, seed: int, embed: EmbedView
) -> Iterator[DecoderSample]:
    """The compact segmenter's samples: each object in windows of its own."""
    side = segmenter.sam.image_encoder.img_size
    for target in scene.objects:
        rng = _generator(seed, scene, target, 0)
        drawn: list[tuple[WindowSample, View]] = [
            (plain_sample(scene, target, target.box, side), "exact"),
            (plain_sample(scene, target, jittered(target, rng), side), "jittered"),
        ]
        for number in range(count):
            free = number % FREE_EVERY == FREE_EVERY - 1
            sample = draw_sample(scene, target, side, rng, jitter=jitter, free_window=free)
            drawn.append((sample, "free" if free else "augmented"))
        for sample, view in drawn:
            if sample.mask.any():
                yield DecoderSample(
                    embed(sample.image),
                    to_coco_rle(sample.mask.astype(bool)),
                    side,
                    sample.box,
                    sample.full_area,
                    sample.category,
                    scene.name,
                    view,
                )


def _whole_images(
    segmenter: SamSegmenter, scene: TrainingScene, count: int, jitter: float, seed: int, embed: EmbedView
) -> Iterator[DecoderSample]:
    """Samples of a model that embeds whole images, ``count`` of them turned or flipped."""
    for number in range(1 + count):
        turn = 0 if number == 0 else 1 + (number - 1) % 7
        features = embed(_turned(scene.image, turn))
        for target in scene.objects:
            full = np.zeros(scene.image.shape[:2], np.uint8)
            (x, y), (height, width) = target.offset, target.mask.shape
            full[y : y + height, x : x + width] = target.mask > 0
            sample = _in_input(segmenter, _turned(full, turn), target)
            if sample is None:
                continue
            rle, side, box, area = sample
            rng = _generator(seed, scene, target, number)
            shift = rng.uniform(-jitter, jitter, 4) * np.tile(box[2:] - box[:2], 2)
            boxes: list[tuple[npt.NDArray[np.float32], View]] = [((box + shift).astype(np.float32), "augmented")]
            if number == 0:
                boxes = [(box, "exact"), ((box + shift).astype(np.float32), "jittered")]
            for prompt, view in boxes:
                yield DecoderSample(features, rle, side, prompt, area, target.category, scene.name, view)


def _generator(seed: int, scene: TrainingScene, target: TrainingObject, view: int) -> np.random.Generator:
    return np.random.default_rng((seed, zlib.crc32(scene.name.encode()), *target.offset, target.area, view))


def _in_input(
    segmenter: SamSegmenter, mask: npt.NDArray[np.uint8], target: TrainingObject
) -> tuple[Mapping[str, Any], int, npt.NDArray[np.float32], float] | None:
    """Code, side, box and area of a mask uint8[H, W] in the encoder's input; None if nothing of it is left."""
    side = segmenter.sam.image_encoder.img_size
    height, width = ResizeLongestSide.get_preprocess_shape(*mask.shape, side)
    scale = np.array([width / mask.shape[1], height / mask.shape[0]])
    placed = np.zeros((side, side), np.uint8)
    placed[:height, :width] = cv2.resize(mask * 255, (width, height), interpolation=cv2.INTER_LINEAR) > 127
    if not placed.any():
        return None
    rows, columns = np.nonzero(mask)
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * np.tile(scale, 2)
    return to_coco_rle(placed.astype(bool)), side, box.astype(np.float32), target.area * float(scale.prod())


def _turned(array: npt.NDArray[np.uint8], turn: int) -> npt.NDArray[np.uint8]:
    """One of the eight turns and flips of ``array`` [H, W, ...]; 0 leaves it as it is."""
    turned = np.rot90(array[:, ::-1] if turn >= 4 else array, turn % 4)
    return np.ascontiguousarray(turned)


def held_out_split(
    samples: Sequence[DecoderSample], share: float, seed: int
) -> tuple[list[DecoderSample], list[DecoderSample]]:
    """(training, validation) samples: ``share`` of the images, drawn from ``seed``, held out, at least one of them.

    With a single image, or a share of 0, nothing is held out.
    """
    names = sorted({sample.image for sample in samples})
    count = 0 if share == 0 or len(names) < 2 else min(len(names) - 1, max(1, round(share * len(names))))
    chosen = set(np.random.default_rng(seed).permutation(names)[:count])
    training = [sample for sample in samples if sample.image not in chosen]
    return training, [sample for sample in samples if sample.image in chosen]

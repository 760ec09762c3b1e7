"""What the compact detector makes of an image without its adapter, kept on disk for training and measuring.

A view is an image turned, flipped and read at one size. Kept are the features that the heads read
(``Detector.pyramid``) and what the detector's own heads say, as float16; they depend on the frozen weights and the
pixels only, never on labels.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch

from backend.pipeline.devices import in_bfloat16
from backend.pipeline.grounding.compact.detections import Detection, find, prepare, readings
from backend.pipeline.grounding.compact.network import STRIDES, Detector, DetectorOutput, averaged
from backend.pipeline.types import Image
from dataset_tools import atomic
from dataset_tools.geometry import Box
from dataset_tools.image_files import read
from dataset_tools.labelled import LabelledImage

__all__ = [
    "FeatureCache",
    "FeatureView",
    "Levels",
    "Reading",
    "detections_of",
    "frozen_hash",
    "outputs_of",
    "training_views",
]

Levels: TypeAlias = list[npt.NDArray[np.float16]]
"""One float16[h, w, channels] per level of ``STRIDES``."""
_CORE = ("stem", "stages", "backbone", "lateral", "smooth", "heat", "sides")
_FREE_BYTES = 2_000_000_000
"""Nothing is kept when the disk has less than this left."""


@dataclass(frozen=True)
class FeatureView:
    """How an image is looked at: flipped left to right or not, then quarter turns, its long side in pixels.

    ``mirrored``: what the network reads of all that, its padding included, is mirrored in the end, as inference reads
    it (``read_mirrored``); boxes stay those of the view that is mirrored.
    """

    side: int
    turns: int = 0
    flip: bool = False
    mirrored: bool = False

    def apply(self, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """``array`` [H, W, ...] flipped and turned, at its own size."""
        return np.rot90(array[:, ::-1] if self.flip else array, self.turns)

    def boxes(self, boxes: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Boxes float32[N, 4] of an image of ``size`` (height, width), in pixels of the view."""
        height, width = size
        x0, y0, x1, y1 = boxes.reshape(-1, 4).T
        if self.flip:
            x0, x1 = width - x1, width - x0
        for _ in range(self.turns % 4):  # np.rot90 turns counter-clockwise: (x, y) -> (y, width - x)
            x0, y0, x1, y1 = y0, width - x1, y1, width - x0
            width, height = height, width
        return np.stack([x0, y0, x1, y1], axis=1).astype(np.float32) * np.float32(self.side / max(size))


@dataclass(frozen=True, eq=False)
class Reading:
    """A view's features, and heat logits and box sides as ``DetectorOutput`` has them, without the adapter."""

    features: Levels
    heat: Levels
    sides: Levels


def training_views(scales: Sequence[int], count: int) -> list[FeatureView]:
    """``count`` views for training: the sizes that inference reads and sizes between and around, in all positions."""
    fine, coarse = max(scales), min(scales)
    sides = (fine, coarse, round(0.8 * fine), round(1.25 * coarse), round(1.2 * fine), round(0.8 * coarse))
    return [FeatureView(sides[k % len(sides)], (k * 3) % 4, k % 2 == 1) for k in range(count)]


def frozen_hash(detector: Detector) -> str:
    """16 hex digits that depend on everything but the adapter; the detector must be fused."""
    digest = hashlib.sha256()
    for name, value in sorted(detector.state_dict().items()):
        if name.split(".")[0] in _CORE:
            digest.update(name.encode())
            digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


class FeatureCache:
    """Readings of views, computed once; several processes may share a folder.

    Args:
        detector: in evaluation mode, fused; its adapter is not asked.
        folder: where readings are kept; None keeps nothing.
        limit_bytes: how large the folder may become, readings of other detectors included; when it is full, those of
            other detectors go, and then nothing more is kept.
    """

    def __init__(self, detector: Detector, folder: Path | None, *, limit_bytes: int = 8_000_000_000) -> None:
        self.detector = detector
        self.folder = None if folder is None else folder / frozen_hash(detector)
        self._left = limit_bytes
        if self.folder is not None:
            sizes = {place: sum(file.stat().st_size for file in place.glob("*.npy")) for place in _places(self.folder)}
            if sum(sizes.values()) >= limit_bytes:
                for place in sizes.keys() - {self.folder}:
                    shutil.rmtree(place, ignore_errors=True)
                sizes = {self.folder: sizes.get(self.folder, 0)}
            self._left -= sum(sizes.values())

    def reading(self, image: LabelledImage, view: FeatureView) -> Reading:
        """``image`` seen as ``view``; memory-mapped where it is kept."""
        path = None
        if self.folder is not None:
            path = self.folder / f"{image.key[:32]}_{view.side}_{view.turns}{'f' * view.flip}{'m' * view.mirrored}.npy"
            if path.is_file():
                return self._split(np.load(path, mmap_mode="r"), image, view)
        flat = self._compute(read(image.path), view)
        if path is not None:
            self._keep(path, flat)
        return self._split(flat, image, view)

    def _compute(self, image: Image, view: FeatureView) -> npt.NDArray[np.float16]:
        """float16[cells of all levels, features + heat + sides]."""
        turned = np.ascontiguousarray(view.apply(image)).astype(np.uint8)
        inputs = prepare(turned, view.side / max(image.shape[:2])).to(self.detector.mean.device)
        inputs = inputs.flip(-1) if view.mirrored else inputs
        with torch.inference_mode(), in_bfloat16(inputs.device):
            pyramid = self.detector.pyramid(inputs)
            parts = zip(pyramid, self.detector.heat(pyramid), self.detector.sides(pyramid), strict=True)
            flat = torch.cat([torch.cat(part, dim=1)[0].flatten(1).T for part in parts])
        return flat.to(torch.float16).cpu().numpy()

    def _keep(self, path: Path, flat: npt.NDArray[np.float16]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if flat.nbytes > self._left or shutil.disk_usage(path.parent).free < _FREE_BYTES + flat.nbytes:
            return
        self._left -= flat.nbytes
        with atomic.open_bytes(path) as file:
            np.save(file, flat)

    def _split(self, flat: npt.NDArray[np.float16], image: LabelledImage, view: FeatureView) -> Reading:
        config = self.detector.config
        known = len(config.categories) - config.adapted
        cuts = np.cumsum([0, config.pyramid_width, known, 4 * config.box_groups]).tolist()
        reading = Reading([], [], [])
        start = 0
        for height, width in map_sizes(image, view):
            level = flat[start : start + height * width].reshape(height, width, -1)
            start += height * width
            for maps, first, last in zip((reading.features, reading.heat, reading.sides), cuts, cuts[1:], strict=False):
                maps.append(level[..., first:last])
        return reading


def _places(folder: Path) -> list[Path]:
    """The folders of all detectors beside ``folder``, itself included."""
    return [place for place in folder.parent.glob("*") if re.fullmatch(r"[0-9a-f]{16}", place.name) and place.is_dir()]


def map_sizes(image: LabelledImage, view: FeatureView) -> list[tuple[int, int]]:
    """(height, width) of each level's maps."""
    height, width = view_size(image, view)
    return [(height // stride, width // stride) for stride in STRIDES]


def view_size(image: LabelledImage, view: FeatureView) -> tuple[int, int]:
    """(height, width) in pixels of the network's input, padding included."""
    factor = view.side / max(image.height, image.width)
    sides = (image.width, image.height) if view.turns % 2 else (image.height, image.width)
    height, width = (-(-max(1, round(side * factor)) // 32) * 32 for side in sides)
    return height, width


def detections_of(
    cache: FeatureCache,
    detector: Detector,
    image: LabelledImage,
    scales: Sequence[int],
    threshold: float,
    *,
    mirrored: int = 0,
) -> list[Detection]:
    """What ``detect`` finds in ``image`` with ``detector``, which differs from the cache's in its adapter only.

    Images beyond 2048 pixels are read whole here, without the tiles that inference reads as well.
    """
    outputs = outputs_of(cache, image, scales, mirrored, partial(adapted_output, detector))
    size = (image.height, image.width)
    return find(outputs, size, detector.config.categories, threshold)


def outputs_of(
    cache: FeatureCache,
    image: LabelledImage,
    scales: Sequence[int],
    mirrored: int,
    output_of: Callable[[Reading], DetectorOutput],
) -> dict[int, DetectorOutput]:
    """What ``output_of`` makes of each reading that ``detect`` takes of ``image``, by its long side in pixels."""
    outputs = {}
    for side, twice in readings(scales, mirrored, max(image.height, image.width)):
        with torch.inference_mode(), in_bfloat16(torch.device("cpu")):
            outputs[side] = output_of(cache.reading(image, FeatureView(side)))
            if twice:
                of_mirror = output_of(cache.reading(image, FeatureView(side, mirrored=True)))
                outputs[side] = averaged(outputs[side], of_mirror)
    return outputs


def adapted_output(detector: Detector, reading: Reading) -> DetectorOutput:
    """What ``detector`` says of a kept reading."""
    features, heat, sides = (list(map(_as_map, part)) for part in (reading.features, reading.heat, reading.sides))
    return detector.adapted_output(features, heat, sides)


def _as_map(level: npt.NDArray[np.float16]) -> torch.Tensor:
    """A level as the network's map float32[1, channels, h, w], channels last in memory."""
    return torch.from_numpy(np.asarray(level, np.float32)).permute(2, 0, 1)[None]


def box_array(boxes: Sequence[Box]) -> npt.NDArray[np.float32]:
    """Boxes as float32[N, 4]."""
    return np.array(boxes, np.float32).reshape(-1, 4)


def quarter_mask(view: FeatureView, mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """``mask`` bool[H, W] of the image at a quarter of the view's input ``size``, True where half is covered."""
    turned = np.ascontiguousarray(view.apply(mask)).astype(np.uint8)
    factor = view.side / max(mask.shape) / 4
    height, width = (max(1, round(side * factor)) for side in turned.shape)
    small = cv2.resize(turned * 255, (width, height), interpolation=cv2.INTER_AREA) >= 128
    padded = np.zeros((size[0] // 4, size[1] // 4), np.bool_)
    padded[:height, :width] = small[: padded.shape[0], : padded.shape[1]]
    return padded

"""What images look like, as vectors and perceptual hashes: for diversity, and so that near-duplicates are known.

The vectors come from the compact segmenter's encoder, whichever pipeline serves: it is part of the repository and takes
some 20 ms for a whole image, where a ViT takes seconds. Mean and standard deviation of each of its channels say what
grounds and textures an image shows and how mixed they are. They are kept by image hash, so that each image is embedded
once, however often a project is ranked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backend.database import Database
from backend.pipeline.segmentation import Segmenter
from backend.pipeline.types import Image
from dataset_tools import duplicates

__all__ = ["ImageFeatures", "ImageLook", "feature_segmenter", "look", "same_look"]

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ImageLook:
    """What an image looks like.

    Attributes:
        vector: float32[D], as the encoder gives it; ``ranking.directions`` makes vectors comparable.
        hash: perceptual hash (``dataset_tools.duplicates``), None for an image too flat to have one.
    """

    vector: Vectors
    hash: duplicates.Bits | None


def look(segmenter: Segmenter, image: Image) -> ImageLook:
    """What ``image`` uint8[H, W, 3] RGB looks like: mean and standard deviation of each of C channels, D = 2 C."""
    features = segmenter.embed(image).features.astype(np.float32)
    vector = np.concatenate([features.mean(axis=(1, 2)), features.std(axis=(1, 2))])
    return ImageLook(vector, duplicates.perceptual_hash(image))


def same_look(looks: Mapping[str, ImageLook]) -> dict[str, str]:
    """Image -> first image of its group of near-duplicates by perceptual hash; itself where it has none."""
    pairs = duplicates.near_duplicates((name, item.hash) for name, item in looks.items())
    return duplicates.scenes_of(looks, lambda _: None, [(a, b) for a, b, _ in pairs])


def feature_segmenter() -> Segmenter:
    """The encoder whose features are compared."""
    from backend.pipeline.segmentation.compact_sam import load_compact_segmenter
    from backend.pipeline.weights import require

    return load_compact_segmenter(require("compact_segmenter"))


class ImageFeatures:
    """Looks of images by hash, kept in a database. Safe for threads and processes.

    Args:
        database: where they are kept.
        segmenter: whose encoder is asked (``feature_segmenter``).
    """

    def __init__(self, database: Database, segmenter: Segmenter) -> None:
        self._database = database
        self._segmenter = segmenter

    def of(self, sha256: str, image: Callable[[], Image]) -> ImageLook:
        """The look of the image with this hash; ``image`` gives its pixels uint8[H, W, 3], called if it is not kept."""
        encoder = self._segmenter.encoder_hash
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT vector, hash FROM image_features WHERE sha256 = ? AND encoder = ?", (sha256, encoder)
            ).fetchone()
        if row is not None:
            bits = None if row[1] is None else np.frombuffer(row[1], np.uint8)
            return ImageLook(np.frombuffer(row[0], np.float32), bits)
        found = look(self._segmenter, image())
        bits_kept = None if found.hash is None else found.hash.tobytes()
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO image_features (sha256, encoder, vector, hash) VALUES (?, ?, ?, ?)",
                (sha256, encoder, found.vector.tobytes(), bits_kept),
            )
        return found

"""Labelled images of a training job as a file, so that the job, resumed or repeated, learns from exactly these.

One JSON object per line; pixels stay in ``<state>/images``, found by the image's key.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import orjson

from backend.learning.examples import LabelledExpression, LabelledImage, LabelledObject
from backend.state import image_file
from dataset_tools import atomic
from dataset_tools.errors import DatasetError
from dataset_tools.geometry import Box

__all__ = ["read_examples", "write_examples"]


def write_examples(path: Path, images: Iterable[LabelledImage]) -> None:
    """Write ``images`` to ``path``, atomically; raises OSError."""
    with atomic.open_bytes(path) as file:
        for image in images:
            line = {
                "key": image.key,
                "size": [image.height, image.width],
                "objects": [[item.category, dict(item.rle), list(item.box)] for item in image.objects],
                "expressions": [[item.text, list(item.objects)] for item in image.expressions],
                "complete": sorted(image.complete),
            }
            file.write(orjson.dumps(line) + b"\n")


def read_examples(path: Path, images: Path) -> list[LabelledImage]:
    """The inverse of ``write_examples``.

    Args:
        path: the file.
        images: folder with the image files.

    Raises:
        DatasetError: the file is missing or damaged.
    """
    found = []
    try:
        for line in path.read_bytes().splitlines():
            row = orjson.loads(line)
            found.append(
                LabelledImage(
                    key=row["key"],
                    path=image_file(images, row["key"]),
                    height=row["size"][0],
                    width=row["size"][1],
                    objects=tuple(LabelledObject(category, rle, Box(*box)) for category, rle, box in row["objects"]),
                    expressions=tuple(LabelledExpression(text, tuple(objects)) for text, objects in row["expressions"]),
                    complete=frozenset(row["complete"]),
                )
            )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DatasetError(f"{path} does not hold labelled images as this release writes them: {error!r}") from error
    return found

"""Labelled images of a training job as a file, so that the job, resumed or repeated, learns from exactly these.

One JSON object per line; pixels stay in ``<state>/images``, found by the image's key.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import orjson

from backend.state import image_file
from dataset_tools import atomic
from dataset_tools.errors import DatasetError
from dataset_tools.geometry import Box
from dataset_tools.labelled import LabelledExpression, LabelledImage, LabelledObject

__all__ = ["read_labelled", "write_labelled"]


def write_labelled(path: Path, images: Iterable[LabelledImage]) -> None:
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


def read_labelled(path: Path, images: Path) -> list[LabelledImage]:
    """The inverse of ``write_labelled``.

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
                    path=image_file(images, row["key"]),
                    height=row["size"][0],
                    width=row["size"][1],
                    objects=tuple(
                        LabelledObject(category, Box(*box), (row["size"][0], row["size"][1]), rle)
                        for category, rle, box in row["objects"]
                    ),
                    expressions=tuple(LabelledExpression(text, tuple(objects)) for text, objects in row["expressions"]),
                    complete=frozenset(row["complete"]),
                    sha256=row["key"],
                )
            )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DatasetError(f"{path} does not hold labelled images as this release writes them: {error!r}") from error
    return found

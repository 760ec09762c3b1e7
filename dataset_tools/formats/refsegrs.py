"""RefSegRS: one image, one mask and one line per expression.

    images/<id>.tif     masks/<id>.tif (0 / 255)     output_phrase_<split>.txt: lines "<id> <expression>"

Ids are digits. An image with several expressions is written once per expression, as the format demands.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dataset_tools.errors import DatasetError
from dataset_tools.expressions.parser import parse
from dataset_tools.formats.items import SPLITS, Contents, Item, Items, split_of, write_lines
from dataset_tools.records import Provenance, Record, Sample, SourceImage, target_of


class RefSegRSWriter:
    """Writes RefSegRS."""

    def image_path(self, number: int, _file_name: str, _split: str) -> str:
        """A staging name; :meth:`finish` gives each expression its own image."""
        return f"images/image-{number}.tif"

    def files(self, item: Item) -> Iterator[tuple[str, bytes]]:
        """``masks/<id>.tif`` of every expression."""
        for number, record in item.numbered():
            buffer = io.BytesIO()
            mask = item.sample.union(record).astype(np.uint8) * np.uint8(255)
            Image.fromarray(mask).save(buffer, "TIFF", compression="tiff_deflate")
            yield f"masks/{number}.tif", buffer.getvalue()

    def finish(self, root: Path, items: Items, contents: Contents) -> None:
        """Phrase files, and one hard link (a copy where links are not to be had) to the image per expression."""
        for item in items():
            source = root / item.image_path
            for number, _ in item.numbered():
                link = root / "images" / f"{number}.tif"
                if source.exists() and not link.exists():
                    try:
                        link.hardlink_to(source)
                    except OSError:
                        link.write_bytes(source.read_bytes())
            source.unlink(missing_ok=True)
        for split in contents.splits:
            lines = (
                f"{number} {' '.join(record.expression.split())}"
                for item in items()
                for number, record in item.numbered()
                if split_of(record) == split
            )
            write_lines(root / f"output_phrase_{split}.txt", lines)


def read(root: Path) -> Iterator[Sample]:
    """Samples of a RefSegRS folder; the category is the first known one that the expression mentions.

    Raises:
        DatasetError: a phrase file is missing or malformed, a mask is missing or unreadable.
    """
    files = [(split, root / f"output_phrase_{split}.txt") for split in SPLITS]
    if not any(file.is_file() for _, file in files):
        raise DatasetError(f"{root} has no output_phrase_train.txt, output_phrase_val.txt or output_phrase_test.txt")
    for split, file in files:
        if not file.is_file():
            continue
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DatasetError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from None
        for line, text in enumerate(lines, start=1):
            number, _, expression = text.partition(" ")
            if not text.strip():
                continue
            if not number.isdigit() or not expression.strip():
                raise DatasetError(f'{file}, line {line}: "<digits> <expression>" was expected, got {text[:80]!r}')
            mask = cv2.imread(str(root / "masks" / f"{number}.tif"), cv2.IMREAD_GRAYSCALE)
            if mask is None:
                raise DatasetError(f"{file}, line {line}: {root / 'masks' / number}.tif is missing or unreadable")
            targets = (target_of(mask > 0),) if mask.any() else ()
            record = Record(
                expression.strip(), parse(expression).category or "object", targets, split, None,
                Provenance(source="refsegrs"), int(number),
            )  # fmt: skip
            height, width = mask.shape
            yield Sample(SourceImage(f"{number}.tif", width, height, str(root / "images" / f"{number}.tif")), (record,))

"""Hugging Face ``datasets``: parquet with the images inside, one row per image (RefCOCO-M style). Needs extra ``hf``.

    data/<split>-00000-of-0000N.parquet    file_name, image {bytes, path}, width, height, scene, refs: list of
                                           {id, sentences, category, kinds, bbox [x, y, width, height],
                                           mask {size, counts}, provenances (JSON texts)}, a kind and a
                                           provenance for each sentence

``datasets.load_dataset(folder)`` reads the splits off the head of the card (README.md) and decodes
``image`` by the features stored in the schema.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from dataset_tools import atomic
from dataset_tools.errors import DatasetError
from dataset_tools.formats.image_rows import STAGED, PackedWriter, read_row, refs_of
from dataset_tools.formats.items import Contents, Item, Items
from dataset_tools.records import Sample

IMAGES_PER_FILE = 1000
_IMAGES_PER_GROUP = 50


class HuggingFaceWriter(PackedWriter):
    """Writes parquet files."""

    def __init__(self) -> None:
        _pyarrow()  # say at once, not after an hour of export, that the extra is missing

    def finish(self, root: Path, items: Items, contents: Contents) -> None:
        """Write the parquet files, then remove the staged images."""
        for split in contents.splits:
            total = -(-sum(bool(refs_of(item, split)) for item in items()) // IMAGES_PER_FILE)
            rows = (_row(root, item, split) for item in items() if refs_of(item, split))
            for number in range(total):
                _write_file(root / "data" / f"{split}-{number:05d}-of-{total:05d}.parquet", rows)
        shutil.rmtree(root / STAGED, ignore_errors=True)


def _write_file(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Up to ``IMAGES_PER_FILE`` of ``rows``, a row group at a time."""
    pyarrow = _pyarrow()
    import pyarrow.parquet as parquet

    schema = _schema(pyarrow)
    with atomic.open_bytes(path) as file, parquet.ParquetWriter(file, schema) as writer:
        left = IMAGES_PER_FILE
        while left:
            group = [row for _, row in zip(range(min(left, _IMAGES_PER_GROUP)), rows, strict=False)]
            if not group:
                return
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
            left -= len(group)


def _row(root: Path, item: Item, split: str) -> dict[str, Any]:
    image = item.sample.image
    refs = [{**ref, "provenances": [json.dumps(one) for one in ref["provenances"]]} for ref in refs_of(item, split)]
    name = PurePosixPath(image.file_name).name
    return {
        "file_name": image.file_name, "image": {"bytes": (root / item.image_path).read_bytes(), "path": name},
        "width": image.width, "height": image.height, "scene": image.scene, "refs": refs,
    }  # fmt: skip


def _schema(pyarrow: ModuleType) -> Any:
    text, whole = pyarrow.string(), pyarrow.int64()
    fields = {
        "id": whole, "sentences": pyarrow.list_(text), "category": text,
        "kinds": pyarrow.list_(text),
        "bbox": pyarrow.list_(pyarrow.float64()),
        "mask": pyarrow.struct({"size": pyarrow.list_(whole), "counts": text}), "provenances": pyarrow.list_(text),
    }  # fmt: skip
    columns = {
        "file_name": text, "image": pyarrow.struct({"bytes": pyarrow.binary(), "path": text}), "width": whole,
        "height": whole, "scene": text, "refs": pyarrow.list_(pyarrow.struct(fields)),
    }  # fmt: skip
    schema = pyarrow.schema(columns)
    string, integer = {"dtype": "string", "_type": "Value"}, {"dtype": "int64", "_type": "Value"}
    features = {
        "file_name": string, "image": {"_type": "Image"}, "width": integer, "height": integer, "scene": string,
        "refs": [
            {
                "id": integer, "sentences": [string], "category": string, "kinds": [string],
                "bbox": [{"dtype": "float64", "_type": "Value"}],
                "mask": {"size": [integer], "counts": string}, "provenances": [string],
            }
        ],
    }  # fmt: skip
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _pyarrow() -> ModuleType:
    try:
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise DatasetError("the huggingface format needs pyarrow: pip install 'pslg-sam[hf]'") from error


def read(root: Path) -> Iterator[Sample]:
    """Samples of such a folder; images are unpacked into ``<root>/unpacked/``.

    Raises:
        DatasetError: no parquet file, or one that is damaged or of another kind.
    """
    pyarrow = _pyarrow()
    import pyarrow.parquet as parquet

    files = sorted((root / "data").glob("*.parquet"))
    if not files:
        raise DatasetError(f"{root} has no data/<split>-*.parquet")
    for file in files:
        split = file.name.partition("-")[0]
        try:
            for batch in parquet.ParquetFile(file).iter_batches(_IMAGES_PER_GROUP):
                for row in batch.to_pylist():
                    name = PurePosixPath(row["file_name"])
                    if name.is_absolute() or ".." in name.parts or "\\" in str(name) or "\0" in str(name):
                        raise ValueError(f"file_name {row['file_name']!r} leads out of the folder")
                    path = root / "unpacked" / name
                    if not path.exists():
                        atomic.write_bytes(path, row["image"]["bytes"])
                    for ref in row["refs"]:
                        ref["provenances"] = [json.loads(one) for one in ref["provenances"]]
                    yield read_row(row, split, str(path), "huggingface")
        except (pyarrow.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{file}: {type(error).__name__} {error}") from error

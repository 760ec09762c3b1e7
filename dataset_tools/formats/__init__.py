"""Dataset formats, one file each: pure conversions between a folder on disk and canonical samples.

:data:`FORMATS` lists them; a format's module is imported when it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_tools.errors import DatasetError

if TYPE_CHECKING:
    from dataset_tools.formats.items import Writer
    from dataset_tools.records import Sample


@dataclass(frozen=True)
class Format:
    """A format of datasets.

    Attributes:
        name: its name.
        module: its file.
        writer: the class that writes it; None: it is only read.
        sign: a file that tells it (a glob).
        help: one line about it.
        absent: it holds expressions that mean nothing in their image.
        objects: it holds objects that no expression names.
        masks: it holds masks; where it holds boxes alone it is read by ``dataset_tools.labelled`` only, as nothing
            that is made of masks can come of it.
        packed: another file that tells it.
    """

    name: str
    module: str
    writer: str | None
    sign: str
    help: str
    absent: bool = False
    objects: bool = False
    masks: bool = True
    packed: str | None = None

    def tells(self, root: Path) -> bool:
        """Whether ``root`` shows the format's files."""
        return any(any(root.glob(sign)) for sign in (self.sign, self.packed) if sign is not None)


FORMATS = {
    entry.name: entry
    for entry in (
        Format("refer", "refer", "ReferWriter", "rrsisd/refs(unc).p", "RRSIS-D's layout for RMSIN, FIANet and others"),
        Format(
            "coco", "coco", "CocoWriter", "annotations/*.json", "strict COCO instances (no expressions)", objects=True
        ),
        Format("refsegrs", "refsegrs", "RefSegRSWriter", "output_phrase_*.txt", "RefSegRS: image, mask, phrase"),
        Format("rsrefseg", "rsrefseg", "RSRefSegWriter", "datainfo/*.jsonl", "RSRefSeg's JSON lines"),
        Format(
            "coco_jsonl",
            "coco_jsonl_samples",
            "CocoJsonlWriter",
            "annotations.json",
            "COCO and expressions.jsonl",
            absent=True,
            objects=True,
            packed="annotations.json.gz",
        ),
        Format("masks", "masks_folder", "MasksFolderWriter", "annotations.jsonl", "one PNG mask per expression"),
        Format("webdataset", "webdataset", "WebDatasetWriter", "*.tar", "tar shards, one sample per image"),
        Format("huggingface", "huggingface", "HuggingFaceWriter", "data/*.parquet", "parquet for datasets (extra hf)"),
        Format("dior_rsvg", "dior_rsvg", None, "Annotations/*.xml", "DIOR-RSVG: boxes and phrases", masks=False),
    )
}
WRITTEN = tuple(name for name, entry in FORMATS.items() if entry.writer is not None)
"""Names of the formats that can be written."""


def writer(name: str) -> Writer:
    """The writer of a format.

    Raises:
        DatasetError: no such format, it is only read, or an optional package is missing.
    """
    entry = _entry(name)
    if entry.writer is None:
        raise DatasetError(f"{name} is not written, only read; choose one of {', '.join(WRITTEN)}")
    made: Writer = getattr(_module(name), entry.writer)()
    return made


def read(root: Path, name: str | None = None) -> Iterator[Sample]:
    """Samples of a dataset; the format is recognised by its files unless it is named.

    Raises:
        DatasetError: the folder is of no known format, is malformed, or holds no masks.
    """
    name = name or detect(root)
    if not _entry(name).masks:
        raise DatasetError(f"{root} is of the format {name}, which holds boxes and no masks: samples need masks")
    module = _module(name)
    samples: Iterator[Sample] = module.read(root)
    return samples


def detect(root: Path) -> str:
    """Name of the format of a folder.

    Raises:
        DatasetError: there is no such folder, or it shows no format's files.
    """
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder")
    for name, entry in FORMATS.items():
        if entry.tells(root):
            return name
    signs = ", ".join(f"{entry.sign} ({name})" for name, entry in FORMATS.items())
    raise DatasetError(f"{root} is of no known format; none of these is there: {signs}")


def _entry(name: str) -> Format:
    if name not in FORMATS:
        raise DatasetError(f"no format {name!r}; choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def _module(name: str):  # type: ignore[no-untyped-def]  # a module's members are only known at run time
    return importlib.import_module(f"dataset_tools.formats.{_entry(name).module}")

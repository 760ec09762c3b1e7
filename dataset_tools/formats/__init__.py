"""Dataset formats, one file each: pure conversions between a folder on disk and canonical samples.

:data:`FORMATS` lists them; a format's module is imported when it is used.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_tools.errors import UNUSABLE, DatasetError
from dataset_tools.formats.left_out import Report, refuse

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
        also: other files that tell it.
        boxes: it holds objects of which only a box is known.
        stems: its images differ in their names without the suffix.
        reads: it can be read; the others are for other tools alone.
        options: what its writer can be asked for.
        words_only: an image without an expression that has a target is not in it at all.
        packed: its images lie inside of other files, under the names that they came with.
        renames: it has a picture for every expression under a number of its own, so that no place is kept for them.
        rowwise: its reader leaves out single rows and tells ``left_out``; the others end at the first unusable one.
    """

    name: str
    module: str
    writer: str | None
    sign: str
    help: str
    absent: bool = False
    objects: bool = False
    masks: bool = True
    also: tuple[str, ...] = ()
    boxes: bool = False
    stems: bool = False
    reads: bool = True
    options: tuple[str, ...] = ()
    rowwise: bool = False
    words_only: bool = False
    packed: bool = False
    renames: bool = False

    def tells(self, root: Path) -> bool:
        """Whether ``root`` shows the format's files."""
        return any(any(root.glob(sign)) for sign in (self.sign, *self.also))


FORMATS = {
    entry.name: entry
    for entry in (
        Format(
            "refer",
            "refer",
            "ReferWriter",
            "rrsisd/refs(unc).p",
            "RRSIS-D's layout for RMSIN, FIANet and others",
            rowwise=True,
            options=("grouped",),
        ),
        Format(
            "coco",
            "coco",
            "CocoWriter",
            "annotations/*.json",
            "strict COCO instances (no expressions)",
            also=("*/_annotations.coco.json", "_annotations.coco.json", "result.json", "instances*.json"),
            objects=True,
            rowwise=True,
            boxes=True,
            options=("polygons",),
        ),
        Format(
            "refsegrs",
            "refsegrs",
            "RefSegRSWriter",
            "output_phrase_*.txt",
            "RefSegRS: image, mask, phrase",
            renames=True,
        ),
        Format("rsrefseg", "rsrefseg", "RSRefSegWriter", "datainfo/*.jsonl", "RSRefSeg's JSON lines"),
        Format(
            "coco_jsonl",
            "coco_jsonl_samples",
            "CocoJsonlWriter",
            "annotations.json",
            "COCO and expressions.jsonl",
            absent=True,
            objects=True,
            also=("annotations.json.gz",),
        ),
        Format("masks", "masks_folder", "MasksFolderWriter", "annotations.jsonl", "one PNG mask per expression"),
        Format(
            "webdataset",
            "webdataset",
            "WebDatasetWriter",
            "*.tar",
            "tar shards, one sample per image",
            words_only=True,
            packed=True,
        ),
        Format(
            "huggingface",
            "huggingface",
            "HuggingFaceWriter",
            "data/*.parquet",
            "parquet for datasets (extra hf)",
            words_only=True,
            packed=True,
        ),
        Format(
            "yolo-seg",
            "yolo",
            "YoloSegWriter",
            "data.yaml",
            "ultralytics: polygons",
            objects=True,
            stems=True,
            reads=False,
        ),
        Format(
            "yolo-obb",
            "yolo",
            "YoloObbWriter",
            "data.yaml",
            "ultralytics: rotated boxes",
            objects=True,
            stems=True,
            reads=False,
        ),
        Format(
            "dota", "yolo", "DotaWriter", "*/labelTxt", "DOTA: rotated boxes", objects=True, stems=True, reads=False
        ),
        Format("dior_rsvg", "dior_rsvg", None, "Annotations/*.xml", "DIOR-RSVG: boxes and phrases", masks=False),
    )
}
WRITTEN = tuple(name for name, entry in FORMATS.items() if entry.writer is not None)
"""Names of the formats that can be written."""
READ = tuple(name for name, entry in FORMATS.items() if entry.reads and entry.masks)
"""Names of the formats that samples can be read from."""


def writer(name: str, **options: bool) -> Writer:
    """The writer of a format, with its ``options`` (``grouped`` refs, ``polygons``).

    Raises:
        DatasetError: no such format or option of it, it is only read, or an optional package is missing.
    """
    entry = _entry(name)
    if entry.writer is None:
        raise DatasetError(f"{name} is not written, only read; choose one of {', '.join(WRITTEN)}")
    for option in options:
        if option not in entry.options:
            able = ", ".join(other.name for other in FORMATS.values() if option in other.options)
            raise DatasetError(f"the format {name} has no option {option!r}; it goes with {able or 'none'}")
    made: Writer = getattr(_module(name), entry.writer)(**options)
    return made


def read(root: Path, name: str | None = None, left_out: Report = refuse) -> Iterator[Sample]:
    """Samples of a dataset; the format is recognised by its files unless it is named.

    Args:
        root: the folder.
        name: its format.
        left_out: receives the rows that the ``rowwise`` formats leave out; by default the first one is an error.

    Raises:
        DatasetError: the folder is of no known format, is malformed, or holds no masks.
    """
    name = name or detect(root)
    if not _entry(name).masks:
        raise DatasetError(f"{root} is of the format {name}, which holds boxes and no masks: samples need masks")
    if not _entry(name).reads:
        raise DatasetError(f"{root} is of the format {name}, which is written for other tools and not read")
    module = _module(name)
    samples: Iterator[Sample] = module.read(root, left_out) if _entry(name).rowwise else module.read(root)
    from dataset_tools.formats.places import placed

    return placed(root, _in_a_line(samples, root, name))


def _in_a_line(samples: Iterator[Sample], root: Path, name: str) -> Iterator[Sample]:
    """``samples``; an error that no reader has foreseen of a damaged file (a name too long, say) is told as theirs."""
    try:
        yield from samples
    except (*UNUSABLE, OSError) as error:
        raise DatasetError(f"{root} cannot be read as {name}: {type(error).__name__}: {str(error)[:300]}") from error


def detect(root: Path) -> str:
    """Name of the format of a folder, or of a COCO file.

    Raises:
        DatasetError: there is no such folder, or it shows no format's files.
    """
    if root.is_file() and is_instances(root):
        return "coco"
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder")
    for name, entry in FORMATS.items():
        if entry.tells(root):
            return name
    signs = ", ".join(f"{entry.sign} ({name})" for name, entry in FORMATS.items())
    raise DatasetError(f"{root} is of no known format; none of these is there: {signs}")


def is_instances(file: Path) -> bool:
    """Whether a JSON file is an object with some ``images`` and with ``annotations``, as COCO is; tasks are a list."""
    try:
        with file.open("rb") as opened:
            if not opened.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
                return False
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and bool(content.get("images")) and "annotations" in content


def _entry(name: str) -> Format:
    if name not in FORMATS:
        raise DatasetError(f"no format {name!r}; choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def _module(name: str):  # type: ignore[no-untyped-def]  # a module's members are only known at run time
    return importlib.import_module(f"dataset_tools.formats.{_entry(name).module}")

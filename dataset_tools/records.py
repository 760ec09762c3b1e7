"""The canonical record that every format is read into and written from: one image, its expressions, their masks.

Masks are kept as COCO run-length codes: exact, small, JSON-ready, and decoded only when pixels are needed. A dataset is
a stream of :class:`Sample`, one per image, so that nothing larger than one image has to be in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from dataset_tools.errors import DatasetError
from dataset_tools.geometry import Box
from dataset_tools.masks import Mask, area_of, box_of, from_coco, merge, to_coco_rle

__all__ = [
    "FATES",
    "BoxOnly",
    "Fate",
    "Origin",
    "Provenance",
    "Record",
    "Sample",
    "SourceImage",
    "Target",
    "local_path",
    "target_of",
]

Origin: TypeAlias = Literal["prediction", "prediction-changed", "manual"]
"""How a mask came about, in Label Studio's words: accepted as it was, accepted after changes, drawn by hand."""
Fate: TypeAlias = Literal["unchanged", "clicked", "changed", "manual"]
"""What an accepted mask cost: ``label_studio.regions.fate_of``."""
FATES: tuple[Fate, ...] = ("unchanged", "clicked", "changed", "manual")
"""From the cheapest to the dearest."""


def _require(value: object, kind: Any, *names: str) -> None:
    """Raise TypeError unless the attributes are of a type or None: datasets are files, anything may stand in them."""
    for name in names:
        found = getattr(value, name)
        if not isinstance(found, kind | None):
            raise TypeError(f"{name} is {type(found).__name__} {found!r:.80}")


@dataclass(frozen=True)
class Provenance:
    """Where a record comes from. None where the source does not say.

    Attributes:
        source: kind of source: ``label-studio``, a format's name, ``synthetic`` or ``proposal``.
        task, annotation: Label Studio ids.
        annotator: id of the annotator, or its keyed hash.
        lead_time: seconds spent on the annotation.
        model_version: of the model whose mask was accepted or changed.
        origin: how the mask came about; of several regions the one with the most manual work.
        clicks: refinement clicks, summed over the regions.
        score: the model's score, the lowest of the regions.
        generated: the expression was made by a program, not by a person.
        fate: what the mask cost; of several regions the dearest.
        guessed, unread: words of the expression that its reading took for others, and that it passed over
            (``expressions.reading.WordsRead``); None where nothing was, or nobody looked.
        mixed: some of its masks were found for its words, others clicked, boxed or drawn without them.
    """

    source: str | None = None
    task: int | str | None = None
    annotation: int | str | None = None
    annotator: int | str | None = None
    lead_time: float | None = None
    model_version: str | None = None
    origin: Origin | None = None
    clicks: int | None = None
    score: float | None = None
    generated: bool | None = None
    fate: Fate | None = None
    guessed: tuple[str, ...] | None = None
    unread: tuple[str, ...] | None = None
    mixed: bool | None = None

    def __post_init__(self) -> None:
        _require(self, str, "source", "model_version", "origin", "fate")
        _require(self, int | str, "task", "annotation", "annotator")
        _require(self, int | float, "lead_time", "clicks", "score")
        for name in ("guessed", "unread"):  # JSON has lists
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if value else None)


PLACE_KEYS = ("crs", "transform", "window", "scene_size")
"""What ``SourceImage.extra`` says of an image's place on the map."""


@dataclass(frozen=True)
class SourceImage:
    """An image of a dataset.

    Attributes:
        file_name: its name in the dataset, a relative path that is unique there.
        width, height: size in pixels.
        location: where the pixels are: a local path, or a URL that a fetcher understands; None if they are not to be
            had.
        scene: name of the scene it was cut from; tiles of one scene share it.
        extra: what else a source knows (``crs``, ``transform``, ``window``...), JSON values.
    """

    file_name: str
    width: int
    height: int
    location: str | None = None
    scene: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cut_from(self) -> str | None:
        """Name of its scene; tiles without one that have a ``transform`` and a ``window`` are called after the place of
        their scene's corner, which all tiles of one file share. None where nothing says it.
        """
        named = self.scene or self.extra.get("scene")
        transform, window = self.extra.get("transform"), self.extra.get("window")
        if named or not transform or not window:
            return str(named) if named else None
        a, b, c, d, e, f = (float(value) for value in transform[:6])
        x, y = float(window[0]), float(window[1])
        pixel = max(abs(a) + abs(d), 1e-12)
        corner = round((c - a * x - b * y) / pixel, 1), round((f - d * x - e * y) / pixel, 1)
        return f"{self.extra.get('crs')} {corner} {self.extra.get('scene_size')}"

    @property
    def place(self) -> dict[str, Any]:
        """Where it lies on the map: ``crs``, ``transform``, and of a tile ``window`` and ``scene_size``; empty without
        a transform.
        """
        return {key: self.extra[key] for key in PLACE_KEYS if key in self.extra} if self.extra.get("transform") else {}


@dataclass(frozen=True)
class Target:
    """One object: COCO's compressed run-length text ``counts`` for the image's size, its id in the source, and whether
    it is a ``crowd``: many objects under one outline (COCO's ``iscrowd``).
    """

    counts: str
    id: int | None = None
    crowd: bool = False


@dataclass(frozen=True)
class BoxOnly:
    """An object of which only a box is known, (x0, y0, x1, y1) in pixels inside the image: no mask is made of it unless
    somebody asks. ``id`` and ``crowd`` as in :class:`Target`.
    """

    category: str
    box: Box
    split: str | None = None
    id: int | None = None
    crowd: bool = False


@dataclass(frozen=True)
class Record:
    """One referring expression and what it means.

    Attributes:
        expression: the words.
        category: canonical category name, or the source's own where no canonical one fits.
        targets: the objects; several for "all the ...", none if nothing in the image is meant.
        split: ``train``, ``val``, ``test`` or another name; None if undecided.
        kind: kind of expression (``single``, ``extreme``...), None if unknown.
        provenance: where it comes from.
        id: id in the source, None if it has none.
    """

    expression: str
    category: str
    targets: tuple[Target, ...]
    split: str | None = None
    kind: str | None = None
    provenance: Provenance = Provenance()
    id: int | None = None

    def __post_init__(self) -> None:
        _require(self, str, "expression", "category", "split", "kind")


@dataclass(frozen=True)
class Sample:
    """One image with all its records. Methods that decode take time; attributes do not.

    ``boxes`` are its objects without a mask; ``split`` is the image's own, for images without records.
    """

    image: SourceImage
    records: tuple[Record, ...]
    boxes: tuple[BoxOnly, ...] = ()
    split: str | None = None

    @property
    def splits(self) -> set[str | None]:
        """The splits of its records and boxes; without any its own."""
        return {record.split for record in self.records} | {box.split for box in self.boxes} or {self.split}

    def masks(self, record: Record) -> list[Mask]:
        """The masks bool[H, W] of the record's targets.

        Raises:
            MaskError: a code is damaged or of another size than the image.
        """
        height, width = self.image.height, self.image.width
        return [from_coco({"size": [height, width], "counts": t.counts}, height, width) for t in record.targets]

    def union(self, record: Record) -> Mask:
        """All targets of the record as one mask bool[H, W]; all False without any. Raises like :meth:`masks`."""
        total = np.zeros((self.image.height, self.image.width), bool)
        for mask in self.masks(record):
            total |= mask
        return total

    def merged(self, record: Record) -> str:
        """Compressed counts of :meth:`union`, without decoding."""
        if len(record.targets) == 1:
            return record.targets[0].counts
        return merge([target.counts for target in record.targets], self.image.height, self.image.width)

    def box(self, record: Record) -> Box:
        """The tightest box around all targets, without decoding; empty at 0, 0 without any."""
        height, width = self.image.height, self.image.width
        return box_of({"size": [height, width], "counts": self.merged(record)}, height, width)

    def area(self, record: Record) -> int:
        """Pixels of :meth:`union`, without decoding."""
        height, width = self.image.height, self.image.width
        return area_of({"size": [height, width], "counts": self.merged(record)}, height, width)

    def with_split(self, split: str) -> Sample:
        """The sample with every record in ``split``."""
        return replace(
            self,
            records=tuple(replace(record, split=split) for record in self.records),
            boxes=tuple(replace(box, split=split) for box in self.boxes),
            split=split,
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values from which :meth:`from_json` makes the same sample."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Sample:
        """The inverse of :meth:`to_json`.

        Raises:
            DatasetError: keys are missing or unknown.
        """
        try:
            records = tuple(
                Record(
                    **{
                        **record,
                        "targets": tuple(Target(**target) for target in record["targets"]),
                        "provenance": Provenance(**record["provenance"]),
                    }
                )
                for record in value["records"]
            )
            boxes = tuple(BoxOnly(**{**box, "box": Box(*box["box"])}) for box in value["boxes"])
            return cls(SourceImage(**value["image"]), records, boxes, value["split"])
        except (KeyError, TypeError) as error:
            raise DatasetError(f"not a sample as this version writes it: {error!r} in {str(value)[:120]}") from error


def target_of(mask: Mask, identity: int | None = None) -> Target:
    """The target of a mask bool[H, W]."""
    return Target(str(to_coco_rle(mask)["counts"]), identity)


def local_path(image: SourceImage) -> Path:
    """The image's file.

    Raises:
        DatasetError: the image has no location, or it is a URL that was not fetched.
    """
    if image.location is None:
        raise DatasetError(f"{image.file_name}: the source does not say where the image is; name a folder (--images)")
    if "://" in image.location:
        raise DatasetError(f"{image.file_name}: {image.location} was not fetched; name a folder of images (--images)")
    return Path(image.location)

"""COCO instances as other tools write them, read row by row: what cannot be used is left out singly, with a reason.

Known layouts: ``annotations/*.json`` with ``images/`` (COCO, Datumaro, CVAT), COCO-2017 (``train2017/``), Roboflow
(``train/_annotations.coco.json`` beside its images), Label Studio's own export (``result.json``), or one file. Ids may
be numbers or text; an annotation without one is read. An image without a size has the size of its file. An annotation
without a segmentation keeps its box (``Sample.boxes``): a box is no mask. ``iscrowd`` is kept.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dataset_tools.categories import canonical
from dataset_tools.errors import DatasetError, MaskError, PslgError
from dataset_tools.formats.image_folder import ImageFolder, path_of
from dataset_tools.formats.items import SPLITS
from dataset_tools.formats.left_out import LeftOut, Report, refuse
from dataset_tools.formats.outlines import flat_polygons
from dataset_tools.geometry import Box
from dataset_tools.image_files import clean_parts
from dataset_tools.masks import area_of, merge, rle_of
from dataset_tools.records import BoxOnly, Provenance, Record, Sample, SourceImage, Target

INDEXES = ("annotations/*.json", "*/_annotations.coco.json", "_annotations.coco.json", "result.json", "instances*.json")
"""Where the index files of a COCO folder are, as globs."""
_FAR = 1e6
"""Pixels beyond which a polygon's corner is a mistake; pycocotools' tracing takes memory with the distance."""
_MOST_PIXELS = 1 << 31
_YES = {"1", "1.0", "true", "yes"}
_SPLIT = {
    "valid": "val",
    "validation": "val",
    "training": "train",
    "testing": "test",
    **{name: name for name in SPLITS},
}


def index_files(root: Path) -> list[Path]:
    """The index files of a folder; see :func:`read` for which count."""
    files = [file for sign in INDEXES for file in sorted(root.glob(sign))]
    named = [file for file in files if file.name.startswith("instances")]
    return [file for file in files if file in named or not (named and file.parent.name == "annotations")]


def read(root: Path, left_out: Report = refuse) -> Iterator[Sample]:
    """Samples of a COCO folder in any of the layouts above, or of one index file; every object is without words.

    The split is read off the file's name (``instances_train2017.json``) or folder (Roboflow's ``valid/``). Where
    ``annotations/`` holds ``instances_*`` files, its others (captions, keypoints) are not instances and not read.

    Args:
        root: the folder or the file.
        left_out: receives every row that is left out; by default the first one ends the reading.

    Raises:
        DatasetError: there is no index, or one is no COCO file.
    """
    files = [root] if root.is_file() else index_files(root)
    if not files:
        raise DatasetError(f"{root} holds no COCO index ({', '.join(INDEXES)})")
    top = root if root.is_dir() else root.parent.parent if root.parent.name == "annotations" else root.parent
    taken: dict[str, str | None] = {}
    for file in files:
        yield from _Index(file, top, taken, left_out).samples()


@dataclass
class _Found:
    """What is known of an image while its annotations are collected."""

    image: SourceImage
    records: list[Record] = field(default_factory=list)
    boxes: list[BoxOnly] = field(default_factory=list)


class _Index:
    """One index file."""

    def __init__(self, file: Path, top: Path, taken: dict[str, str | None], left_out: Report) -> None:
        self._file = file
        self._content = _load(file)
        self._split = _split_of(file)
        own = file.parent if file.name.startswith("_annotations") else top
        self._folder = ImageFolder(own, self._split)
        self._top = top
        self._taken = taken
        self._report = left_out

    def samples(self) -> Iterator[Sample]:
        by_id: dict[str, _Found] = {}
        for place, row in enumerate(self._content["images"]):
            self._image(place, row, by_id)
        categories = self._categories()
        seen: set[str] = set()
        for place, row in enumerate(self._content["annotations"]):
            where = f"annotations[{place}]"
            if not isinstance(row, Mapping):
                self._leave(where, f"an object was expected, got {row!r:.80}")
                continue
            identity = _key(row.get("id"))
            where = where if identity is None else f"annotation {identity}"
            if identity is not None and identity in seen:
                self._leave(where, "the id occurs twice; the first one counts")
                continue
            seen.update([] if identity is None else [identity])
            self._annotation(where, row, by_id, categories)
        for found in dict.fromkeys(map(id, by_id.values())):
            entry = next(value for value in by_id.values() if id(value) == found)
            yield Sample(entry.image, tuple(entry.records), tuple(entry.boxes), self._split)

    def _leave(self, where: str, why: str, image: str | None = None, code: str = "row-unusable") -> None:
        self._report(LeftOut(f"{self._file.name}: {where}", why, image, code))

    def _image(self, place: int, row: Any, by_id: dict[str, _Found]) -> None:
        where = f"images[{place}]"
        identity = _key(row.get("id")) if isinstance(row, Mapping) else None
        name = row.get("file_name") if isinstance(row, Mapping) else None
        if identity is None or not isinstance(name, str) or not clean_parts(path_of(name)):
            self._leave(where, f"an image needs an id and a file_name, got {row!r:.120}")
            return
        name = path_of(name)
        if identity in by_id:
            first = by_id[identity].image.file_name
            self._leave(where, f"the image id {identity} is given twice ({first!r} and {name!r}); the first one counts")
            return
        path, why = self._folder.find(name)
        if path is None and "files are called" in why:
            self._leave(where, why, name)
            return
        short = self._name(name, path)
        same = next((found for found in by_id.values() if found.image.file_name == short), None)
        size = image_size(row.get("width"), row.get("height"))
        if same is not None:  # one file, several entries (Label Studio writes one per task): one image
            known = same.image.width, same.image.height
            if size not in (None, known):
                why = f"{name!r} is listed as {known[0]} x {known[1]} before and as {size[0]} x {size[1]} here"
                self._leave(where, f"{why}; the first one counts", name, "image-size")
                return
            by_id[identity] = same
            return
        size = size or _size_of(path)
        if size is None:
            self._leave(where, f"{name!r} has the size {row.get('width')!r} x {row.get('height')!r}, and {why}", name)
            return
        location = str(path or self._top / "images" / Path(*clean_parts(name)))
        self._taken[short] = location
        extra = {key: row[key] for key in ("crs", "transform", "window", "scene_size") if key in row}
        scene = row.get("scene") if isinstance(row.get("scene"), str) else None
        by_id[identity] = _Found(SourceImage(short, *size, location, scene, extra))

    def _name(self, name: str, path: Path | None) -> str:
        """The image's name in the dataset; with its folders where another image has the short one."""
        parts = clean_parts(name)
        short = "/".join(parts[1:] if parts[0] == "images" and len(parts) > 1 else parts)
        if self._taken.get(short, str(path)) == str(path) or path is None:
            return short
        return path.relative_to(self._top).as_posix()

    def _categories(self) -> dict[str, str]:
        names: dict[str, str] = {}
        for place, row in enumerate(self._content.get("categories") or []):
            identity = _key(row.get("id")) if isinstance(row, Mapping) else None
            if identity is None or not isinstance(row.get("name"), str):
                self._leave(f"categories[{place}]", f"a category needs an id and a name, got {row!r:.80}")
            else:
                names[identity] = canonical(row["name"]) or row["name"]
        return names

    def _annotation(
        self, where: str, row: Mapping[str, Any], by_id: dict[str, _Found], categories: Mapping[str, str]
    ) -> None:
        found = by_id.get(_key(row.get("image_id")) or "")
        if found is None:
            self._leave(where, f"image_id {row.get('image_id')!r} is not among the images that are read")
            return
        image = found.image
        category = categories.get(_key(row.get("category_id")) or "")
        if category is None:
            self._leave(where, f"category_id {row.get('category_id')!r} is not among the categories", image.file_name)
            return
        number = _key(row.get("id")) or ""
        identity = int(number) if re.fullmatch(r"-?\d{1,18}", number) else None
        crowd = str(row.get("iscrowd")).strip().lower() in _YES
        if not row.get("segmentation"):
            box = _box(row.get("bbox"), image.width, image.height, _rotation(row))
            if box is None:
                why = f"neither a segmentation nor a usable bbox in pixels ({row.get('bbox')!r:.80})"
                self._leave(where, why, image.file_name)
                return
            found.boxes.append(BoxOnly(category, box, self._split, identity, crowd))
            return
        counts = self._counts(where, row["segmentation"], image)
        if counts is not None:
            source = Provenance(source="coco")
            target = Target(counts, identity, crowd)
            found.records.append(Record("", category, (target,), self._split, None, source))

    def _counts(self, where: str, segmentation: Any, image: SourceImage) -> str | None:
        """Compressed counts of a segmentation; without its degenerate polygons, and None if nothing is left."""
        height, width = image.height, image.width
        segmentation = flat_polygons(segmentation)
        parts = [[part] for part in segmentation] if isinstance(segmentation, list) else [segmentation]
        good: list[str] = []
        bad: list[str] = []
        for place, part in enumerate(parts):
            try:
                numbers = part[0] if isinstance(part, list) and isinstance(part[0], list) else []
                if any(isinstance(value, int | float) and abs(value) > _FAR for value in numbers):
                    raise MaskError(f"a polygon reaches beyond {_FAR:,.0f} pixels: {numbers!r:.80}")
                good.append(str(rle_of(part, height, width)["counts"]))
            except (MaskError, TypeError, ValueError, OverflowError) as error:
                known = isinstance(error, MaskError)
                text = str(error) if known else f"the segmentation cannot be decoded ({error}): {part!r:.80}"
                bad.append(re.sub(r"^polygon 0 ", f"polygon {place} ", text))
        for why in bad:
            rest = "; the other polygons of the object are read" if good else ""
            self._leave(where, why + rest, image.file_name, "mask-damaged")
        if not good:
            return None
        counts = good[0] if len(good) == 1 else merge(good, height, width)
        if not area_of({"size": [height, width], "counts": counts}, height, width):
            self._leave(where, "the segmentation covers no pixel", image.file_name, "mask-empty")
            return None
        return counts


def as_masks(sample: Sample) -> Sample:
    """The sample with a mask that fills it for every box without one."""
    records = []
    for box in sample.boxes:
        height, width = sample.image.height, sample.image.width
        x0, y0, x1, y1 = box.box
        corners = [[x0, y0, x1, y0, x1, y1, x0, y1]]
        counts = str(rle_of(corners, height, width)["counts"])
        if area_of({"size": [height, width], "counts": counts}, height, width):
            target = Target(counts, box.id, box.crowd)
            records.append(Record("", box.category, (target,), box.split, None, Provenance(source="box")))
    return replace(sample, records=(*sample.records, *records), boxes=())


def _load(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in ("images", "annotations")):
        shown = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise DatasetError(
            f"{file} is not COCO: an object with the lists images and annotations was expected, got {shown}"
        )
    if not isinstance(content.get("categories", []), list):
        raise DatasetError(f"{file} is not COCO: categories must be a list, got {content['categories']!r:.80}")
    return content


def _split_of(file: Path) -> str | None:
    name = file.parent.name if file.name.startswith("_annotations") else file.stem
    word = re.sub(r"[\d_\-]+$", "", name.removeprefix("instances").strip("_-")).lower()
    return _SPLIT.get(word)


def _key(value: Any) -> str | None:
    """An id as text, so that 7, 7.0 and "7" are one; None for what is no id."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    return str(value).strip() or None if isinstance(value, int | str) else None


def image_size(width: Any, height: Any) -> tuple[int, int] | None:
    """(width, height) in pixels as an index gives them; None where they are no size that an image can have."""
    try:
        size = int(width), int(height)
    except (TypeError, ValueError, OverflowError):
        return None
    return size if min(size) > 0 and size[0] * size[1] < _MOST_PIXELS else None


def _size_of(path: Path | None) -> tuple[int, int] | None:
    """(width, height) of a file as it is read."""
    from dataset_tools import image_files

    try:
        return None if path is None else (lambda shape: (shape[1], shape[0]))(image_files.read(path).shape)
    except (PslgError, OSError):
        return None


def _rotation(row: Mapping[str, Any]) -> float:
    """Degrees by which CVAT turned a box about its middle; its ``bbox`` is the one before."""
    attributes = row.get("attributes")
    angle = attributes.get("rotation") if isinstance(attributes, Mapping) else None
    return float(angle) if isinstance(angle, int | float) and abs(angle) < _FAR else 0.0


def _box(value: Any, width: int, height: int, rotation: float = 0.0) -> Box | None:
    """A ``bbox`` [x, y, width, height] inside the image as (x0, y0, x1, y1), the tightest around a turned one; None if
    less than a pixel of it is.
    """
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value):
        return None
    x, y, w, h = (float(v) for v in value)
    cosine, sine = abs(math.cos(math.radians(rotation))), abs(math.sin(math.radians(rotation)))
    across, down = (w * cosine + h * sine) / 2, (w * sine + h * cosine) / 2
    x0, y0, x1, y1 = x + w / 2 - across, y + h / 2 - down, x + w / 2 + across, y + h / 2 + down
    box = Box(max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1))
    return box if min(w, h, box.width, box.height) > 0 and box.area >= 1 else None

"""``coco_jsonl``: a folder of images, COCO instances and one JSON line per referring expression.

    images/<file_name>      8-bit images
    annotations.json        COCO: images, categories, annotations (polygons, plain or compressed RLE);
                            packed as annotations.json.gz where there is only that
    expressions.jsonl       {id, image, category, expression, kind, ann_ids, bbox [x0, y0, x1, y1] or null} per line
    split.json              optional: {"train": [file_name, ...], "val": [...], ...}

A missing ``expressions.jsonl`` is an empty one: such a folder serves instance segmentation alone. An expression with
``ann_ids`` [] names something that is not in the image (kind ``absent``). Polygons are rasterised by pycocotools
(see ``dataset_tools.masks``); masks are made when they are asked for.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dataset_tools.errors import DatasetError, MaskError
from dataset_tools.geometry import Box
from dataset_tools.masks import Mask, Segmentation, from_coco

KINDS = ("single", "region", "extreme", "size", "near", "relation", "all", "absent")
"""Kinds of expression in the field's rule-made sets; a file may hold others."""


_IMAGE_KEYS = {"id", "file_name", "width", "height", "scene"}
_EXPRESSION_KEYS = {"id", "image", "category", "expression", "kind", "ann_ids", "bbox"}


@dataclass(frozen=True)
class Annotation:
    """One object of one image.

    Attributes:
        id: COCO annotation id, unique in the folder.
        category: the category's name as the file spells it.
        height, width: size of the image in pixels.
        segmentation: COCO polygons or RLE, rasterised by :meth:`mask`.
        crowd: COCO's ``iscrowd``: many objects under one outline.
        box: the file's ``bbox`` as (x0, y0, x1, y1), or the mask's tightest box where the file has none.
        truncated: the border of the image cuts the object; the file's ``truncated``, False where it does not say.
    """

    id: int
    category: str
    height: int
    width: int
    segmentation: Segmentation = field(repr=False)
    box: Box
    truncated: bool = False
    crowd: bool = False

    def mask(self) -> Mask:
        """The object's pixels as bool[height, width], rasterised anew on every call.

        Raises:
            DatasetError: the segmentation is damaged or of another size than the image.
        """
        try:
            return from_coco(self.segmentation, self.height, self.width)
        except MaskError as error:
            raise DatasetError(f"annotation {self.id} ({self.category}): {error}") from error


@dataclass(frozen=True)
class ImageEntry:
    """One image: COCO ``id``, ``file_name`` below ``images/`` (the name that expressions and splits use), the file's
    ``path``, ``width`` and ``height`` in pixels, its annotations, the name of its scene if the file has one, and what
    else the file says of it (``transform``, ``crs``, ``window``, ``scene_size``...).
    """

    id: int
    file_name: str
    path: Path
    width: int
    height: int
    annotations: tuple[Annotation, ...]
    scene: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Expression:
    """One referring expression.

    ``image`` is a file name, ``ann_ids`` are the targets (none for kind ``absent``), ``extra`` the other keys.
    """

    id: int
    image: str
    category: str
    expression: str
    kind: str
    ann_ids: tuple[int, ...]
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class CocoJsonl:
    """A read folder. ``split`` maps the names of the split file to file names; it is {} without such a file."""

    folder: Path
    images: tuple[ImageEntry, ...]
    expressions: tuple[Expression, ...]
    categories: tuple[str, ...]
    split: Mapping[str, tuple[str, ...]]
    _by_name: Mapping[str, ImageEntry] = field(repr=False)
    _by_id: Mapping[int, Annotation] = field(repr=False)

    def image(self, file_name: str) -> ImageEntry:
        """The image of that file name; KeyError if the folder (or the chosen split) lacks it."""
        return self._by_name[file_name]

    def annotation(self, ann_id: int) -> Annotation:
        """The annotation of that id; KeyError if the folder (or the chosen split) lacks it."""
        return self._by_id[ann_id]

    def target(self, expression: Expression) -> Mask:
        """The union bool[H, W] of the masks that ``expression`` names; all False for kind ``absent``."""
        entry = self.image(expression.image)
        mask = np.zeros((entry.height, entry.width), dtype=bool)
        for ann_id in expression.ann_ids:
            mask |= self.annotation(ann_id).mask()
        return mask


def read(folder: str | Path, split: str | Path | None = None, expressions: Path | None = None) -> CocoJsonl:
    """Read a ``coco_jsonl`` folder; no image file is opened.

    Args:
        folder: the folder described at the top of this module.
        split: a name in ``split.json``, or a file that lists image file names (a JSON list, or one per line); keeps
            only those images with their annotations and expressions. None keeps all.
        expressions: another file of expressions about the folder's annotations; None reads ``expressions.jsonl``. Rows
            whose ``set`` names another folder are passed over.

    Raises:
        DatasetError: a file is missing or malformed, or ids do not fit together; the message names file and line.
    """
    folder = Path(folder)
    file = annotations_file(folder)
    coco = load_json(file)
    if not isinstance(coco, dict):
        raise DatasetError(f"{file} must hold a JSON object, it holds {type(coco).__name__}")
    splits = _read_splits(folder)
    images = _read_images(folder, file, coco)
    categories = tuple(str(c["name"]) for c in coco.get("categories", []))
    if expressions is not None and not expressions.is_file():
        raise DatasetError(
            f"{expressions} does not exist; a file of expressions was expected, one JSON object per line"
        )
    rows = tuple(
        _read_expressions(
            expressions or folder / "expressions.jsonl",
            {image.file_name: image for image in images},
            folder.resolve().name,
        )
    )
    if split is not None:
        names = _split_names(folder, splits, split, {image.file_name for image in images})
        images = tuple(image for image in images if image.file_name in names)
        rows = tuple(row for row in rows if row.image in names)
    return CocoJsonl(
        folder=folder,
        images=images,
        expressions=rows,
        categories=categories,
        split=splits,
        _by_name={image.file_name: image for image in images},
        _by_id={annotation.id: annotation for image in images for annotation in image.annotations},
    )


def look(folder: Path) -> Mapping[str, tuple[str, ...]]:
    """The splits of a folder, without reading its annotations, which takes seconds and gigabytes for a large set.

    Raises:
        DatasetError: the index is missing, empty or cut off, a split file is malformed, or an image that a split lists
            is not there.
    """
    file = annotations_file(folder)
    try:
        with file.open("rb") as opened:
            head = opened.read(64)
            opened.seek(-min(64, file.stat().st_size), 2)
            tail = opened.read()
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error.strerror or error}") from error
    if file.suffix != ".gz" and not (head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and tail.rstrip()[-1:] == b"}"):
        raise DatasetError(f"{file} is not valid JSON: it does not begin and end as an object, or was cut off")
    splits = _read_splits(folder)
    for name in (name for names in splits.values() for name in names):
        if not (folder / "images" / name).is_file():
            raise DatasetError(f"image file {folder / 'images' / name} does not exist")
    return splits


def annotations_file(folder: Path) -> Path:
    """The folder's ``annotations.json``, or ``annotations.json.gz`` where there is only that."""
    plain, packed = folder / "annotations.json", folder / "annotations.json.gz"
    return packed if packed.is_file() and not plain.exists() else plain


def load_json(path: Path) -> Any:
    """What a JSON file holds, packed with gzip or not; a DatasetError naming it if it cannot be read."""
    try:
        content = path.read_bytes()
        return json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    except FileNotFoundError:
        raise DatasetError(
            f"{path} does not exist; a coco_jsonl folder holds images/, annotations.json and expressions.jsonl"
        ) from None
    except NotADirectoryError:
        raise DatasetError(f"{path.parent} is a file, a coco_jsonl folder was expected") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not valid JSON: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path} cannot be unpacked ({error}): fetch it again") from error


def _field(item: Any, key: str, kinds: type | tuple[type, ...], where: str) -> Any:
    """``item[key]`` if it is of one of ``kinds`` (a bool is no number here); else a DatasetError naming ``where``."""
    if not isinstance(item, dict):
        raise DatasetError(f"{where}: a JSON object was expected, got {item!r:.80}")
    if key not in item:
        raise DatasetError(f"{where}: key {key!r} is missing; it has {sorted(item)}")
    value = item[key]
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise DatasetError(f"{where}: {key!r} has the unusable value {value!r:.80}")
    return value


def _read_images(folder: Path, file: Path, coco: dict[str, Any]) -> tuple[ImageEntry, ...]:
    for key in ("images", "annotations", "categories"):
        if not isinstance(coco.get(key), list):
            raise DatasetError(f"{file}: key {key!r} must be a list; the file has the keys {sorted(coco)}")
    categories = {
        _field(c, "id", int, f"{file}: categories[{i}]"): _field(c, "name", str, f"{file}: categories[{i}]")
        for i, c in enumerate(coco["categories"])
    }
    sizes: dict[int, tuple[str, int, int]] = {}
    scenes: dict[int, str] = {}
    extras: dict[int, dict[str, Any]] = {}
    names: set[str] = set()
    for i, item in enumerate(coco["images"]):
        where = f"{file}: images[{i}]"
        image_id, name = _field(item, "id", int, where), _field(item, "file_name", str, where)
        width, height = _field(item, "width", int, where), _field(item, "height", int, where)
        if width < 1 or height < 1:
            raise DatasetError(f"{where}: {name!r} has the size {width} x {height}")
        if image_id in sizes:
            raise DatasetError(f"{where}: image id {image_id} occurs twice ({sizes[image_id][0]!r} and {name!r})")
        if name in names:
            raise DatasetError(f"{where}: file name {name!r} occurs twice")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DatasetError(f"{where}: file name {name!r} leaves the images folder")
        if not (folder / "images" / name).is_file():
            raise DatasetError(f"{where}: image file {folder / 'images' / name} does not exist")
        names.add(name)
        sizes[image_id] = name, width, height
        extras[image_id] = {key: value for key, value in item.items() if key not in _IMAGE_KEYS}
        if isinstance(item.get("scene"), str):
            scenes[image_id] = item["scene"]
    annotations: dict[int, list[Annotation]] = {image_id: [] for image_id in sizes}
    seen: set[int] = set()
    for i, item in enumerate(coco["annotations"]):
        where = f"{file}: annotations[{i}]"
        ann_id, image_id = _field(item, "id", int, where), _field(item, "image_id", int, where)
        category_id = _field(item, "category_id", int, where)
        segmentation = _field(item, "segmentation", (list, dict), where)
        if image_id not in sizes:
            raise DatasetError(f"{where}: image_id {image_id} is not among the images")
        if category_id not in categories:
            raise DatasetError(f"{where}: category_id {category_id} is not among the categories")
        if ann_id in seen:
            raise DatasetError(f"{where}: annotation id {ann_id} occurs twice")
        seen.add(ann_id)
        _, width, height = sizes[image_id]
        if isinstance(segmentation, dict) and segmentation.get("size") != [height, width]:
            raise DatasetError(
                f"{where}: annotation {ann_id} has an RLE of size {segmentation.get('size')}, "
                f"its image {sizes[image_id][0]!r} has [height, width] = {[height, width]}"
            )
        box = _box(item, segmentation, height, width, where)
        cut, crowd = bool(item.get("truncated", False)), bool(item.get("iscrowd"))
        annotations[image_id].append(
            Annotation(ann_id, categories[category_id], height, width, segmentation, box, cut, crowd)
        )
    return tuple(
        ImageEntry(
            image_id,
            name,
            folder / "images" / name,
            width,
            height,
            tuple(annotations[image_id]),
            scenes.get(image_id),
            extras[image_id],
        )
        for image_id, (name, width, height) in sizes.items()
    )


def _box(item: dict[str, Any], segmentation: Segmentation, height: int, width: int, where: str) -> Box:
    bbox = item.get("bbox")
    if bbox is None:
        try:
            return Box.of_mask(from_coco(segmentation, height, width))
        except MaskError as error:
            raise DatasetError(f"{where}: {error}") from error
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(isinstance(v, int | float) for v in bbox):
        raise DatasetError(f"{where}: bbox must be [x, y, width, height], got {bbox!r:.80}")
    x, y, w, h = (float(value) for value in bbox)
    return Box(x, y, x + w, y + h)


def _read_expressions(file: Path, images: Mapping[str, ImageEntry], folder_name: str) -> Iterator[Expression]:
    if not file.is_file():
        return
    annotations = {name: {annotation.id for annotation in image.annotations} for name, image in images.items()}
    seen: set[int] = set()
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{file}, line {number}"
            try:
                item = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise DatasetError(f"{where}: not valid JSON ({error}): {line[:80]!r}") from error
            if isinstance(item, dict) and item.get("set", folder_name) != folder_name:
                continue
            expression_id, image = _field(item, "id", int, where), _field(item, "image", str, where)
            if image not in images:
                raise DatasetError(f"{where}: image {image!r} is not in annotations.json")
            if expression_id in seen:
                raise DatasetError(f"{where}: expression id {expression_id} occurs twice")
            seen.add(expression_id)
            ann_ids = _field(item, "ann_ids", list, where)
            unknown = [i for i in ann_ids if not isinstance(i, int) or i not in annotations[image]]
            if unknown:
                raise DatasetError(f"{where}: ann_ids {unknown} are not annotations of {image!r}")
            yield Expression(
                id=expression_id,
                image=image,
                category=_field(item, "category", str, where),
                expression=_field(item, "expression", str, where),
                kind=_field(item, "kind", str, where),
                ann_ids=tuple(ann_ids),
                extra={key: value for key, value in item.items() if key not in _EXPRESSION_KEYS},
            )


def _read_splits(folder: Path) -> dict[str, tuple[str, ...]]:
    if not (folder / "split.json").is_file():
        return {}
    content = load_json(folder / "split.json")
    if not isinstance(content, dict) or not all(isinstance(names, list) for names in content.values()):
        raise DatasetError(f"{folder / 'split.json'} must map split names to lists of file names")
    return {name: tuple(map(str, names)) for name, names in content.items()}


def _split_names(
    folder: Path, splits: Mapping[str, tuple[str, ...]], split: str | Path, images: set[str]
) -> frozenset[str]:
    if isinstance(split, str) and split in splits:
        names, source = splits[split], f"split {split!r}"
    elif Path(split).is_file():
        names, source = listed_images(Path(split)), str(split)
    else:
        raise DatasetError(
            f"no split {str(split)!r} in {folder}; "
            + (f"split.json has {sorted(splits)}" if splits else "there is no split.json")
            + ", and no file of that name lists images"
        )
    unknown = sorted(set(names) - images)
    if unknown:
        raise DatasetError(
            f"{source} lists {len(unknown)} images that are not in annotations.json, e.g. {unknown[0]!r}"
        )
    return frozenset(names)


def listed_images(file: Path) -> tuple[str, ...]:
    """The image file names that ``file`` lists: a JSON list, or one name per line."""
    text = file.read_text(encoding="utf-8-sig")
    names = load_json(file) if text.lstrip().startswith("[") else text.split("\n")
    return tuple(name.strip() for name in map(str, names) if name.strip())

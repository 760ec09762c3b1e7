"""Which image of a task's data a region lies on, where that image is to be had, and which tasks share one image.

One image in many tasks is one image: samples are joined by the content of their images, their objects together. Every
expression keeps the mask that was accepted under it. Targets that outline one object get one ``id``, by which formats
of objects (``formats.coco.objects``) write it once.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

from dataset_tools.errors import DatasetError
from dataset_tools.image_files import clean_parts
from dataset_tools.label_studio.annotations import SAME_OBJECT
from dataset_tools.label_studio.notes import NOTE
from dataset_tools.masks import iou_of
from dataset_tools.records import Record, Sample, Target

__all__ = [
    "addresses",
    "file_name",
    "filled",
    "image_at",
    "image_path",
    "joined",
    "local_file",
    "value_at",
    "variables",
]

_Key: TypeAlias = tuple[str, int, int]
_PATH = re.compile(r"\w+(?:\.\w+|\[\d+\])*")
_VARIABLE = re.compile(r"\$\{?(\w+(?:\.\w+|\[\d+\])*)")
_ADDRESS = re.compile(r"(^/data/|^[a-z][a-z0-9_-]*://|\.(jpe?g|png|tiff?|webp|bmp)$)", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_SCHEME = re.compile(r"^[a-z][a-z0-9_.+-]+://|^/data/", re.IGNORECASE)
_UPLOAD = re.compile(r"[\\/]data[\\/]upload[\\/]")
_PICTURE = re.compile(r"(^/data/(upload|local-files)/|\.(jpe?g|png|tiff?|webp|bmp)([?#]|$))", re.IGNORECASE)
"""What is surely a picture's address, whatever its key; a page's address is not."""


def value_at(data: Any, path: str) -> Any:
    """What stands under ``path`` (``a``, ``a.b``, ``a[0].url``) in a task's data, None where nothing does."""
    if isinstance(data, dict) and path in data:
        return data[path]
    if not _PATH.fullmatch(path):
        return None
    for part in re.findall(r"\w+", path):
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and part.isdecimal() and int(part) < len(data):
            data = data[int(part)]
        else:
            return None
    return data


def variables(value: str) -> list[str]:
    """The paths that a tag's ``value`` names with a $: ``$a``, ``${a}``, ``$a.b``, ``$a[0].url``, ``https://x/$a``."""
    return [str(path) for path in _VARIABLE.findall(value)]


def filled(value: str, data: Mapping[str, Any]) -> Any:
    """What a tag's ``value`` is for a task's data: a lone variable's value as it is, else the text with them filled in.

    None where a variable of a text has no value.
    """
    paths = variables(value)
    if len(paths) == 1 and _VARIABLE.fullmatch(value.strip().rstrip("}")):
        return value_at(data, paths[0])
    values = {path: value_at(data, path) for path in paths}
    if not all(isinstance(found, str | int | float) for found in values.values()):
        return None
    return re.sub(_VARIABLE.pattern + r"\}?", lambda match: str(values[match[1]]), value)


def image_at(data: Mapping[str, Any], tag: str | None, item: int | None, key: str | None, *, only: bool = True) -> str:
    """The address of the image that a region lies on.

    Where all regions of the task lie on one tag: what ``key`` names; without a key, the value under the tag's own name,
    or the one called ``image``, or the only one that is a picture's address. Else the value under the tag's own name.

    Args:
        data: the task's data.
        tag: the region's ``to_name``.
        item: its ``item_index``.
        key: where the data has the image, as the labeling config's ``value`` says it (without the $).
        only: whether all regions of the task lie on one tag.

    Raises:
        DatasetError: it cannot be told, or there is none.
    """
    if key is not None and only:
        value = value_at(data, key)
        if not value or not isinstance(value, str | list):
            raise DatasetError(f"its data has no image under {key!r}; it has {sorted(data)}")
        return _item(value, item, key)
    for path in filter(None, (tag, "image" if only else None)):
        if _all_match(_ADDRESS, value := value_at(data, path)):
            return _item(value, item, path)
    found = list(_pictures(data))
    if len(found) == 1 and only:
        return _item(value_at(data, found[0]), item, found[0])
    if not found:
        raise DatasetError(f"its data holds no image; it has {sorted(data)} (--image-key names one)")
    raise DatasetError(
        f"which image its regions on {tag!r} belong to cannot be told: its data has {', '.join(found)}"
        + (" (--image-key names one)" if only else ", none of them under that name")
    )


def addresses(data: Mapping[str, Any], key: str | None) -> list[str]:
    """The addresses of all images that regions of a task may lie on; see :func:`image_at`."""
    paths = [key] if key is not None else ["image", *_pictures(data)]
    values = [value_at(data, path) for path in dict.fromkeys(paths)]
    found = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return list(dict.fromkeys(item for item in found if isinstance(item, str) and item))


def _item(value: Any, item: int | None, path: str) -> str:
    if isinstance(value, str):
        return value
    if not all(isinstance(entry, str) for entry in value):
        raise DatasetError(f"its data has no list of images under {path!r}")
    number = 0 if item is None and len(value) == 1 else item
    if number is None:
        raise DatasetError(f"its data has {len(value)} images under {path!r}, and its regions do not say on which")
    if not 0 <= number < len(value):
        raise DatasetError(f"its data has {len(value)} images under {path!r}, and its regions lie on number {number}")
    return str(value[number])


def _all_match(pattern: re.Pattern[str], value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return bool(items) and all(isinstance(item, str) and pattern.search(item) for item in items)


def _pictures(data: Any, path: str = "") -> Iterator[str]:
    """Paths of everything that is surely a picture's address, at any depth."""
    if path and _all_match(_PICTURE, data):
        yield path
    elif isinstance(data, dict):
        for key in sorted(data.keys() - {NOTE}, key=str):
            yield from _pictures(data[key], f"{path}.{key}" if path else str(key))
    elif isinstance(data, list):
        for number, item in enumerate(data):
            yield from _pictures(item, f"{path}[{number}]")


def file_name(location: str) -> str:
    """A short name for the image: its own, without the random prefix that uploads get."""
    name = PurePosixPath(image_path(location)).name
    return re.sub(r"^[0-9a-f]{8}-", "", name) if _UPLOAD.search(location) else name


def image_path(location: str) -> str:
    """Where a folder of fetched images has this one: under its path, those of other hosts under ``<host>/<path>``.

    Raises:
        DatasetError: it is no address.
    """
    if "\0" in location:
        raise DatasetError(f"the address {location!r:.200} of its image holds a zero byte")
    if _DRIVE.match(location) or ("\\" in location and not _SCHEME.match(location)):
        return "/".join(clean_parts(location))  # a path of Windows: nothing in it is encoded
    host, path = _host_and_path(location)
    path = "/".join(clean_parts(path)) if "\\" in path else path.lstrip("/")
    return f"{host}/{path}" if host else path


def _host_and_path(location: str) -> tuple[str, str]:
    try:  # an underscore is no part of a scheme for urlsplit
        parts = urlsplit(re.sub("^azure_spi:", "azure-spi:", location))
    except ValueError as error:
        raise DatasetError(f"the address {location!r:.200} of its image cannot be read: {error}") from None
    named = parse_qs(parts.query).get("d")  # which undoes the percent signs itself
    return parts.netloc, named[0] if named else unquote(parts.path)


def local_file(location: str, images: Path | None) -> str:
    """A local file for the image if the folder ``images`` has it, by its path or by its name; else the location."""
    if images is None:
        return location
    full = image_path(location)
    path = full.removeprefix(f"{_host_and_path(location)[0]}/")
    names = (PurePosixPath(path).name, file_name(location))
    for candidate in (full, path, path.removeprefix("data/upload/"), *names):
        file = (images / candidate).resolve()
        if file.is_file() and file.is_relative_to(images.resolve()):
            return str(file)
    return location


def joined(samples: Iterable[Sample]) -> Iterator[Sample]:
    """``samples`` with those of one image as one, in the order of their first; memory stays flat.

    Images are one if they lie in the same place, or in files of the same bytes.

    Raises:
        DatasetError: what ``samples`` raises, after everything before it was yielded.
    """
    failed: DatasetError | None = None
    places: dict[_Key, list[int]] = {}
    with TemporaryFile() as file:
        try:
            for sample in samples:
                image = sample.image
                key = (image.location or image.file_name, image.width, image.height)
                places.setdefault(key, []).append(file.tell())
                file.write(pickle.dumps(sample))
        except DatasetError as error:
            failed = error
        for offsets in _by_content(places):
            parts: list[Sample] = []
            for offset in offsets:
                file.seek(offset)
                parts.append(pickle.load(file))  # noqa: S301  # nosec B301 # our own file of a moment ago
            yield _one(parts)
    if failed is not None:
        raise failed


def _by_content(places: dict[_Key, list[int]]) -> Iterator[list[int]]:
    """Offsets of each image; only files of one size are read, and only to tell them apart."""
    sizes: dict[int, list[_Key]] = {}
    for key in places:
        size = _size(key[0])
        if size:
            sizes.setdefault(size, []).append(key)
    same: dict[tuple[bytes, int, int], list[int]] = {}
    merged: set[_Key] = set()
    for keys in sizes.values():
        for key in keys if len(keys) > 1 else ():
            try:
                content = hashlib.sha256(Path(key[0]).read_bytes()).digest()
            except OSError:
                continue  # the exporter says so
            known = same.get((content, *key[1:]))
            if known is None:
                same[content, key[1], key[2]] = places[key]
            else:
                known += places[key]
                merged.add(key)
    for key, offsets in places.items():
        if key not in merged:
            yield sorted(offsets)


def _size(location: str) -> int | None:
    try:
        return Path(location).stat().st_size
    except (OSError, ValueError):
        return None


def _one(parts: Sequence[Sample]) -> Sample:
    image = parts[0].image
    scene = next((part.image.scene for part in parts if part.image.scene), None)
    records: dict[tuple[str, str, tuple[Target, ...]], Record] = {}
    for record in (record for part in parts for record in part.records):
        records.setdefault((record.expression, record.category, record.targets), record)
    found = tuple(_identified(list(records.values()), image.height, image.width))
    return Sample(replace(image, scene=scene), found)


def _identified(records: Sequence[Record], height: int, width: int) -> Iterator[Record]:
    """The records, with one id for targets of one category that outline one object in different ways."""
    objects: dict[str, list[set[str]]] = {}
    for record in records:
        known = objects.setdefault(record.category, [])
        for counts in (target.counts for target in record.targets):
            overlaps = [max(_iou(counts, other, height, width) for other in each) for each in known]
            best = max(range(len(known)), key=overlaps.__getitem__, default=None)
            if best is not None and overlaps[best] >= SAME_OBJECT:
                known[best].add(counts)
            else:
                known.append({counts})
    ids = {
        (category, counts): number
        for category, known in objects.items()
        for number, masks in enumerate(known, start=1)
        for counts in masks
        if len(masks) > 1
    }
    for record in records:
        targets = tuple(replace(t, id=ids.get((record.category, t.counts), t.id)) for t in record.targets)
        yield replace(record, targets=targets)


def _iou(first: str, second: str, height: int, width: int) -> float:
    if first == second:
        return 1.0
    one, other = ({"size": [height, width], "counts": counts} for counts in (first, second))
    return iou_of(one, other)

"""A folder of images for Label Studio: which of its files are imported, and which expressions belong to which.

Expressions stand in a CSV file with a header, one a row::

    image,expression
    harbor/a.png,the largest ship
    harbor/a.png,all the storage tanks

or in a JSON Lines file, where a row may have several: ``{"image": "a.png", "expression": ["the pier", "the ships"]}``.
An image is named by its path below the folder, its file name or its name without suffix; tiles (``tiles.jsonl``,
written by ``pslg dataset tile``) also by their scene, which means all of its tiles.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dataset_tools.errors import DatasetError
from dataset_tools.maps.raster import is_map_file
from dataset_tools.maps.tiles import INDEX, read_index

__all__ = ["SHOWN", "ExpressionRow", "FolderImage", "read_expressions", "read_folder"]

SHOWN = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
"""Suffixes of pictures that Label Studio takes and browsers show."""
_OTHER_PICTURES = (".heic", ".heif", ".avif", ".ppm", ".pgm", ".jfif")
_IMAGE_NAMES = ("image", "file_name", "filename", "file", "path", "scene")
_EXPRESSION_NAMES = ("expression", "expressions", "sentence", "sentences", "caption", "phrase", "text")
_TILE_KEYS = ("window", "scene_size", "crs", "transform")
"""What a task keeps of its tile's line: enough to find the way back to the map."""


@dataclass(frozen=True)
class ExpressionRow:
    """A row of an expressions file.

    Attributes:
        image: how it names its image.
        expressions: as written, blanks around them stripped, none empty.
        where: file and line, for messages.
    """

    image: str
    expressions: tuple[str, ...]
    where: str


@dataclass(frozen=True)
class FolderImage:
    """An image that becomes a task.

    Attributes:
        path: the file.
        name: its path below the folder, with slashes.
        expressions: each once, in the order of the file.
        scene: the scene it was cut from, None for one that is no tile.
        tile: ``window``, ``scene_size``, ``crs`` and ``transform`` of a tile, else empty.
    """

    path: Path
    name: str
    expressions: tuple[str, ...]
    scene: str | None
    tile: Mapping[str, Any]


def read_expressions(path: Path) -> list[ExpressionRow]:
    """The rows of a CSV file (commas, semicolons or tabs) or a JSON Lines file.

    Raises:
        DatasetError: the file is missing, of another kind, or a row cannot be read; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return list(_csv_rows(path, text))
    if suffix in (".jsonl", ".ndjson"):
        return list(_json_rows(path, text))
    raise DatasetError(f"{path.name} must end in .csv or .jsonl; what they look like is in the README")


def _csv_rows(path: Path, text: str) -> Iterator[ExpressionRow]:
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = {name.strip().lower(): name for name in reader.fieldnames or () if name}
        image = next((names[name] for name in _IMAGE_NAMES if name in names), None)
        words = next((names[name] for name in _EXPRESSION_NAMES if name in names), None)
        if image is None or words is None:
            raise DatasetError(
                f"{path}: its first line must name the columns, as image,expression; it is {header.strip()[:80]!r}"
            )
        for row in reader:
            where = f"{path.name} line {reader.line_num}"
            if row.get(None):  # what csv calls the cells beyond the header
                raise DatasetError(
                    f"{where} has more cells than the first line: put quotes around an expression with {delimiter!r}"
                )
            if any(value and value.strip() for value in row.values()):
                yield _row(row[image], row[words] or "", where)
    except csv.Error as error:
        raise DatasetError(f"{path} line {reader.line_num} is no CSV: {error}") from error


def _json_rows(path: Path, text: str) -> Iterator[ExpressionRow]:
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{path.name} line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DatasetError(f"{where} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise DatasetError(f'{where} is no object; write {{"image": "a.png", "expression": "the ship"}}')
        image = next((row[name] for name in _IMAGE_NAMES if name in row), None)
        words = next((row[name] for name in _EXPRESSION_NAMES if name in row), "")
        yield _row(image, words, where)


def _row(image: object, words: object, where: str) -> ExpressionRow:
    if not isinstance(image, str) or not image.strip():
        raise DatasetError(f"{where} names no image (key or column 'image'); it has {image!r}")
    found = []
    for text in words if isinstance(words, list) else [words]:
        if not isinstance(text, str):
            raise DatasetError(f"{where}: an expression is a text or a list of texts, not {text!r}")
        found.append(text.strip())
    return ExpressionRow(image.strip(), tuple(filter(None, found)), where)


def read_folder(
    folder: Path, rows: Sequence[ExpressionRow], everywhere: Sequence[str], left_out: Callable[[str], object]
) -> list[FolderImage]:
    """The images of a folder and its subfolders, in the order of their names, with their expressions.

    Args:
        folder: pictures, or tiles; hidden files and folders are passed over.
        rows: of an expressions file.
        everywhere: expressions that every image gets, after its own.
        left_out: called with what was left out, and why: pictures of a kind that browsers do not show, rows whose image
            is not there or cannot be told from another.

    Raises:
        DatasetError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder" if folder.exists() else f"the folder {folder} does not exist")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _is_hidden(path, folder)]
    pictures = [path for path in files if path.suffix.lower() in SHOWN]
    for path in files:
        if is_map_file(path):
            left_out(
                f"{path}: browsers do not show it; cut it first (`pslg dataset tile {path.name} --out tiles/`) and"
                " import the tiles"
            )
        elif path.suffix.lower() in _OTHER_PICTURES:
            left_out(f"{path}: Label Studio takes no {path.suffix} files; save it as PNG or JPEG")
    if not pictures:
        raise DatasetError(f"{folder} holds no image ({', '.join(SHOWN)})")
    tiles = {path.parent: read_index(path.parent) for path in files if path.name == INDEX}
    lines = [tiles.get(path.parent, {}).get(path.name, {}) for path in pictures]
    names = [path.relative_to(folder).as_posix() for path in pictures]
    words: list[dict[str, None]] = [{} for _ in pictures]
    known = _Names(folder, names, lines)
    for row in rows:
        found = known.find(row.image)
        if len(found) == 1 or (found and all(lines[number] for number in found)):
            for number in found:
                words[number].update(dict.fromkeys(row.expressions))
        elif found:
            which = ", ".join(names[number] for number in found[:3])
            left_out(f"{row.where}: {row.image!r} may be {which}; write the path below the folder")
        else:
            left_out(f"{row.where}: there is no image {row.image!r} in {folder}")
    return [
        FolderImage(
            path, name, tuple({**own, **dict.fromkeys(everywhere)}), str(line["scene"]) if line.get("scene") else None,
            {key: line[key] for key in _TILE_KEYS if key in line},
        )
        for path, name, own, line in zip(pictures, names, words, lines, strict=True)
    ]  # fmt: skip


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


class _Names:
    """What images of a folder may be called in an expressions file."""

    def __init__(self, folder: Path, names: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> None:
        self._folder = folder.resolve().as_posix()
        self._names = names
        self._paths = {name: number for number, name in enumerate(names)}
        self._files: dict[str, list[int]] = {}
        self._scenes: dict[str, list[int]] = {}
        self._stems: dict[str, list[int]] = {}
        for number, (name, line) in enumerate(zip(names, lines, strict=True)):
            file = PurePosixPath(name)
            self._files.setdefault(file.name, []).append(number)
            self._stems.setdefault(file.stem, []).append(number)
            for key in dict.fromkeys(str(line[key]) for key in ("scene", "source") if line.get(key)):
                self._scenes.setdefault(key, []).append(number)

    def find(self, image: str) -> list[int]:
        """Numbers of the images that ``image`` may mean.

        The end of a path names an image whose whole path ends so: ``images/a.png`` is ``a.png`` of a folder ``images``,
        and nothing in a folder of another name.
        """
        path = image.replace("\\", "/").removeprefix("./").lstrip("/")
        file = PurePosixPath(path).name
        if path in self._paths:
            return [self._paths[path]]
        ends = [
            number
            for number in self._files.get(file, ())
            if f"{self._folder}/{self._names[number]}".endswith(f"/{path}")
        ]
        return ends or self._scenes.get(file, []) or (self._stems.get(path, []))

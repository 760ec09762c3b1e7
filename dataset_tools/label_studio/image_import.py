"""A folder's images as tasks of a project, one task an image; what the project has already is passed over.

Every task says in its data under ``pslg_file`` which file it was made of: its name and the beginning of its content's
sha256. That is all that a run which was stopped needs to go on, from any machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from dataset_tools import image_files
from dataset_tools.errors import DatasetError, ImageError
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.downloads import Downloads
from dataset_tools.label_studio.image_folders import FolderImage
from dataset_tools.label_studio.images import value_at
from dataset_tools.label_studio.projects import add_tasks, serve_local_files, upload

__all__ = ["FILE", "Imported", "LocalFiles", "TaskKeys", "import_images"]

FILE = "pslg_file"
"""Key in a task's data."""
_BATCH_FILES, _BATCH_BYTES = 20, 32 << 20
_NAME = 80  # Label Studio keeps 100 characters of "upload/<project>/<8 hex>-<name>"


@dataclass(frozen=True)
class TaskKeys:
    """Where a project's labeling config reads the image and the expression: keys of the task's data, maybe ``a.b``."""

    image: str = "image"
    expression: str = "expression"


@dataclass(frozen=True)
class LocalFiles:
    """Files that Label Studio reads itself, from the disk.

    Attributes:
        root: the folder above the images that is Label Studio's document root, as this machine has it.
        seen_as: the same folder as the machine of Label Studio has it (a container's ``/label-studio/files``).
    """

    root: Path
    seen_as: PurePosixPath


@dataclass(frozen=True)
class Imported:
    """What became of a folder.

    Attributes:
        made: tasks.
        wordless: how many of these have no expression.
        there: images that the project has already.
        other_words: how many of these have other expressions now, which their tasks do not get.
    """

    made: int
    wordless: int
    there: int
    other_words: int


def import_images(
    studio: LabelStudio,
    project: int,
    folder: Path,
    images: Sequence[FolderImage],
    keys: TaskKeys,
    local: LocalFiles | None,
    left_out: Callable[[str], object],
    progress: Callable[[int], object] = lambda _n: None,
) -> Imported:
    """Make a task of every image that the project does not have.

    Args:
        studio: where to.
        project: whose tasks they become.
        folder: that the images lie in.
        images: of ``image_folders.read_folder``.
        keys: of the project's labeling config.
        local: None uploads the files.
        left_out: called with every file that is no readable image, and why.
        progress: called with the number of images that are done.

    Raises:
        LabelStudioError: Label Studio refuses or is away; what was made before stays, and another run goes on.
        DatasetError: the images do not lie below ``local``'s root.
    """
    address = None if local is None else _local_addresses(studio, project, folder, local)
    known = {
        str(task["data"][FILE]): value_at(task["data"], keys.expression)
        for task in studio.tasks(project)
        if (task.get("data") or {}).get(FILE)
    }
    made = wordless = there = other_words = 0
    for batch in _batches(images, left_out, progress):
        new = []
        for image, content, mark in batch:
            if mark in known:
                there += 1
                other_words += bool(image.expressions) and known[mark] != list(image.expressions)
            elif _is_readable(image, content, left_out):
                new.append((image, content, mark))
        if new:
            if address is None:
                urls = upload(studio, project, [(_short(image.path.name), content) for image, content, _ in new])
            else:
                urls = [address(image) for image, _, _ in new]
            data = [_data(image, url, mark, keys) for (image, _, mark), url in zip(new, urls, strict=True)]
            add_tasks(studio, project, data)
        made += len(new)
        wordless += sum(not image.expressions for image, _, _ in new)
        progress(len(batch))
    return Imported(made, wordless, there, other_words)


def _data(image: FolderImage, url: str, mark: str, keys: TaskKeys) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for path, value in ((keys.image, url), (keys.expression, list(image.expressions)), (FILE, mark)):
        *folders, last = path.split(".")
        inner = data
        for key in folders:
            inner = inner.setdefault(key, {})
        inner[last] = value
    if image.scene is not None:
        data["scene"] = image.scene
    if image.tile:
        data["tile"] = dict(image.tile)
    return data


def _batches(
    images: Sequence[FolderImage], left_out: Callable[[str], object], progress: Callable[[int], object]
) -> Iterator[list[tuple[FolderImage, bytes, str]]]:
    """(image, content, mark), some at a time."""
    batch: list[tuple[FolderImage, bytes, str]] = []
    size = 0
    for image in images:
        try:
            content = image.path.read_bytes()
        except OSError as error:
            left_out(f"{image.path} cannot be read: {error.strerror}")
            progress(1)
            continue
        if batch and (len(batch) == _BATCH_FILES or size + len(content) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((image, content, f"{image.name} {hashlib.sha256(content).hexdigest()[:16]}"))
        size += len(content)
    if batch:
        yield batch


def _is_readable(image: FolderImage, content: bytes, left_out: Callable[[str], object]) -> bool:
    try:
        image_files.decode(content, name=str(image.path))
    except ImageError as error:
        left_out(f"{image.path}: {error}")
        return False
    return True


def _short(name: str) -> str:
    path = PurePosixPath(name)
    return name if len(name) <= _NAME else f"{path.stem[: _NAME - len(path.suffix)]}{path.suffix}"


def _local_addresses(
    studio: LabelStudio, project: int, folder: Path, local: LocalFiles
) -> Callable[[FolderImage], str]:
    """Has Label Studio serve the folder; gives the function that says under which address it serves an image."""
    try:
        below = folder.resolve().relative_to(local.root.resolve())
    except ValueError:
        raise DatasetError(f"{folder} does not lie below {local.root}, the document root of Label Studio") from None
    if below == Path():
        raise DatasetError(
            f"{folder} is the document root itself, which Label Studio does not serve: take one below it"
        )
    serve_local_files(studio, project, local.seen_as / below.as_posix())
    prefix = urlsplit(studio.url).path
    served = Downloads(studio)
    asked: list[str] = []

    def address(image: FolderImage) -> str:
        url = f"{prefix}/data/local-files/?d={quote(f'{below.as_posix()}/{image.name}')}"
        if not asked:  # one that is not served means that none is
            with served.open(url):
                asked.append(url)
        return url

    return address

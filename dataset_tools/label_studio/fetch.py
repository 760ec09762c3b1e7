"""Tasks and images of a project, fetched page by page from Label Studio's API; an interrupted fetch goes on.

<folder>/fetch.json          what is fetched, and whether all pages are there
<folder>/page-00001.json     tasks as the API gives them
<folder>/images/<path>       images, under the path of their URL, other hosts' under <host>/<path>
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dataset_tools import atomic
from dataset_tools.errors import DatasetError, ImageError
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.downloads import Downloads, read_body
from dataset_tools.label_studio.images import addresses, image_path
from dataset_tools.label_studio.import_rules import Problem

__all__ = ["MAX_IMAGE_BYTES", "fetch_images", "fetch_tasks", "fetched_tasks"]

_TIMEOUT = 120.0
_READ_SECONDS = 3600.0
MAX_IMAGE_BYTES = 1 << 30


def fetch_tasks(
    studio: LabelStudio,
    project: int,
    folder: Path,
    *,
    page_size: int = 100,
    progress: Callable[[int], object] = lambda _n: None,
) -> None:
    """Fetch all tasks of a project into ``folder``; whole pages of an interrupted fetch are not fetched again.

    Args:
        studio: where from.
        project: the project's id.
        folder: holds one fetch; a complete one is fetched anew.
        page_size: tasks per request.
        progress: called with the number of tasks after every page.

    Raises:
        LabelStudioError: the API fails or refuses.
        DatasetError: ``folder`` holds the fetch of another project.
    """
    state = {"url": studio.url, "project": project, "page_size": page_size}
    file = folder / "fetch.json"
    if file.is_file():
        known = json.loads(file.read_text())
        if known.pop("complete", False):
            for old in folder.glob("page-*.json"):
                old.unlink()
        elif known != state:
            raise DatasetError(f"{folder} holds an unfinished fetch of {known}; choose another folder")
    atomic.write_text(file, json.dumps(state))
    page = 0
    while True:
        page += 1
        path = folder / f"page-{page:05d}.json"
        if path.is_file() and len(tasks := json.loads(path.read_bytes())) == page_size:
            progress(len(tasks))
            continue
        tasks, total = studio.task_page(project, page, page_size, complete=True)
        atomic.write_text(path, json.dumps(tasks))
        progress(len(tasks))
        if len(tasks) < page_size or page * page_size >= total:
            break
    atomic.write_text(file, json.dumps({**state, "complete": True}))


def fetched_tasks(folder: Path) -> Iterator[dict[str, Any]]:
    """The tasks of a fetch, a page at a time.

    Raises:
        DatasetError: the fetch is not complete.
    """
    file = folder / "fetch.json"
    if not file.is_file() or not json.loads(file.read_text()).get("complete"):
        raise DatasetError(f"{folder} holds no complete fetch; fetch again, it goes on where it stopped")
    for path in sorted(folder.glob("page-*.json")):
        yield from json.loads(path.read_bytes())


def fetch_images(studio: LabelStudio, folder: Path, image_key: str | None, problems: list[Problem]) -> None:
    """Download the images of fetched tasks that have annotations; what is there already stays.

    The token goes to Label Studio's own files only. An image that cannot be had is a problem of its task.
    """
    downloads = Downloads(studio, timeout=_TIMEOUT)
    for task in fetched_tasks(folder):
        if not task.get("annotations"):
            continue
        for location in addresses(task["data"], image_key):
            try:
                downloads.address(location, task.get("id"))
                target = _target(folder / "images", location)
                if not target.is_file():
                    with downloads.open(location, task.get("id")) as response:
                        body = read_body(response, MAX_IMAGE_BYTES, _READ_SECONDS, "images of exports")
                    atomic.write_bytes(target, body)
            except (DatasetError, ImageError, OSError) as error:
                problems.append(Problem(task.get("id"), f"{location}: {error}"))


def _target(images: Path, location: str) -> Path:
    """Where the image is kept: under the host (if it names one) and path of its address."""
    try:
        target = (images / image_path(location)).resolve()
    except ValueError as error:  # NUL
        raise DatasetError(f"no address of an image ({error})") from None
    if target == images.resolve() or not target.is_relative_to(images.resolve()):
        raise DatasetError("the image leaves the folder")
    return target

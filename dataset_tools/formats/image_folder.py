"""Finding the image files that somebody else's index names.

Tools write ``a.png``, ``images/a.png``, ``../upload/1/a.png``, ``C:/data/a.png`` or ``/home/me/a.png`` for a file that
lies in ``images/``, ``images/default/``, ``train2017/`` or beside the index. A name is looked for as it is first; then
among all images of the dataset, by as many of its last folders as fit. No file outside of the dataset is taken.
"""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from dataset_tools.image_files import clean_parts

_URL = re.compile(r"^[a-z][a-z0-9+.-]+://[^\[\]]*$", re.IGNORECASE)  # what urlsplit reads without complaint
_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".gif"}


def path_of(name: str) -> str:
    """An index's name of an image as a path: of an address only its path."""
    return urlsplit(name).path if _URL.match(name) else name


class ImageFolder:
    """The images below ``root``; it is walked once, and only if a name does not lie where it says."""

    def __init__(self, root: Path, split: str | None = None) -> None:
        self._root = root
        self._hint = split

    def find(self, name: str) -> tuple[Path | None, str]:
        """(file, "") of an index's ``name``; (None, why) if several files fit it, or none."""
        parts = clean_parts(name)
        if not parts:
            return None, f"the file name {name!r} names no file"
        for folder in ("images", "."):
            path = self._root.joinpath(folder, *parts)
            if path.is_file():
                return path, ""
        found = self._named(parts) or self._named(tuple(map(unquote, parts)))
        if len(found) == 1:
            return self._root.joinpath(*found[0]), ""
        if found:
            shown = ", ".join("/".join(path) for path in found[:3])
            return None, f"{len(found)} files are called {parts[-1]!r} ({shown}): it does not say which is meant"
        return None, f"no file {parts[-1]!r} below {self._root}"

    def _named(self, parts: tuple[str, ...]) -> list[tuple[str, ...]]:
        found = self._by_name.get(parts[-1], [])
        common = [_common_end(path, parts) for path in found]
        found = [path for path, count in zip(found, common, strict=True) if count == max(common)]
        if len(found) > 1 and self._hint is not None:
            hint = self._hint
            hinted = [path for path in found if any(part.lower().startswith(hint) for part in path[:-1])]
            return hinted or found
        return found

    @cached_property
    def _by_name(self) -> dict[str, list[tuple[str, ...]]]:
        found: dict[str, list[tuple[str, ...]]] = {}
        for folder, folders, names in os.walk(self._root):
            folders.sort()
            inner = Path(folder).relative_to(self._root).parts
            for name in sorted(names):
                if PurePosixPath(name).suffix.lower() in _SUFFIXES:
                    found.setdefault(name, []).append((*inner, name))
        return found


def _common_end(path: tuple[str, ...], parts: tuple[str, ...]) -> int:
    count = 0
    for a, b in zip(reversed(path), reversed(parts), strict=False):
        if a != b:
            break
        count += 1
    return count

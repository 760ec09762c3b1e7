"""Task images: from the URL in a task's data to pixels and a content hash.

Where they are and who gets the token: ``dataset_tools.label_studio.downloads``. Which hosts are asked:
``dataset_tools.label_studio.hosts``.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import requests

from backend.bounded_cache import BoundedCache
from backend.database import Database
from backend.pipeline.types import Image, NamedImage
from backend.settings import Settings
from backend.state import image_file
from dataset_tools import atomic, image_files
from dataset_tools.errors import ImageError
from dataset_tools.label_studio.addresses import shown
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.downloads import WHOLE, Downloads, read_body
from dataset_tools.label_studio.hosts import HostRules

__all__ = ["BytesInFlight", "DecodeMemory", "FairLock", "TaskImages"]

_LONGEST_SIDE = 65_535
_UNWRITTEN, _KNOWN_BYTES = 2_000_000, 500
_Headers = requests.structures.CaseInsensitiveDict[str]


@dataclass(frozen=True)
class _Known:
    identity: str
    size: tuple[int, int]
    length: int
    etag: str | None
    last_modified: str | None
    checked_at: float


class TaskImages:
    """Fetches, checks, decodes and remembers task images. Thread-safe.

    Args:
        settings: limits, hosts and Label Studio's address.
        label_studio: its tokens, None without credentials.
        database: where hashes are remembered, so that a known image need not be fetched again.
    """

    def __init__(self, settings: Settings, label_studio: LabelStudio | None, database: Database) -> None:
        self._settings = settings
        route = settings.route()
        rules = HostRules(settings.image_hosts, settings.label_studio_url, route)
        self._downloads = Downloads(
            label_studio,
            base=settings.label_studio_url,
            timeout=settings.fetch_timeout,
            route=route,
            session=rules.session,
            require_allowed=rules.require_allowed,
        )
        self._database = database
        self._pixels: BoundedCache[str, Image] = BoundedCache(settings.image_memory)
        self._unwritten: BoundedCache[str, _Known] = BoundedCache(_UNWRITTEN)
        self._in_flight = BytesInFlight(settings.image_bytes)
        self._decoding = DecodeMemory(settings.decode_memory)
        self._locks = [threading.Lock() for _ in range(64)]

    def load(self, url: str, task_id: int | str | None = None) -> NamedImage:
        """A task's image; fetched only when it is not known or not checked for a while.

        Raises:
            ImageError: it cannot be fetched or read; the message says what to change.
        """
        asked = time.time()
        known = self._known(url)
        if known is None or known.checked_at < asked - self._settings.revalidate_after:
            with self._fetching(url):
                known = self._known(url)
                # Many tasks of a batch have the same image: who waited here finds it fetched.
                if known is None or known.checked_at < asked:
                    known, _ = self._renewed(url, task_id, known)
        return self._image(url, task_id, known)

    def keep(self, url: str, task_id: int | str | None, folder: Path) -> tuple[NamedImage, Path]:
        """A task's image as a file ``<folder>/<2 hex>/<sha256>``, fetched unless it is there and still current.

        Raises:
            ImageError: it cannot be fetched or read; the message says what to change.
            OSError: the file cannot be written.
        """
        with self._fetching(url):
            known = self._known(url)
            if known is not None and not image_file(folder, known.identity).is_file():
                known = None
            if known is None or known.checked_at < time.time() - self._settings.revalidate_after:
                known, _ = self._renewed(url, task_id, known, folder)
        return self._image(url, task_id, known), image_file(folder, known.identity)

    def _image(self, url: str, task_id: int | str | None, known: _Known) -> NamedImage:
        return NamedImage(known.identity, known.size, partial(self._pixels_of, url, task_id, known.identity))

    def _pixels_of(self, url: str, task_id: int | str | None, identity: str) -> Image:
        image = self._pixels.get(identity)
        if image is None:
            with self._fetching(url):
                image = self._pixels.get(identity)
                if image is None:
                    now, image = self._renewed(url, task_id, None)
                    assert image is not None  # noqa: S101 - nothing is known that could be unchanged
                    if now.identity != identity:
                        raise ImageError(f"{shown(url)} holds another image than a moment ago; ask again")
        return image

    def _fetching(self, url: str) -> threading.Lock:
        """Held while ``url`` is fetched, and now and then by another URL too."""
        return self._locks[hash(url) % len(self._locks)]

    def _renewed(
        self, url: str, task_id: int | str | None, known: _Known | None, folder: Path | None = None
    ) -> tuple[_Known, Image | None]:
        """What is known of an image now, and its pixels unless nothing has changed; its file goes to ``folder``."""
        with self._in_flight.account() as came:
            fetched = self._download(url, task_id, known, came)
            if fetched is None:
                assert known is not None  # noqa: S101 - only a known image can be unchanged
                known = replace(known, checked_at=time.time())
                self._write(url, known)
                return known, None
            found, image = self._remember(url, *fetched)
            path = None if folder is None else image_file(folder, found.identity)
            if path is not None and not path.is_file():
                atomic.write_bytes(path, fetched[0])
            return found, image

    def _remember(self, url: str, data: bytes, headers: _Headers) -> tuple[_Known, Image]:
        bands = self._settings.bands
        image = image_files.decode(
            data,
            max_pixels=self._settings.image_pixels,
            bands=image_files.parse_bands(bands) if bands else None,
            limit="PSLG_IMAGE_PIXELS",
            max_side=_LONGEST_SIDE,
            admit=self._decoding.holding,
            name=shown(url),
        )
        digest = hashlib.sha256(data)
        digest.update(f"bands {bands}".encode() if bands else b"")  # other bands are another picture
        identity, size = digest.hexdigest(), (image.shape[0], image.shape[1])
        self._pixels.put(identity, image, image.nbytes)
        known = _Known(identity, size, len(data), headers.get("ETag"), headers.get("Last-Modified"), time.time())
        self._write(url, known)
        return known, image

    def _write(self, url: str, known: _Known) -> None:
        key = self._key(url)
        row = (key, known.identity, *known.size, known.length, known.etag, known.last_modified, known.checked_at)
        # Where it cannot be written it is known from memory, until it can.
        self._unwritten.put(key, known, _KNOWN_BYTES)
        with self._database.spared("the images' hashes"), self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO images (url, sha256, height, width, bytes, etag, last_modified, checked_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            connection.commit()
            self._unwritten.drop(key)

    def _known(self, url: str) -> _Known | None:
        key = self._key(url)
        unwritten = self._unwritten.get(key)
        if unwritten is not None:
            return unwritten
        row = None
        with self._database.spared("the images' hashes (reading)"), self._database.transaction() as connection:
            row = connection.execute(
                "SELECT sha256, height, width, bytes, etag, last_modified, checked_at FROM images WHERE url = ?",
                (key,),
            ).fetchone()
        if row is None:
            return None
        sha256, height, width, length, etag, last_modified, checked_at = row
        if checked_at > time.time():
            checked_at = 0.0  # by a clock that was ahead: when it was looked at is not known
        return _Known(sha256, (height, width), length, etag, last_modified, checked_at)

    def _key(self, url: str) -> str:
        """Two Label Studios may have different images under one path, and other bands are another picture."""
        whole = f"{self._settings.label_studio_url}{url}" if url.startswith("/") else url
        return f"{whole} bands {self._settings.bands}" if self._settings.bands else whole

    def _download(
        self, url: str, task_id: int | str | None, known: _Known | None, came: Callable[[int], None]
    ) -> tuple[bytes, _Headers] | None:
        """The file and its headers, None when it is still what is known."""
        conditions = {}
        if known is not None and known.etag:
            conditions["If-None-Match"] = known.etag
        elif known is not None and known.last_modified:
            conditions["If-Modified-Since"] = known.last_modified
        with self._downloads.open(url, task_id, conditions) as response:
            if response.status_code == 304:
                if known is None:
                    raise ImageError(f"{shown(url)} answered 304, although nobody asked whether it has changed")
                return None
            limit, seconds = self._settings.image_bytes, WHOLE * self._settings.fetch_timeout
            return read_body(response, limit, seconds, "PSLG_IMAGE_BYTES", came), response.headers


class FairLock:
    """One at a time, in the order in which they came."""

    def __init__(self) -> None:
        self._line: deque[object] = deque()
        self._condition = threading.Condition()

    def __enter__(self) -> None:
        mine = object()
        with self._condition:
            self._line.append(mine)
            self._condition.wait_for(lambda: self._line[0] is mine)

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._line.popleft()
            self._condition.notify_all()


class BytesInFlight:
    """Bytes of image files that are fetched and not decoded yet, all threads together. Thread-safe.

    Args:
        most: beyond so many a further image is refused; one alone may be larger.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._lock = threading.Lock()

    @contextmanager
    def account(self) -> Iterator[Callable[[int], None]]:
        """Gives what is to be called with the number of bytes that came; they count until the block ends.

        What it gives raises ImageError where the images of others leave no room.
        """
        mine = 0

        def came(count: int) -> None:
            nonlocal mine
            with self._lock:
                if self._held > mine and self._held + count > self._most:
                    raise ImageError(
                        f"images of {self._held} bytes are being fetched (PSLG_IMAGE_BYTES limits them together, too):"
                        " ask again later"
                    )
                self._held += count
                mine += count

        try:
            yield came
        finally:
            with self._lock:
                self._held -= mine


class DecodeMemory:
    """Memory for decoding images: who needs more than is free waits. Thread-safe.

    Args:
        most: bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._free = most
        self._condition = threading.Condition()
        self._line = FairLock()

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """While an image is decoded that takes ``size`` bytes.

        Raises:
            ImageError: it takes more than there is.
        """
        if size > self._most:
            raise ImageError(
                f"decoding the image takes {size / 1e6:.0f} MB, more than {self._most / 1e6:.0f} (PSLG_DECODE_MEMORY);"
                " cut it into tiles (pslg dataset tile), or save it with 8 bits and three bands"
            )
        with self._line, self._condition:  # in their order, so that small ones do not pass a large one for ever
            while self._free < size:
                self._condition.wait()
            self._free -= size
        try:
            yield
        finally:
            with self._condition:
                self._free += size
                self._condition.notify_all()

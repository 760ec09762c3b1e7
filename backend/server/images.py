"""Task images: from the URL in a task's data to pixels and a content hash.

Where they are and who gets the token: ``dataset_tools.label_studio.downloads``.
"""

from __future__ import annotations

import fnmatch
import hashlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import requests

from backend.bounded_cache import BoundedCache
from backend.database import Database
from backend.pipeline.types import Image
from backend.server.guarded_session import guarded_session
from backend.settings import Settings
from backend.state import image_file
from dataset_tools import atomic, image_files
from dataset_tools.errors import ImageError
from dataset_tools.label_studio.addresses import may_be_private, origin, shown
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.downloads import Downloads, read_body

__all__ = ["ImageIdentity", "TaskImages"]

_Headers = requests.structures.CaseInsensitiveDict[str]


@dataclass(frozen=True)
class ImageIdentity:
    """What is known of an image without its pixels.

    Attributes:
        sha256: of the file's bytes, hexadecimal.
        size: (height, width) in pixels as shown, orientation applied.
    """

    sha256: str
    size: tuple[int, int]


@dataclass(frozen=True)
class _Known:
    identity: ImageIdentity
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
        self._route = settings.route()
        self._downloads = Downloads(
            label_studio,
            base=settings.label_studio_url,
            timeout=settings.fetch_timeout,
            route=self._route,
            session=lambda: self._route.prepare(guarded_session(self._is_trusted)),
            require_allowed=self._require_allowed,
        )
        self._database = database
        self._pixels: BoundedCache[str, Image] = BoundedCache(settings.image_memory)
        self._locks = [threading.Lock() for _ in range(64)]

    def identify(self, url: str, task_id: int | str | None = None) -> ImageIdentity:
        """Hash and size of a task's image; fetched only when it is not known or not checked for a while.

        Raises:
            ImageError: it cannot be fetched or read; the message says what to change.
        """
        asked = time.time()
        identity = self._checked_since(url, asked - self._settings.revalidate_after)
        if identity is not None:
            return identity
        with self._fetching(url):
            # Many tasks of a batch have the same image: who waited here finds it fetched.
            return self._checked_since(url, asked) or self._fetch(url, task_id, self._known(url))

    def load(self, url: str, task_id: int | str | None = None) -> tuple[ImageIdentity, Image]:
        """A task's image: hash and size, and uint8[H, W, 3] RGB; raises ImageError like ``identify``."""
        identity = self.identify(url, task_id)
        image = self._pixels.get(identity.sha256)
        if image is None:
            with self._fetching(url):
                image = self._pixels.get(identity.sha256)
                if image is None:
                    identity, image = self._fetch_pixels(url, task_id)
        return identity, image

    def keep(self, url: str, task_id: int | str | None, folder: Path) -> tuple[ImageIdentity, Path]:
        """A task's image as a file ``<folder>/<2 hex>/<sha256>``, fetched unless it is there and still current.

        Raises:
            ImageError: it cannot be fetched or read; the message says what to change.
            OSError: the file cannot be written.
        """
        with self._fetching(url):
            known = self._known(url)
            if known is not None and not image_file(folder, known.identity.sha256).is_file():
                known = None
            if known is not None and known.checked_at >= time.time() - self._settings.revalidate_after:
                return known.identity, image_file(folder, known.identity.sha256)
            fetched = self._download(url, task_id, known)
            if fetched is None:
                assert known is not None  # noqa: S101 - only a known image can be unchanged
                return known.identity, image_file(folder, known.identity.sha256)
            identity, _ = self._remember(url, *fetched)
            path = image_file(folder, identity.sha256)
            if not path.is_file():
                atomic.write_bytes(path, fetched[0])
            return identity, path

    def _checked_since(self, url: str, moment: float) -> ImageIdentity | None:
        known = self._known(url)
        return known.identity if known is not None and known.checked_at >= moment else None

    def _fetching(self, url: str) -> threading.Lock:
        """Held while ``url`` is fetched, and now and then by another URL too."""
        return self._locks[hash(url) % len(self._locks)]

    def _fetch(self, url: str, task_id: int | str | None, known: _Known | None) -> ImageIdentity:
        fetched = self._download(url, task_id, known)
        if fetched is not None:
            return self._remember(url, *fetched)[0]
        assert known is not None  # noqa: S101 - only a known image can be unchanged
        with self._database.transaction() as connection:
            connection.execute("UPDATE images SET checked_at = ? WHERE url = ?", (time.time(), self._key(url)))
        return known.identity

    def _fetch_pixels(self, url: str, task_id: int | str | None) -> tuple[ImageIdentity, Image]:
        fetched = self._download(url, task_id, None)
        assert fetched is not None  # noqa: S101 - nothing is known that could be unchanged
        return self._remember(url, *fetched)

    def _remember(self, url: str, data: bytes, headers: _Headers) -> tuple[ImageIdentity, Image]:
        bands = self._settings.bands
        image = image_files.decode(
            data,
            max_pixels=self._settings.image_pixels,
            bands=image_files.parse_bands(bands) if bands else None,
            limit="PSLG_IMAGE_PIXELS",
            name=shown(url),
        )
        digest = hashlib.sha256(data)
        digest.update(f"bands {bands}".encode() if bands else b"")  # other bands are another picture
        identity = ImageIdentity(digest.hexdigest(), (image.shape[0], image.shape[1]))
        self._pixels.put(identity.sha256, image, image.nbytes)
        validators = (headers.get("ETag"), headers.get("Last-Modified"))
        row = (self._key(url), identity.sha256, *identity.size, len(data), *validators)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO images (url, sha256, height, width, bytes, etag, last_modified, checked_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, time.time()),
            )
        return identity, image

    def _known(self, url: str) -> _Known | None:
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT sha256, height, width, bytes, etag, last_modified, checked_at FROM images WHERE url = ?",
                (self._key(url),),
            ).fetchone()
        if row is None:
            return None
        sha256, height, width, length, etag, last_modified, checked_at = row
        return _Known(ImageIdentity(sha256, (height, width)), length, etag, last_modified, checked_at)

    def _key(self, url: str) -> str:
        """Two Label Studios may have different images under one path, and other bands are another picture."""
        whole = f"{self._settings.label_studio_url}{url}" if url.startswith("/") else url
        return f"{whole} bands {self._settings.bands}" if self._settings.bands else whole

    def _download(self, url: str, task_id: int | str | None, known: _Known | None) -> tuple[bytes, _Headers] | None:
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
            length = response.headers.get("Content-Length")
            if known is not None and not conditions and length == str(known.length):
                return None
            limit, seconds = self._settings.image_bytes, 5 * self._settings.fetch_timeout
            return read_body(response, limit, seconds, "PSLG_IMAGE_BYTES"), response.headers

    def _require_allowed(self, address: str) -> None:
        _, host, port = origin(address)
        allowed = self._settings.image_hosts
        if allowed and not self._downloads.is_label_studio(address) and not _matches(host, allowed):
            raise ImageError(f"images from {host} are not allowed; PSLG_IMAGE_HOSTS names {', '.join(allowed)}")
        # The guarded session looks at connected addresses; behind a proxy there is only the name.
        if self._route.proxies(address) and may_be_private(host) and not self._is_trusted(host, port):
            raise ImageError(
                f"{host} is a name or address of a local network, from which images are not fetched;"
                f" if it serves your images, add {host} to PSLG_IMAGE_HOSTS"
            )

    def _is_trusted(self, host: str, port: int) -> bool:
        base = self._settings.label_studio_url
        return _matches(host.lower(), self._settings.image_hosts) or (
            base is not None and origin(base)[1:] == (host.lower(), port)
        )


def _matches(host: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(host, pattern) for pattern in patterns)

"""Task images: from the URL in a task's data to pixels and a content hash.

Credentials go to Label Studio's own origin only and are dropped for good at the first redirect away from it.
"""

from __future__ import annotations

import fnmatch
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests

from backend.bounded_cache import BoundedCache
from backend.database import Database
from backend.errors import ImageError, LabelStudioError
from backend.learning.retraining.labelled_files import image_file
from backend.pipeline.types import Image
from backend.server.guarded_session import guarded_session
from backend.server.image_files import decode_image
from backend.server.label_studio import LabelStudio, detail, origin
from backend.settings import Settings
from dataset_tools import atomic

__all__ = ["EditorImage", "TaskImages"]

_Headers = requests.structures.CaseInsensitiveDict[str]
_REDIRECTS = 5
_CONNECT_TIMEOUT = 5.0
_STORAGE_SCHEMES = ("s3", "gs", "azure-blob", "azure_spi")


@dataclass(frozen=True)
class EditorImage:
    """A task's image as it was when it was last looked at; its pixels are fetched when somebody wants them.

    Attributes:
        identity: sha256 of the file's bytes, hexadecimal: names the content in every cache, so that no pixels are
            hashed.
        size: (height, width) in pixels as shown, orientation applied.
    """

    identity: str
    size: tuple[int, int]
    _pixels: Callable[[], Image] = field(repr=False, compare=False)

    def pixels(self) -> Image:
        """uint8[H, W, 3] RGB.

        Raises:
            ImageError: it cannot be fetched any more, or its URL holds another image by now.
        """
        return self._pixels()


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
        self._label_studio = label_studio
        self._database = database
        self._pixels: BoundedCache[str, Image] = BoundedCache(settings.image_memory)
        self._locks = [threading.Lock() for _ in range(64)]
        self._local = threading.local()

    def load(self, url: str, task_id: int | str | None = None) -> EditorImage:
        """A task's image; fetched only when it is not known or not checked for a while.

        Raises:
            ImageError: it cannot be fetched or read; the message says what to change.
        """
        asked = time.time()
        known = self._checked_since(url, asked - self._settings.revalidate_after)
        if known is None:
            with self._fetching(url):
                # Many tasks of a batch have the same image: who waited here finds it fetched.
                known = self._checked_since(url, asked) or self._fetch(url, task_id, self._known(url))
        return self._image(url, task_id, known)

    def keep(self, url: str, task_id: int | str | None, folder: Path) -> tuple[EditorImage, Path]:
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
                fetched = self._download(url, task_id, known)
                if fetched is not None:
                    known, _ = self._remember(url, *fetched)
                    path = image_file(folder, known.identity)
                    if not path.is_file():
                        atomic.write_bytes(path, fetched[0])
            assert known is not None  # noqa: S101 - only a known image can be unchanged
        return self._image(url, task_id, known), image_file(folder, known.identity)

    def _image(self, url: str, task_id: int | str | None, known: _Known) -> EditorImage:
        return EditorImage(known.identity, known.size, partial(self._pixels_of, url, task_id, known.identity))

    def _pixels_of(self, url: str, task_id: int | str | None, identity: str) -> Image:
        image = self._pixels.get(identity)
        if image is None:
            with self._fetching(url):
                image = self._pixels.get(identity)
                if image is None:
                    fetched = self._download(url, task_id, None)
                    assert fetched is not None  # noqa: S101 - nothing is known that could be unchanged
                    now, image = self._remember(url, *fetched)
                    if now.identity != identity:
                        raise ImageError(f"{_shown(url)} holds another image than a moment ago; ask again")
        return image

    def _checked_since(self, url: str, moment: float) -> _Known | None:
        known = self._known(url)
        return known if known is not None and known.checked_at >= moment else None

    def _fetching(self, url: str) -> threading.Lock:
        """Held while ``url`` is fetched, and now and then by another URL too."""
        return self._locks[hash(url) % len(self._locks)]

    def _fetch(self, url: str, task_id: int | str | None, known: _Known | None) -> _Known:
        fetched = self._download(url, task_id, known)
        if fetched is not None:
            return self._remember(url, *fetched)[0]
        assert known is not None  # noqa: S101 - only a known image can be unchanged
        with self._database.transaction() as connection:
            connection.execute("UPDATE images SET checked_at = ? WHERE url = ?", (time.time(), self._key(url)))
        return known

    def _remember(self, url: str, data: bytes, headers: _Headers) -> tuple[_Known, Image]:
        image = decode_image(data, self._settings.image_pixels)
        identity, size = hashlib.sha256(data).hexdigest(), (image.shape[0], image.shape[1])
        self._pixels.put(identity, image, image.nbytes)
        known = _Known(identity, size, len(data), headers.get("ETag"), headers.get("Last-Modified"), time.time())
        row = (self._key(url), identity, *size, known.length, known.etag, known.last_modified, known.checked_at)
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        return known, image

    def _known(self, url: str) -> _Known | None:
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT sha256, height, width, bytes, etag, last_modified, checked_at FROM images WHERE url = ?",
                (self._key(url),),
            ).fetchone()
        if row is None:
            return None
        sha256, height, width, length, etag, last_modified, checked_at = row
        return _Known(sha256, (height, width), length, etag, last_modified, checked_at)

    def _key(self, url: str) -> str:
        """Two Label Studios may have different images under one path."""
        return f"{self._settings.label_studio_url}{url}" if url.startswith("/") else url

    def _location(self, url: str, task_id: int | str | None) -> str:
        """The http(s) URL to fetch for what stands in a task's data."""
        base = self._settings.label_studio_url
        scheme = urlsplit(url).scheme.lower()
        if scheme in ("http", "https"):
            return url
        if scheme in _STORAGE_SCHEMES:
            if self._label_studio is None or task_id is None:
                raise ImageError(
                    f"{url} is fetched through Label Studio, which needs LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"
                    " and a task that is stored there"
                )
            return self._label_studio.presigned(task_id, url)
        if scheme or not url.startswith("/"):
            raise ImageError(f"the image {url!r:.200} is neither a path of Label Studio (/data/...) nor a http(s) URL")
        if base is None:
            raise ImageError(f"{url} lies in Label Studio: set LABEL_STUDIO_URL (and LABEL_STUDIO_API_KEY)")
        if self._label_studio is None and url.startswith("/data/"):
            raise ImageError(f"{url} needs a token of Label Studio at {base}: set LABEL_STUDIO_API_KEY")
        return base + url

    def _download(self, url: str, task_id: int | str | None, known: _Known | None) -> tuple[bytes, _Headers] | None:
        """The file and its headers, None when it is still what is known."""
        location = self._location(url, task_id)
        conditions = {}
        if known is not None and known.etag:
            conditions["If-None-Match"] = known.etag
        elif known is not None and known.last_modified:
            conditions["If-Modified-Since"] = known.last_modified
        with_credentials = self._label_studio is not None and self._label_studio.owns(location)
        renewed = False
        for _ in range(_REDIRECTS + 1):
            self._require_allowed(location)
            try:
                credentials = (
                    self._label_studio.headers(renew=renewed) if with_credentials and self._label_studio else {}
                )
                response = self._session().get(
                    location,
                    headers={**conditions, **credentials},
                    timeout=(_CONNECT_TIMEOUT, self._settings.fetch_timeout),
                    allow_redirects=False,
                    stream=True,
                )
            except requests.RequestException as error:
                raise ImageError(f"{_shown(location)} cannot be reached ({type(error).__name__})") from error
            except LabelStudioError as error:
                raise ImageError(str(error)) from error
            with response:
                if response.is_redirect:
                    location = urljoin(location, response.headers["Location"])
                    owned = self._label_studio is not None and self._label_studio.owns(location)
                    with_credentials = with_credentials and owned
                    continue
                renewable = self._label_studio is not None and self._label_studio.kind == "personal"
                if response.status_code == 401 and with_credentials and renewable and not renewed:
                    renewed = True
                    continue
                if response.status_code == 304 and known is not None:
                    return None
                self._require_ok(response, location, with_credentials)
                length = response.headers.get("Content-Length")
                if known is not None and not conditions and length == str(known.length):
                    return None
                return self._body(response, location), response.headers
        raise ImageError(f"{_shown(url)} redirects more than {_REDIRECTS} times")

    def _body(self, response: requests.Response, location: str) -> bytes:
        limit, until = self._settings.image_bytes, time.monotonic() + 5 * self._settings.fetch_timeout
        announced = int(response.headers.get("Content-Length") or 0)
        parts: list[bytes] = []
        size = 0
        try:
            for part in response.iter_content(1 << 18) if announced <= limit else ():
                parts.append(part)
                size += len(part)
                if size > limit:
                    break
                if time.monotonic() > until:
                    raise ImageError(
                        f"{_shown(location)} is too slow: {size} bytes in {5 * self._settings.fetch_timeout} s"
                    )
        except requests.RequestException as error:
            raise ImageError(f"{_shown(location)} broke off after {size} bytes ({type(error).__name__})") from error
        if max(announced, size) > limit:
            raise ImageError(
                f"{_shown(location)} has {max(announced, size)} bytes or more, the limit is {limit} (PSLG_IMAGE_BYTES)"
            )
        return b"".join(parts)

    def _require_ok(self, response: requests.Response, location: str, with_credentials: bool) -> None:
        if response.ok:
            return
        if response.status_code == 401 and with_credentials and self._label_studio is not None:
            raise ImageError(self._label_studio.refusal(urlsplit(location).path, response))
        reason = f"{_shown(location)} answered {response.status_code} {detail(response)}".rstrip()
        if response.status_code == 401:
            reason += "; no credentials were sent: they go to LABEL_STUDIO_URL only, which must have the same host"
        if response.status_code == 404 and "/data/local-files/" in location:
            reason += "; the path must lie in a Local Files storage of the project"
        raise ImageError(reason)

    def _require_allowed(self, location: str) -> None:
        scheme, host, _ = origin(location)
        if scheme not in ("http", "https"):
            raise ImageError(f"redirected to {scheme}:, which is not fetched")
        allowed = self._settings.image_hosts
        if allowed and not self._is_label_studio(location) and not _matches(host, allowed):
            raise ImageError(f"images from {host} are not allowed; PSLG_IMAGE_HOSTS names {', '.join(allowed)}")

    def _is_label_studio(self, location: str) -> bool:
        base = self._settings.label_studio_url
        return base is not None and origin(location) == origin(base)

    def _is_trusted(self, host: str, port: int) -> bool:
        base = self._settings.label_studio_url
        return _matches(host.lower(), self._settings.image_hosts) or (
            base is not None and origin(base)[1:] == (host.lower(), port)
        )

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = guarded_session(self._is_trusted)
        return session


def _matches(host: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(host, pattern) for pattern in patterns)


def _shown(url: str) -> str:
    """A URL for messages: without the query, which may be a signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}" if parts.netloc else parts.path

"""A map file behind an http(s) address, read by ranges: of a cloud-optimised GeoTIFF only what is looked at is fetched.

GDAL's own network code is not used: every request goes through the guard that images of tasks go through
(``dataset_tools.label_studio.hosts``), its redirects too.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from dataset_tools.errors import DatasetError, ImageError
from dataset_tools.label_studio.addresses import Route, shown
from dataset_tools.label_studio.downloads import WHOLE, Downloads, read_body
from dataset_tools.label_studio.hosts import HostRules

__all__ = ["RangeFile", "RemoteFile", "is_address", "name_of", "remote_file"]

_CHUNK = 1 << 18
_KEPT = 128
"""Chunks in memory: 32 MB."""
_MOST = 32
"""Chunks that one request asks for."""
_TRIES = 3
_TIMEOUT = 20.0
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def is_address(source: object) -> bool:
    """Whether ``source`` is an http(s) address, not a path."""
    return isinstance(source, str) and bool(re.match(r"https?://", source, re.IGNORECASE))


def name_of(address: str) -> str:
    """The file name at the end of an address."""
    return PurePosixPath(unquote(urlsplit(address).path)).name


class RemoteFile:
    """The bytes of a file behind an address, the newest chunks in memory.

    GDAL calls for them where an exception would be lost: ``failure`` keeps the first one, and no bytes come then.

    Args:
        address: of the file.
        downloads: that fetches it.

    Attributes:
        name: of the file, the end of its address.
        shown: the address for messages, without what may be secret in it.
        size: of the file in bytes.
        failure: why bytes could not be had; None as long as they could.

    Raises:
        ImageError: it cannot be had by ranges.
    """

    def __init__(self, address: str, downloads: Downloads) -> None:
        self.failure: ImageError | None = None
        self.name, self.shown = name_of(address), shown(address)
        self.size = 0
        self._address = address
        self._downloads = downloads
        self._version: tuple[str | None, int] | None = None
        self._chunks: OrderedDict[int, bytes] = OrderedDict()
        self._fetch(0, 1)  # which says how large the file is

    def part(self, start: int, stop: int) -> bytes:
        """Bytes from ``start`` to before ``stop``, fewer at the end of the file, none after a failure."""
        stop = min(stop, self.size)
        if self.failure is not None or start >= stop:
            return b""
        first, last = start // _CHUNK, (stop - 1) // _CHUNK
        try:
            found = b"".join(self._chunk(number, last) for number in range(first, last + 1))
        except ImageError as error:
            self.failure = error
            return b""
        return found[start - first * _CHUNK : stop - first * _CHUNK]

    def _chunk(self, number: int, last: int) -> bytes:
        """Chunk ``number``, fetched together with those up to ``last`` that are not there either."""
        if number not in self._chunks:
            until = number + 1
            while until <= last and until - number < _MOST and until not in self._chunks:
                until += 1
            body = self._fetch(number * _CHUNK, min(until * _CHUNK, self.size))
            for k in range(number, until):
                self._chunks[k] = body[(k - number) * _CHUNK : (k - number + 1) * _CHUNK]
        self._chunks.move_to_end(number)
        found = self._chunks[number]
        while len(self._chunks) > _KEPT:
            self._chunks.popitem(last=False)
        return found

    def _fetch(self, start: int, stop: int) -> bytes:
        for attempt in range(_TRIES):
            try:
                return self._fetch_once(start, stop)
            except ImageError as error:
                # Servers drop a connection now and then; what they answer in words stays so.
                if attempt == _TRIES - 1 or "broke off" not in str(error):
                    raise
        raise AssertionError("unreachable")  # pragma: no cover

    def _fetch_once(self, start: int, stop: int) -> bytes:
        where = self.shown
        # Without the second, a server may send the bytes compressed, where ranges mean something else.
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        with self._downloads.open(self._address, headers=headers) as response:
            told = _RANGE.fullmatch(response.headers.get("Content-Range") or "")
            if response.status_code != 206 or told is None:
                raise ImageError(
                    f"{where} cannot be read by ranges (its server answered {response.status_code}): download it first"
                )
            first, last, size = (int(number) for number in told.groups())
            version = response.headers.get("ETag") or response.headers.get("Last-Modified"), size
            if self._version is not None and version != self._version:
                raise ImageError(f"{where} has changed while it was read; start again")
            if first != start or last != min(stop, size) - 1:
                raise ImageError(f"{where} answers bytes {first} to {last} when asked for {start} to {stop - 1}")
            body = read_body(response, stop - start, WHOLE * _TIMEOUT, "the range that was asked for")
        if len(body) != last - first + 1:
            raise ImageError(f"{where} broke off: {len(body)} of {last - first + 1} bytes from {start} on came")
        self._version, self.size = version, size
        return body


class RangeFile:
    """A file object over a ``RemoteFile``, as GDAL wants several of one file; as a context manager, too."""

    def __init__(self, remote: RemoteFile) -> None:
        self._remote = remote
        self._place = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move; as of any file object."""
        self._place = offset + (0, self._place, self._remote.size)[whence]
        return self._place

    def tell(self) -> int:
        """The place in bytes."""
        return self._place

    def read(self, count: int = -1) -> bytes:
        """The next ``count`` bytes, all that follow if it is negative; see ``RemoteFile.part``."""
        found = self._remote.part(self._place, self._place + count if count >= 0 else self._remote.size)
        self._place += len(found)
        return found

    def close(self) -> None:
        """Nothing to close: a connection lives for one request."""

    def __enter__(self) -> RangeFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def remote_file(address: str) -> RemoteFile:
    """The file at ``address``, by the rules of the environment (``PSLG_IMAGE_HOSTS``, ``PSLG_PROXY``...).

    Raises:
        DatasetError: it cannot be had; the message says what to change.
    """
    try:
        route = Route.from_environment()
        rules = HostRules.from_environment(route)
        downloads = Downloads(
            None, timeout=_TIMEOUT, route=route, session=rules.session, require_allowed=rules.require_allowed
        )
        return RemoteFile(address, downloads)
    except (ImageError, ValueError) as error:
        raise DatasetError(str(error)) from error

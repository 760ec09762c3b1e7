"""Files that tasks name: from what stands in a task's data to the bytes, with the token where it may go.

The token goes to Label Studio's own files and to the addresses that it is asked to presign. It is dropped for good at
the first redirect to anything else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

import requests

from dataset_tools.errors import ImageError, LabelStudioError
from dataset_tools.label_studio.addresses import (
    OWN_AUTHORITY,
    Route,
    base_address,
    checked,
    has_odd_characters,
    is_under,
    joined,
    shown,
)
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.connection import CONNECT_TIMEOUT, detail
from dataset_tools.label_studio.deadlines import whole

__all__ = ["STORAGE_SCHEMES", "WHOLE", "Downloads", "read_body"]

STORAGE_SCHEMES = ("s3", "gs", "azure-blob", "azure_spi")
_REDIRECTS = 5
WHOLE = 3.0
"""A whole download, redirects and all, may take so many times the seconds that may pass without a byte."""


class Downloads:
    """Opens the files of tasks. Thread-safe.

    Args:
        studio: Label Studio and a token for it; None without credentials.
        base: Label Studio's address where there are no credentials.
        timeout: seconds without a byte after which a download fails; a whole one may take ``WHOLE`` times as long.
        route: how hosts are reached.
        session: makes the session of a thread; None: a plain one of ``route``.
        require_allowed: called with every address before it is asked; raises ImageError for one that must not be.
    """

    def __init__(
        self,
        studio: LabelStudio | None,
        *,
        base: str | None = None,
        timeout: float = 20.0,
        route: Route | None = None,
        session: Callable[[], requests.Session] | None = None,
        require_allowed: Callable[[str], None] = lambda _address: None,
    ) -> None:
        self._studio = studio
        self._base = studio.url if studio is not None else None if base is None else base_address(base)
        self._timeout = (CONNECT_TIMEOUT, timeout)
        self._route = route or (studio.route if studio is not None else Route())
        self._new_session = session or self._route.session
        self._require_allowed = require_allowed
        self._local = threading.local()

    def address(self, url: str, task_id: int | str | None = None) -> str:
        """The http(s) address to ask for what stands in a task's data.

        Raises:
            ImageError: there is none; the message says why, and what to change.
        """
        try:
            scheme = urlsplit(url).scheme.lower() if "://" in url[:20] else ""
        except ValueError as error:
            raise ImageError(f"the image {shown(url)!r} has no address that can be read: {error}") from None
        if has_odd_characters(url):
            raise ImageError(f"the image {shown(url)!r} has a backslash or a control character in its address")
        if scheme in STORAGE_SCHEMES:
            if self._studio is None or task_id is None:
                raise ImageError(
                    f"{url} is fetched through Label Studio, which needs LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"
                    " and a task that is stored there"
                )
            try:
                return self._studio.presigned(task_id, url)
            except LabelStudioError as error:
                raise ImageError(f"{shown(url)}: {error}") from error
        if not scheme and (not url.startswith("/") or url.startswith("//")):
            raise ImageError(
                f"the image {shown(url)!r} is neither a path of Label Studio (/data/...) nor a http(s) URL"
            )
        try:
            return checked(url if scheme else self._own(url))
        except ValueError as error:
            raise ImageError(str(error)) from None

    def _own(self, path: str) -> str:
        """The address of a path of Label Studio, which writes its own prefix (``/ls``) in front of some."""
        if self._base is None:
            raise ImageError(f"{path} lies in Label Studio: set LABEL_STUDIO_URL (and LABEL_STUDIO_API_KEY)")
        prefix = urlsplit(self._base).path
        base = self._base.removesuffix(prefix) if prefix and path.startswith(f"{prefix}/") else self._base
        if self._studio is None and is_under(checked(base + path), self._base, ("/data/", "/storage-data/")):
            raise ImageError(f"{path} needs a token of Label Studio at {self._base}: set LABEL_STUDIO_API_KEY")
        return base + path

    @contextmanager
    def open(
        self, url: str, task_id: int | str | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[requests.Response]:
        """What stands in a task's data as a response whose body is not read yet: status 2xx, or 304 to conditions.

        Args:
            url: an http(s) URL, a path of Label Studio, or a storage's URI (``s3://``), which Label Studio presigns.
            task_id: the task's id in Label Studio.
            headers: sent along, e.g. ``If-None-Match``.

        Raises:
            ImageError: it cannot be had; the message says what to change.
        """
        seconds = WHOLE * self._timeout[1]
        slow = f"{shown(url)} is too slow: not there after {seconds:g} s"
        with whole(seconds) as deadline:
            try:
                with self._follow(url, task_id, headers or {}) as response:
                    yield response
            except ImageError as error:
                if deadline.passed:
                    raise ImageError(slow) from error
                raise
            if deadline.passed:  # an answer that was cut may look like a short one
                raise ImageError(slow)

    def _follow(self, url: str, task_id: int | str | None, headers: Mapping[str, str]) -> requests.Response:
        address = self.address(url, task_id)
        presigned = "://" in url and urlsplit(url).scheme.lower() in STORAGE_SCHEMES
        trusted = self._studio is not None and (presigned or self._studio.may_have_token(address))
        renewed = False
        for _ in range(_REDIRECTS + 1):
            self._require_allowed(address)
            response = self._ask(address, headers, with_token=trusted, renew=renewed)
            if response.is_redirect:
                with response:
                    address = self._redirected(response, address)
                trusted = trusted and self._studio is not None and self._studio.may_have_token(address)
                continue
            renewable = self._studio is not None and self._studio.kind == "personal"
            if response.status_code == 401 and trusted and renewable and not renewed:
                response.close()
                renewed = True
                continue
            if not response.ok:
                with response:
                    raise ImageError(self._reason(response, address, trusted))
            return response
        raise ImageError(f"{shown(url)} redirects more than {_REDIRECTS} times")

    def _ask(self, address: str, headers: Mapping[str, str], *, with_token: bool, renew: bool) -> requests.Response:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = self._new_session()
        try:
            credentials = self._studio.headers(renew=renew) if with_token and self._studio is not None else {}
            return session.get(
                address,
                headers={**headers, **credentials},
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
                proxies=self._route.proxies(address),
            )
        except requests.exceptions.SSLError as error:
            # Without the error's own words: they hold the address with its query, which may be a signature.
            raise ImageError(f"{shown(address)} shows a certificate that is not trusted; {OWN_AUTHORITY}") from error
        except requests.RequestException as error:
            raise ImageError(f"{shown(address)} cannot be reached ({type(error).__name__})") from error
        except LabelStudioError as error:
            raise ImageError(str(error)) from error

    def _redirected(self, response: requests.Response, address: str) -> str:
        try:
            return joined(address, response.headers["Location"].encode("latin-1").decode())
        except ValueError as error:  # of the address, or of its text
            raise ImageError(f"{shown(address)}: {error}") from None

    def _reason(self, response: requests.Response, address: str, trusted: bool) -> str:
        if response.status_code == 401 and trusted and self._studio is not None:
            return self._studio.refusal(urlsplit(address).path, response)
        reason = f"{shown(address)} answered {response.status_code} {detail(response)}".rstrip()
        if response.status_code == 401:
            reason += (
                "; no credentials were sent: they go to /data/ and /storage-data/ of LABEL_STUDIO_URL only, which must"
                " have the same host"
            )
        if response.status_code == 404 and "/data/local-files/" in address:
            reason += "; the path must lie in a Local Files storage of the project"
        return reason


def read_body(
    response: requests.Response,
    limit: int,
    seconds: float,
    setting: str,
    came: Callable[[int], None] = lambda _: None,
) -> bytes:
    """The body of a response that was opened with ``Downloads.open``.

    Args:
        response: open, its body not read yet.
        limit: largest body in bytes.
        seconds: longest time for reading it.
        setting: what sets ``limit``, for the message.
        came: called with the number of bytes of each part; may raise ImageError.

    Raises:
        ImageError: it is too large, too slow, or breaks off.
    """
    location = shown(str(response.url))
    announced = response.headers.get("Content-Length") or ""
    size = int(announced) if announced.isascii() and announced.isdecimal() else 0
    parts = bytearray()
    until = time.monotonic() + seconds
    try:
        for part in response.iter_content(1 << 18) if size <= limit else ():
            came(len(part))
            parts += part
            if len(parts) > limit:
                break
            if time.monotonic() > until:
                raise ImageError(f"{location} is too slow: {len(parts)} bytes in {seconds:g} s")
    except (requests.RequestException, OSError) as error:
        raise ImageError(f"{location} broke off after {len(parts)} bytes ({type(error).__name__})") from error
    largest = max(size, len(parts))
    if largest > limit:
        raise ImageError(f"{location} has {largest} bytes or more, the limit is {limit} ({setting})")
    return bytes(parts)

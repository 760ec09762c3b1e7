"""Fetching weight files: resumable, verified, and clear about what to do where there is no network.

A file grows as ``<file>.part`` and gets its name only when its size and hash are right. Proxies are taken from the
usual environment variables (``HTTPS_PROXY`` and so on).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import requests

from backend.pipeline.weights.records import record, sha256_of
from backend.pipeline.weights.registry import WeightEntry, how_to_get
from dataset_tools.errors import WeightsError

__all__ = ["download"]

_BLOCK = 1 << 16  # what a broken connection can cost
_TIMEOUT_S = (10, 60)
_ATTEMPTS = 3
"""Connections per call: each goes on where the last one broke."""

Progress = Callable[[int, int | None], object]
"""Called with the bytes there are so far and the total, None if the server does not tell."""


def download(entry: WeightEntry, progress: Progress = lambda _done, _total: None) -> Path:
    """Fetch ``entry`` to its place, unless it is there; returns the path.

    Raises:
        WeightsError: shipped or hand-placed weights, no network, a refusal by the server, or a file that is not the
            recorded one. A broken transfer leaves the part fetched so far for the next call.
    """
    target = entry.path
    if target.exists():
        return target
    if entry.hub is not None:
        return _download_from_hub(entry, entry.hub)
    if entry.url is None:
        raise WeightsError(f"{entry.name} cannot be downloaded: {how_to_get(entry.name)}; its place is {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _fetch(entry.url, part, entry.size, progress)
            break
        except requests.RequestException as error:
            if attempt == _ATTEMPTS:
                raise WeightsError(
                    f"cannot download {entry.name} from {entry.url}: {_reason(error)}. Without a network (or behind a"
                    f" proxy not named in HTTPS_PROXY) fetch that file elsewhere and place it at {target}"
                ) from error
    _check(entry, part)
    part.replace(target)
    record(target)
    return target


def _fetch(url: str, part: Path, expected: int | None, progress: Progress) -> None:
    """Append to ``part`` what is missing of ``url``; whole from the start where the server cannot resume."""
    have = part.stat().st_size if part.exists() else 0
    if expected is not None and have == expected:
        return
    if expected is not None and have > expected:
        have = 0
    headers = {"Accept-Encoding": "identity"}  # a compressed stream could not be resumed by its byte count
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            if _total(response) == have:
                return
            part.unlink()
            raise requests.ConnectionError("the partial file did not fit the one on the server; starting again")
        if response.status_code >= 400:
            raise WeightsError(f"{url} answered {response.status_code} {response.reason}; nothing was downloaded")
        resumed = response.status_code == requests.codes.partial_content
        total = _total(response)
        with part.open("ab" if resumed else "wb") as stream:
            for block in response.iter_content(_BLOCK):
                stream.write(block)
                progress(stream.tell(), total or expected)
        if total is not None and part.stat().st_size < total:
            raise requests.ConnectionError(f"the connection closed after {part.stat().st_size} of {total} bytes")


def _total(response: requests.Response) -> int | None:
    """Bytes of the whole file, as the answer tells: ``Content-Range: bytes 5-9/10`` or ``Content-Length``."""
    if match := re.search(r"/(\d+)$", response.headers.get("Content-Range", "")):
        return int(match[1])
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _check(entry: WeightEntry, part: Path) -> None:
    if entry.sha256 is None:
        if entry.size is not None and part.stat().st_size != entry.size:
            found = part.stat().st_size
            part.unlink()
            raise WeightsError(f"{entry.url} gave {found} bytes, {entry.name} has {entry.size}; the file was removed")
        return
    found_hash = sha256_of(part)
    if found_hash != entry.sha256:
        part.unlink()
        raise WeightsError(
            f"what came from {entry.url} is not {entry.name}: its sha256 is {found_hash}, recorded is {entry.sha256}."
            " The file was removed; try again, and if it happens again ask whoever runs your proxy"
        )


def _download_from_hub(entry: WeightEntry, repository: str) -> Path:
    from huggingface_hub import snapshot_download

    part = entry.path.with_name(entry.path.name + ".part")
    try:
        # The newest revision, of data files alone; what came is hashed and recorded, and stays as it is.
        snapshot_download(  # nosec B615 # no code: JSON and safetensors
            repository, local_dir=part, allow_patterns=["*.json", "*.txt", "*.safetensors"]
        )
    except Exception as error:  # the hub's client raises errors of several packages
        raise WeightsError(
            f"cannot download {entry.name} from huggingface.co/{repository}: {_reason(error)}. "
            f"{f'It is gated: {entry.gated}. ' if entry.gated else ''}Without a network fetch"
            f" that repository elsewhere and place its files in {entry.path}"
        ) from error
    shutil.rmtree(part / ".cache", ignore_errors=True)  # the hub's notes for resuming are no part of the model
    part.replace(entry.path)
    record(entry.path)
    return entry.path


def _reason(error: BaseException) -> str:
    """The innermost cause: requests wraps urllib3's wrapping of the socket's error."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return f"{type(error).__name__}: {error}"[:300]

"""What an operator has to mend and the machine itself can tell, without a call over the network.

`pslg doctor` prints it, and the page at ``/`` shows it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from backend.database import Database
from backend.learning.retraining.replay import check_replay
from backend.server.access import Access, is_loopback
from backend.settings import Settings, is_dotless
from dataset_tools.errors import PslgError

__all__ = ["Check", "local_checks"]

_LEAST_FREE = 1_000_000_000
"""Bytes below which the disk of the state folder is said to be nearly full."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: in order, worth knowing, or to be mended."""

    level: Literal["ok", "note", "problem"]
    text: str


def local_checks(settings: Settings, embedding_bytes: int | None = None) -> Iterator[Check]:
    """What these settings, the state folder and its disk have to say.

    Args:
        settings: of the server.
        embedding_bytes: held on disk; None: they are counted, which takes a while where there are many.
    """
    state = _state_folder(settings.state_dir)
    yield state
    if state.level != "problem":
        yield from _disk(settings, embedding_bytes)
        for check in (partial(Database.check, settings.state.database), partial(check_replay, settings.train_replay)):
            try:
                check()
            except PslgError as error:
                yield Check("problem", str(error))
    yield from _access(settings)
    if settings.label_studio_url is None:
        yield Check("note", "LABEL_STUDIO_URL is not set: images in Label Studio (/data/...) cannot be fetched")
    elif settings.label_studio_api_key is None:
        yield Check("problem", "LABEL_STUDIO_API_KEY is not set: a personal access token or a legacy token is needed")


def _state_folder(folder: Path) -> Check:
    """Whether files can be written where the state is, or is to be."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return Check("problem", f"state folder {folder} (PSLG_STATE_DIR): impossible, {place} is a file")
    probe = place / f".pslg-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        probe.write_bytes(b"x" * 65536)
    except OSError as error:
        why = {
            errno.EROFS: "its file system is read-only: mount it for writing",
            errno.ENOSPC: "its disk is full: free space, webhooks are refused until then",
            errno.EDQUOT: "the quota of this user is used up: free space, webhooks are refused until then",
            errno.EACCES: f"this user ({os.geteuid()}) may not write in {place}: give it the folder",
            errno.EPERM: f"this user ({os.geteuid()}) may not write in {place}: give it the folder",
        }.get(error.errno or 0, f"nothing can be written in {place}: {error.strerror}")
        return Check("problem", f"state folder {folder} (PSLG_STATE_DIR): {why}")
    finally:
        with contextlib.suppress(OSError):  # where nothing could be written, nothing is there
            probe.unlink(missing_ok=True)
    return Check("ok", f"settings; state in {folder}")


def _disk(settings: Settings, embedding_bytes: int | None) -> Iterator[Check]:
    place = settings.state_dir
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < _LEAST_FREE:
        yield Check("problem", f"the disk of {settings.state_dir} has {free / 1e6:,.0f} MB left: free space")
        return
    if embedding_bytes is None:
        embedding_bytes = sum(file.stat().st_size for file in settings.state.embeddings.glob("*/*") if file.is_file())
    wanted = max(0, settings.embedding_disk - embedding_bytes)
    if free < wanted:
        yield Check(
            "note",
            f"the disk of {settings.state_dir} has {free / 1e9:,.1f} GB left, embeddings may grow by"
            f" {wanted / 1e9:,.1f} GB: set PSLG_EMBEDDING_DISK lower",
        )


def _access(settings: Settings) -> Iterator[Check]:
    access = Access(settings)
    if access.is_open and not is_loopback(settings.host):
        yield Check("note", f"anyone who reaches {settings.host}:{settings.port} can use the server (--allow-anyone)")
    if not access.takes_training:
        yield Check(
            "note",
            "Start Training is refused: it needs PSLG_BASIC_AUTH_USER and PSLG_BASIC_AUTH_PASSWORD"
            " (or `pslg train project`)",
        )
    if is_dotless(settings.host):
        yield Check(
            "note", f"{settings.host!r} has no dot: Label Studio connects but registers no webhook for such a URL"
        )

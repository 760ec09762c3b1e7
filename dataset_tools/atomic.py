"""Files that are either whole or absent: written beside their place, flushed to disk, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def open_bytes(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the name ``path`` only when the block ends without an exception.

    Missing parent folders are created. A reader sees the old content or the new one, never a part, also after a
    power cut (the file is flushed before the rename).

    Raises:
        OSError: the folder cannot be written or the disk is full; ``path`` is then as it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that no reader ever sees a part of it; see :func:`open_bytes`."""
    with open_bytes(path) as file:
        file.write(data)


def write_text(path: str | Path, data: str) -> None:
    """Write ``data`` as UTF-8 to ``path``; see :func:`open_bytes`."""
    write_bytes(path, data.encode("utf-8"))

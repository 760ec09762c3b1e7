"""Recorded sha256 of weight files: each is hashed once, and again only when its size or modification time changes.

The record is ``<file>.sha256.json`` beside the file, or, where that folder cannot be written, in ``records/`` of the
weights folder. Records of shipped files are committed with them and carry no time, since a checkout sets its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from backend.pipeline.weights.folders import SHIPPED_FOLDER, weights_folder
from dataset_tools import atomic

__all__ = ["RECORD_SUFFIX", "FileRecord", "read_record", "record", "recorded_sha256", "sha256_of"]

RECORD_SUFFIX = ".sha256.json"
"""What the name of a record has after the name of the file that it is about."""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class FileRecord:
    """What is known of a file or folder: its sha256, bytes, and modification time in ns if it counts."""

    sha256: str
    size: int
    mtime_ns: int | None


def sha256_of(path: Path, progress: Callable[[int], object] = lambda _: None) -> str:
    """The sha256 of a file, or of a folder: over the names and hashes of its files, in order of their names.

    Args:
        path: file or folder.
        progress: called with the number of bytes read since the last call.
    """
    if path.is_dir():
        digest = hashlib.sha256()
        for file in _files(path):
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file, progress)}\n".encode())
        return digest.hexdigest()
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            progress(len(block))
    return digest.hexdigest()


def recorded_sha256(path: Path) -> str | None:
    """The recorded hash, None without a record or when the file is no longer the one recorded."""
    found = read_record(path)
    if found is None:
        return None
    size, mtime_ns = _size_and_time(path)
    return found.sha256 if found.size == size and found.mtime_ns in (None, mtime_ns) else None


def read_record(path: Path) -> FileRecord | None:
    """The record of ``path`` as it was written, whether or not the file has changed since; None without one."""
    for place in (_beside(path), _in_weights_folder(path)):
        try:
            return FileRecord(**json.loads(place.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
    return None


def record(path: Path, *, progress: Callable[[int], object] = lambda _: None) -> str:
    """Hash ``path``, write its record, return the hash."""
    size, mtime_ns = _size_and_time(path)
    shipped = path.resolve().is_relative_to(SHIPPED_FOLDER)
    entry = FileRecord(sha256_of(path, progress), size, None if shipped else mtime_ns)
    text = json.dumps(asdict(entry), indent=1) + "\n"
    try:
        atomic.write_text(_beside(path), text)
    except OSError:  # a read-only mount: weights are often shared that way
        fallback = _in_weights_folder(path)
        fallback.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(fallback, text)
    return entry.sha256


def _beside(path: Path) -> Path:
    return path.with_name(path.name + RECORD_SUFFIX)


def _in_weights_folder(path: Path) -> Path:
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return weights_folder() / "records" / f"{name}.json"


def _size_and_time(path: Path) -> tuple[int, int]:
    stats = [file.stat() for file in (_files(path) if path.is_dir() else [path])]
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())

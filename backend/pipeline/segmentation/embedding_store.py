"""Embeddings on disk, so that a first click after a restart, or in another worker process, is a warm one.

One file per embedding, named by what it is made from: image hash, encoder hash and window. Files are written whole or
not at all, carry a checksum, and are deleted least recently used first when the bound on their bytes is reached.
Workers share the folder without a server: a file that another process deletes meanwhile is simply computed again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import orjson

from backend.bounded_cache import BoundedCache
from backend.pipeline.segmentation import Segmenter
from backend.pipeline.types import Box, Embedding, Image
from backend.turns import BACKGROUND, Turns, Urgency
from backend.work import spent
from dataset_tools import atomic

__all__ = ["Count", "EmbeddingStore", "embedding_address"]

logger = logging.getLogger(__name__)

_MAGIC = b"PSLGEMB1"
_HEADER = struct.Struct("<8s32sI")  # magic, sha256 of all that follows the header, length of the JSON description
_SUFFIX = ".embedding"
_SWEEP_TO = 0.9  # a sweep goes this far below the bound, so that not every write sweeps
_STALE_PART = 3600.0  # seconds after which an unfinished file of a process that died is removed

Count = Literal["memory", "disk", "computed", "corrupt", "evicted-memory", "evicted-disk"]
"""What happens to embeddings: found in memory or on disk, computed, found damaged, dropped to keep a bound."""


def embedding_address(image_hash: str, encoder_hash: str, window: Box) -> str:
    """The content address of an image's window embedded by an encoder, which is its ``key``: 64 hexadecimal digits.

    ``image_hash`` names the image's content: a file's sha256, or ``hash_image`` of pixels.
    """
    return hashlib.sha256(orjson.dumps([image_hash, encoder_hash, [float(side) for side in window]])).hexdigest()


class EmbeddingStore:
    """Embeddings in memory and on disk, each bounded in bytes. Safe for threads and processes.

    Args:
        folder: where the files are; created with the first of them.
        disk_bytes: bound on the files' bytes, kept by every process that writes.
        memory_bytes: bound on the bytes kept in memory by this process.
        count: what is called with each thing that happens.
    """

    def __init__(
        self,
        folder: Path,
        disk_bytes: int,
        memory_bytes: int,
        count: Mapping[Count, Callable[[], object]] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self.disk_bytes = disk_bytes
        self._counters = count
        self._memory: BoundedCache[str, Embedding] = BoundedCache(memory_bytes)
        self._computing: dict[str, Future[Embedding]] = {}
        self._lock = threading.Lock()
        self._sweep_lock = threading.Lock()
        # One window is embedded at a time: two would only take each other's cores and memory.
        self._encode = Turns()
        self._bytes_on_disk = sum(size for _, size, _ in self._files())

    @property
    def bytes_in_memory(self) -> int:
        """Bytes of embeddings that this process keeps in memory."""
        return self._memory.size

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of the files, as far as this process knows."""
        return self._bytes_on_disk

    def embed(
        self,
        segmenter: Segmenter,
        image_key: str,
        pixels: Callable[[], Image],
        window: Box,
        *,
        urgency: Urgency = BACKGROUND,
        waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Embedding:
        """The embedding of an image's window from memory, disk, or ``segmenter``.

        Args:
            segmenter: of which model.
            image_key: names the image's content (``embedding_address``).
            pixels: its uint8[H, W, 3] RGB; called only when the embedding has to be computed.
            window: which part of it.
            urgency: who is next where several wait for the encoder.
            waiting: entered while it waits or is being computed, not when it is found.
        """

        address = embedding_address(image_key, segmenter.encoder_hash, window)
        compute = partial(self._computed, segmenter, image_key, pixels, window, urgency, waiting)
        return self.get_or_compute(address, compute, waiting)

    def keep(self, segmenter: Segmenter, image_key: str, pixels: Callable[[], Image], windows: Iterable[Box]) -> None:
        """Have the embeddings of an image's windows in memory or on disk; arguments as of :meth:`embed`."""
        pixels = cache(pixels)  # asked for once
        for window in dict.fromkeys(windows):
            address = embedding_address(image_key, segmenter.encoder_hash, window)
            if not self._path(address).exists():
                self.get_or_compute(address, partial(self._computed, segmenter, image_key, pixels, window))

    def embedder(self, segmenter: Segmenter, image_key: str) -> Callable[[Image, Box], Embedding]:
        """:meth:`embed` for one image whose pixels are there, as the pipeline asks for it: of (image, window)."""
        return lambda image, window: self.embed(segmenter, image_key, lambda: image, window)

    def get_or_compute(
        self,
        address: str,
        compute: Callable[[], Embedding],
        waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Embedding:
        """The embedding at ``address`` from memory, disk, or ``compute`` (which makes the one with that key).

        However many threads ask at once for one address, one of them computes and the others wait for it. An exception
        of ``compute`` is raised in all of them, and the next caller tries again. ``waiting`` is entered by the others.
        """
        embedding = self._memory.get(address)
        if embedding is not None:
            self._count("memory")
            return embedding
        with self._lock:
            future = self._computing.get(address)
            mine = future is None
            if future is None:
                future = self._computing[address] = Future()
        if not mine:
            with waiting():
                return future.result()
        try:
            found: Count = "disk"
            embedding = self.read(address)
            if embedding is None:
                embedding, found = compute(), "computed"
                self._write(address, embedding)
            for _ in range(self._memory.put(address, embedding, embedding.features.nbytes)):
                self._count("evicted-memory")
            self._count(found)
            future.set_result(embedding)
        except BaseException as error:
            future.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._computing[address]
            del future  # with an error it would keep itself and the image alive: error, this frame, future, error
        return embedding

    def __contains__(self, address: str) -> bool:
        return self._memory.get(address) is not None or self._path(address).exists()

    def read(self, address: str) -> Embedding | None:
        """The embedding on disk; None if there is none, or it is damaged (it is then removed)."""
        path = self._path(address)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        try:
            embedding = _decode(data, address)
        except ValueError as error:
            self._count("corrupt")
            logger.warning("%s: %s; it is made again", path, error)
            self._remove(path, len(data))
            return None
        try:
            os.utime(path)  # the time of last use, for every process
        except OSError:
            logger.debug("%s was removed while it was read", path)
        return embedding

    def sweep(self) -> None:
        """Delete the least recently used files until the bound holds, and the leftovers of processes that died."""
        with self._sweep_lock:
            files = sorted(self._files())
            total = sum(size for _, size, _ in files)
            if total > self.disk_bytes:
                for _, size, path in files:
                    if total <= self.disk_bytes * _SWEEP_TO:
                        break
                    self._remove(path, size)
                    self._count("evicted-disk")
                    total -= size
            self._bytes_on_disk = total
            for part in self.folder.glob("*/.*.part"):
                try:
                    if time.time() - part.stat().st_mtime > _STALE_PART:
                        part.unlink()
                except OSError:
                    continue  # its writer finished

    def _computed(
        self,
        segmenter: Segmenter,
        image_key: str,
        pixels: Callable[[], Image],
        window: Box,
        urgency: Urgency = BACKGROUND,
        waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Embedding:
        """What ``segmenter`` makes of the window when its turn has come; arguments as of :meth:`embed`."""
        image = pixels()

        def encode() -> Embedding:
            began = time.perf_counter()
            embedding = segmenter.embed(image, window, key=image_key)
            spent.get()["embed"] += time.perf_counter() - began
            return embedding

        with waiting():
            return self._encode.run(encode, urgency)

    def _count(self, what: Count) -> None:
        if what in self._counters:
            self._counters[what]()

    def _write(self, address: str, embedding: Embedding) -> None:
        data = _encode(embedding)
        if len(data) > self.disk_bytes:
            return
        try:
            atomic.write_bytes(self._path(address), data)
        except OSError as error:  # a full disk makes clicks slower, not impossible
            logger.warning("embedding not stored in %s: %s", self.folder, error)
            return
        self._bytes_on_disk += len(data)
        if self._bytes_on_disk > self.disk_bytes:
            self.sweep()

    def _remove(self, path: Path, size: int) -> None:
        try:
            path.unlink()
            self._bytes_on_disk -= size
        except FileNotFoundError:
            return

    def _path(self, address: str) -> Path:
        return self.folder / address[:2] / f"{address}{_SUFFIX}"

    def _files(self) -> list[tuple[float, int, Path]]:
        """(time of last use, bytes, path) of every file."""
        found = []
        for path in self.folder.glob(f"*/*{_SUFFIX}"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # another process swept it
            found.append((status.st_mtime, status.st_size, path))
        return found


def _encode(embedding: Embedding) -> bytes:
    features = np.ascontiguousarray(embedding.features)
    description = orjson.dumps(
        {
            "key": embedding.key,
            "dtype": features.dtype.str,
            "shape": list(features.shape),
            "image_size": [int(side) for side in embedding.image_size],
            "window": [float(side) for side in embedding.window],
        }
    )
    payload = description + features.tobytes()
    return _HEADER.pack(_MAGIC, hashlib.sha256(payload).digest(), len(description)) + payload


def _decode(data: bytes, key: str) -> Embedding:
    if len(data) < _HEADER.size:
        raise ValueError(f"only {len(data)} bytes long")
    magic, digest, length = _HEADER.unpack_from(data)
    payload = memoryview(data)[_HEADER.size :]
    if magic != _MAGIC:
        raise ValueError("not an embedding of this version")
    if hashlib.sha256(payload).digest() != digest:
        raise ValueError("the checksum does not match, the file is damaged or truncated")
    description = orjson.loads(payload[:length])
    # A copy, because torch wants arrays that own writable memory.
    features = np.frombuffer(payload[length:], np.dtype(description["dtype"])).reshape(description["shape"]).copy()
    height, width = description["image_size"]
    return Embedding(key, features, (height, width), Box(*description["window"]))

"""Deadlines around whole HTTP requests. A timeout counts from byte to byte: who sends one at a time never meets it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

__all__ = ["Deadline", "WatchedAdapter", "WatchedConnection", "WatchedSecureConnection", "whole"]

_thread = threading.local()


class Deadline:
    """What a thread has left for its requests; ``passed`` says whether its connection was cut."""

    def __init__(self) -> None:
        self.passed = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def watch(self, connected: socket.socket | None) -> None:
        """Cut this connection when the time is over."""
        with self._lock:
            self._socket = connected
            if self.passed:
                self._cut()

    def expire(self) -> None:
        """The time is over."""
        with self._lock:
            self.passed = True
            self._cut()

    def _cut(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # whoever waits for bytes in another thread wakes up


@contextlib.contextmanager
def whole(seconds: float) -> Iterator[Deadline]:
    """Within the block, connections of this thread that are made by a :class:`WatchedAdapter` live so long at most."""
    before = getattr(_thread, "deadline", None)
    deadline = _thread.deadline = Deadline()
    timer = threading.Timer(seconds, deadline.expire)
    timer.daemon = True
    timer.start()
    try:
        yield deadline
    finally:
        timer.cancel()
        deadline.watch(None)
        _thread.deadline = before


def _watch(connected: socket.socket | None) -> None:
    deadline: Deadline | None = getattr(_thread, "deadline", None)
    if deadline is not None:
        deadline.watch(connected)


class WatchedConnection(HTTPConnection):
    """A connection that the thread's deadline cuts."""

    def _new_conn(self) -> socket.socket:
        connected = super()._new_conn()
        _watch(connected)
        return connected

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        """The answer; a connection may be an older one, kept alive."""
        _watch(self.sock)
        return super().getresponse(*args, **kwargs)


class WatchedSecureConnection(WatchedConnection, HTTPSConnection):
    """The same over TLS, its handshake included."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = WatchedConnection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = WatchedSecureConnection


class WatchedAdapter(HTTPAdapter):
    """Makes connections that :func:`whole` cuts, through a proxy too."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Called by requests."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Called by requests."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        return manager

"""A gunicorn worker whose threads see whole requests only: who sends slowly, or not at all, holds no thread.

The worker's loop reads heads and bodies as they come. A head must be there after ``HEAD_SECONDS``, a request after
``BODY_SECONDS``; of more than ``MOST_WAITING`` connections that have sent no whole request the oldest is closed.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import time
from functools import partial
from typing import Any, ClassVar

from gunicorn import http
from gunicorn.workers.gthread import TConn, ThreadWorker

from dataset_tools.errors import ConfigError

__all__ = ["BODY_SECONDS", "HEAD_SECONDS", "MOST_WAITING", "WholeRequestWorker"]

HEAD_SECONDS = 10.0
BODY_SECONDS = 60.0
MOST_WAITING = 256
_HEAD_BYTES = 64 * 1024
_BLOCK = 1 << 18
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_EXPECTS = re.compile(rb"\r\nexpect:[ \t]*100-continue", re.IGNORECASE)


class _Waiting:
    """A connection and what it has sent of its next request."""

    def __init__(self, conn: TConn) -> None:
        self.conn = conn
        self.data = bytearray()
        self.wanted: int | None = None  # bytes of the whole request, once its head is there
        self.since = time.monotonic()

    @property
    def until(self) -> float:
        return self.since + (HEAD_SECONDS if self.wanted is None else BODY_SECONDS)


class WholeRequestWorker(ThreadWorker):  # type: ignore[misc]
    """See the module. ``body_bytes`` is the largest body; bodies that are coming take four times as much at most."""

    body_bytes = 64_000_000
    addresses: ClassVar[tuple[str, ...]] = ()
    """Where the worker of this process listens."""
    _threads: ClassVar[int | None] = None

    @staticmethod
    def require(threads: int) -> None:
        """Look whether this process is such a worker, or none of gunicorn's at all.

        Args:
            threads: that its requests need.

        Raises:
            ConfigError: gunicorn runs other workers, or too few threads.
        """
        if not os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn"):
            return
        found = WholeRequestWorker._threads
        if found is None or found < threads:
            what = "workers that half-sent requests stop" if found is None else f"{found} threads, {threads} are needed"
            raise ConfigError(
                f"gunicorn was started with {what}: use `pslg serve`, or"
                " `gunicorn -c python:backend.server.gunicorn_config backend.server.wsgi:app`"
            )

    def init_process(self) -> None:
        """Called by gunicorn in the worker's process, before the application is loaded."""
        WholeRequestWorker._threads = self.cfg.threads
        names = [listener.getsockname() for listener in self.sockets]
        WholeRequestWorker.addresses = tuple(name[0] for name in names if isinstance(name, tuple))
        super().init_process()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: dict[TConn, _Waiting] = {}

    def accept(self, listener: Any) -> None:
        """Called by the loop when a connection comes in."""
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            client, address = listener.accept()
            self.nr_conns += 1
            self._wait(TConn(self.cfg, client, address, listener.getsockname()))

    def on_client_socket_readable(self, conn: TConn, client: Any) -> None:
        """Called by the loop when a kept connection sends again."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._wait(conn)

    def murder_pending(self) -> None:
        """Called by the loop every second: close those whose time is over."""
        super().murder_pending()
        now = time.monotonic()
        for waiting in [waiting for waiting in self._waiting.values() if waiting.until < now]:
            begun = waiting.wanted is not None or waiting.data
            self._refuse(waiting, 408, "the request did not come whole in time") if begun else self._drop(waiting)

    def _wait(self, conn: TConn) -> None:
        conn.sock.setblocking(False)
        waiting = self._waiting[conn] = _Waiting(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._read, waiting))
        if len(self._waiting) > MOST_WAITING:
            self._drop(next(iter(self._waiting.values())))

    def _read(self, waiting: _Waiting, _sock: Any) -> None:
        try:
            data = waiting.conn.sock.recv(_BLOCK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(waiting)
            return
        waiting.data += data
        if waiting.wanted is None and not self._read_head(waiting):
            return
        if waiting.wanted is not None and len(waiting.data) >= waiting.wanted:
            self._hand_over(waiting)

    def _read_head(self, waiting: _Waiting) -> bool:
        """Look for the end of the head; whether to go on."""
        end = waiting.data.find(b"\r\n\r\n")
        if end < 0 and len(waiting.data) > _HEAD_BYTES:
            return self._refuse(waiting, 431, "the head of the request is too long")
        if end < 0:
            return False
        head = bytes(waiting.data[: end + 4])
        if _CHUNKED.search(head):
            return self._refuse(waiting, 411, "a request must say its Content-Length")
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        if size > self.body_bytes:
            return self._refuse(waiting, 413, f"{size} bytes of body, more than {self.body_bytes} (PSLG_BODY_BYTES)")
        held = sum(other.wanted or 0 for other in self._waiting.values())
        if held and held + size > 4 * self.body_bytes:
            return self._refuse(waiting, 503, "too many large requests at once; ask later")
        waiting.wanted = len(head) + size
        if len(waiting.data) < waiting.wanted and _EXPECTS.search(head):
            with contextlib.suppress(OSError):
                waiting.conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _hand_over(self, waiting: _Waiting) -> None:
        self._forget(waiting)
        conn = waiting.conn
        if conn.parser is None:
            conn.parser = http.get_parser(self.cfg, conn.sock, conn.client)
            conn.initialized = True
        conn.parser.unreader.unread(bytes(waiting.data))
        conn.data_ready = True
        self.enqueue_req(conn)

    def _refuse(self, waiting: _Waiting, status: int, reason: str) -> bool:
        body = f'{{"error": "{reason}"}}'.encode()
        head = f"HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        with contextlib.suppress(OSError):
            waiting.conn.sock.send(f"{head}Connection: close\r\n\r\n".encode() + body)
        self.log.warning("a request from %s was refused: %s", waiting.conn.client, reason)
        self._drop(waiting)
        return False

    def _drop(self, waiting: _Waiting) -> None:
        self._forget(waiting)
        self.nr_conns -= 1
        waiting.conn.close()

    def _forget(self, waiting: _Waiting) -> None:
        self._waiting.pop(waiting.conn, None)
        with contextlib.suppress(OSError, KeyError, ValueError):
            self.poller.unregister(waiting.conn.sock)

"""A web server of this process: images for a benchmark, or answers that are always the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["served"]


@contextmanager
def served(file_at: Callable[[str], bytes]) -> Iterator[str]:
    """The address of a server that answers a path (``/scenes/1.png``) with the bytes of ``file_at``, until it ends.

    A POST is answered alike, whatever its body.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = file_at(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

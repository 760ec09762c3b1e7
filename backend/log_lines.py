"""The server's log: one line for each thing said, whatever stands in a request."""

from __future__ import annotations

import logging

__all__ = ["LineFormatter", "start_logging"]


class LineFormatter(logging.Formatter):
    """Escapes line ends and control characters in messages, so that nobody forges lines; tracebacks stay."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line of a record, without its traceback."""
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in super().formatMessage(record))


def start_logging(level: str) -> None:
    """Log to stderr from ``level`` on; does nothing where logging has handlers already."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])

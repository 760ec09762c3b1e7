"""The server's log: one line for each thing said, as text or as JSON, whatever stands in a request.

While a request is worked on, its lines carry its project, task and kind (``backend.work``). What is said again and
again is said once a minute, and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from backend.work import said

__all__ = ["JsonFormatter", "LineFormatter", "LogFormat", "LogHandler", "start_logging"]

LogFormat = Literal["text", "json"]
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; other attributes are fields that a call gave."""
_AGAIN = 60.0
_MOST_SENTENCES = 1000


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    given = {name: value for name, value in vars(record).items() if name not in _OWN}
    return {**said.get(), **given}


class LineFormatter(logging.Formatter):
    """Escapes line ends and control characters in messages, so that nobody forges lines; tracebacks stay.

    At the end stand the project and the kind of request, where they are known; the task is in the message.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line of a record, without its traceback."""
        fields = _fields_of(record)
        known = ", ".join(
            f"project {fields[name]}" if name == "project" else str(fields[name])
            for name in ("project", "kind")
            if name in fields
        )
        line = super().formatMessage(record) + (f" [{known}]" if known else "")
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (UTC), ``level``, ``logger``, ``message``, the fields, ``traceback``."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line."""
        row: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        row |= {name: value for name, value in _fields_of(record).items() if name not in row}
        if record.exc_info:
            row["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(row, default=str, option=orjson.OPT_NON_STR_KEYS).decode("utf-8", "replace")


class LogHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to stderr; of a sentence that comes again within a minute, how often it came is said when it is over.

    Args:
        clock: seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, int, str], list[Any]] = {}
        self._turn = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, and before it the counts of sentences whose minute is over."""
        now, key = self._clock(), (record.name, record.levelno, record.getMessage())
        with self._turn:
            over = [known for known, (until, _) in self._said.items() if until <= now]
            counted = [(known, self._said.pop(known)[1]) for known in over]
            again = key in self._said
            if again:
                self._said[key][1] += 1
            elif len(self._said) < _MOST_SENTENCES:
                self._said[key] = [now + _AGAIN, 0]
        for (name, level, message), times in counted:
            if times:
                text = f"{times} more times within {_AGAIN:.0f} s: {message}"
                summary = logging.LogRecord(name, level, "", 0, text, None, None)
                summary.times = times
                super().emit(summary)
        if not again:
            super().emit(record)


def start_logging(level: str, form: LogFormat = "text") -> None:
    """Log to stderr from ``level`` on; does nothing where logging has handlers already."""
    handler = LogHandler()
    handler.setFormatter(
        JsonFormatter() if form == "json" else LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level, handlers=[handler])

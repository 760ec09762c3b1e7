"""The log: fields in JSON and in text, one line each, and what is said again and again is counted."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from backend.log_lines import JsonFormatter, LineFormatter, LogHandler
from backend.work import work


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def handler(clock: Clock) -> LogHandler:
    handler = LogHandler(clock)
    handler.setStream(io.StringIO())
    handler.setFormatter(LineFormatter("%(levelname)s %(name)s: %(message)s"))
    return handler


@pytest.fixture
def logger(handler: LogHandler) -> Iterator[logging.Logger]:
    logger = logging.getLogger("test-log-lines")
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    yield logger
    logger.removeHandler(handler)


def lines(handler: LogHandler) -> list[str]:
    text = handler.stream.getvalue()
    assert isinstance(text, str)
    return text.splitlines()


def test_json_lines_carry_what_is_known(handler: LogHandler, logger: logging.Logger) -> None:
    handler.setFormatter(JsonFormatter())
    with work(project=7, kind="click", task=None), work(task="1\n2"):
        logger.warning("task %s: none", "1\n2", extra={"reason": "absent", "stages": {"fetch": 0.25}})
    logger.info("later")
    try:
        raise ValueError("bad")
    except ValueError:
        logger.exception("failed")
    first, later, failed = map(json.loads, lines(handler))
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "WARNING",
        "logger": "test-log-lines",
        "message": "task 1\n2: none",
        "project": 7,
        "task": "1\n2",
        "kind": "click",
        "reason": "absent",
        "stages": {"fetch": 0.25},
    }
    assert later.keys() == {"time", "level", "logger", "message"}
    assert "ValueError: bad" in failed["traceback"]


def test_a_field_cannot_take_the_place_of_the_message(handler: LogHandler, logger: logging.Logger) -> None:
    handler.setFormatter(JsonFormatter())
    with work(level="none", logger="none"):
        logger.info("said")
    (row,) = map(json.loads, lines(handler))
    assert (row["level"], row["logger"]) == ("INFO", "test-log-lines")


def test_text_lines_end_with_project_and_kind(handler: LogHandler, logger: logging.Logger) -> None:
    with work(project=7, kind="click\nforged"):
        logger.info("task 3: answered")
    logger.info("task 4: answered")
    assert lines(handler) == [
        "INFO test-log-lines: task 3: answered [project 7, click\\nforged]",
        "INFO test-log-lines: task 4: answered",
    ]


def test_what_is_said_again_is_counted(handler: LogHandler, logger: logging.Logger, clock: Clock) -> None:
    for _ in range(500):
        logger.warning("the disk is full")
        logger.info("the disk is full")
    logger.warning("another thing")
    assert lines(handler) == [
        "WARNING test-log-lines: the disk is full",
        "INFO test-log-lines: the disk is full",
        "WARNING test-log-lines: another thing",
    ]
    clock.now += 61
    logger.warning("the disk is full")
    assert lines(handler)[3:] == [
        "WARNING test-log-lines: 499 more times within 60 s: the disk is full",
        "INFO test-log-lines: 499 more times within 60 s: the disk is full",
        "WARNING test-log-lines: the disk is full",
    ]
    clock.now += 61
    logger.warning("the disk is full")
    assert lines(handler)[6:] == ["WARNING test-log-lines: the disk is full"]


def test_many_different_sentences_are_all_said_and_not_all_remembered(
    handler: LogHandler, logger: logging.Logger
) -> None:
    for number in range(3000):
        logger.info("task %d: answered", number)
    assert len(lines(handler)) == 3000
    assert len(handler._said) <= 1000


def test_a_traceback_of_a_sentence_is_said_once(handler: LogHandler, logger: logging.Logger) -> None:
    for _ in range(3):
        try:
            raise OSError("no space")
        except OSError:
            logger.exception("the keeper failed")
    assert sum("Traceback" in line for line in lines(handler)) == 1

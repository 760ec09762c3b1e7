"""In a log, progress is a line for every tenth part; nothing is drawn again and again."""

from __future__ import annotations

import io

import pytest

from dataset_tools import progress
from dataset_tools.progress import Bar, progress_bar, tracked


@pytest.fixture(autouse=True)
def _slow_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_QUICK", -1.0)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    text = capsys.readouterr().err
    assert "\r" not in text
    return [line.split(" [")[0] for line in text.splitlines()]


def test_a_line_for_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(total=5000, desc="tiling", unit="tile", mininterval=0) as bar:
        for _ in range(5000):
            bar.update()
    assert lines(capsys) == [f"tiling: {part:3}% of 5000" for part in range(10, 101, 10)]


def test_what_is_gone_on_with_begins_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(total=10, initial=7, mininterval=0) as bar:
        bar.update(2)
        bar.set_postfix(loss="0.1")
    assert lines(capsys) == [" 90% of 10"]


def test_what_stops_early_says_no_more_than_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar(total=100, mininterval=0)
    bar.update(34)
    bar.close()
    bar.close()
    assert lines(capsys) == [" 34% of 100"]


def test_without_a_total_a_line_comes_once_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SECONDS", -1.0)
    with progress_bar("fetching") as update:
        update(1)
    assert lines(capsys)[-1] == "fetching: 1"
    monkeypatch.setattr(progress, "_SECONDS", 60.0)
    with progress_bar("fetching") as update:
        for _ in range(1000):
            update(1)
    assert lines(capsys) == []


def test_quick_work_says_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_QUICK", 2.0)
    assert list(tracked("drawing", " scenes")(range(50))) == list(range(50))
    assert lines(capsys) == []


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Bar(total=3, desc="drawing", mininterval=0) as bar:
        bar.update(3)
    assert "\rdrawing" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()

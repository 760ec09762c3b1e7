"""What ``benchmarks.trips`` counts, calls of files and changes of file; and that the trips stay short."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from benchmarks.trips import Recorder, Trip, measure


def test_a_trip_counts_files_functions_and_changes() -> None:
    trip = Trip({1: [("a", "f"), ("a", "g"), ("b", "f"), ("a", "f")], 2: [("b", "f"), ("b", "h")]})
    assert trip.counts() == {"modules": 2, "functions": 4, "changes": 2}
    assert trip.modules() == ["a", "b"]


def test_calls_of_every_thread_are_seen_and_only_those_of_the_given_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder, text in (
        (inside, "from outside_room import there\ndef here(): return there()\n"),
        (outside, "def there(): return 1\n"),
    ):
        folder.mkdir()
        (folder / f"{folder.name}_room.py").write_text(text)
        monkeypatch.syspath_prepend(folder)
    import inside_room  # type: ignore[import-not-found]

    before = sys.getprofile()
    recorder = Recorder((inside,))
    try:
        with recorder.record(settle=0) as trip:
            inside_room.here()
            thread = threading.Thread(target=inside_room.here)
            thread.start()
            thread.join()
        inside_room.here()
    finally:
        recorder.close()
    assert list(trip.calls.values()) == [[(str(inside / "inside_room.py"), "here")]] * 2
    assert sys.getprofile() is before


@pytest.fixture(scope="module")
def trips() -> dict[str, Trip]:
    return measure()


@pytest.mark.parametrize(
    ("name", "modules", "changes"),
    [
        ("warm click", 31, 103),
        ("first pre-label", 68, 394),
        ("webhook", 8, 10),
        ("export record to REFER", 21, 122),
    ],
)
def test_a_trip_visits_few_modules_and_changes_files_seldom(
    trips: dict[str, Trip], name: str, modules: int, changes: int
) -> None:
    counts = trips[name].counts()
    assert counts["modules"] <= modules, trips[name].modules()
    assert counts["changes"] <= changes

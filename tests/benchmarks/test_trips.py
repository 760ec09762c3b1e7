"""The trips through the code stay as short as they are: counts of ``benchmarks.trips``, which no speed changes."""

from __future__ import annotations

import pytest

from benchmarks.trips import Trip, measure


@pytest.fixture(scope="module")
def trips() -> dict[str, Trip]:
    return measure()


@pytest.mark.parametrize(
    ("name", "modules", "changes"),
    [
        ("warm click", 23, 80),
        ("first pre-label", 49, 330),
        ("webhook", 6, 6),
        ("export record to REFER", 17, 100),
    ],
)
def test_a_trip_visits_few_modules_and_changes_files_seldom(
    trips: dict[str, Trip], name: str, modules: int, changes: int
) -> None:
    counts = trips[name].counts()
    assert counts["modules"] <= modules, trips[name].modules()
    assert counts["changes"] <= changes

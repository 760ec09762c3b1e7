"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("pslg", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pslg")

REPOSITORY = Path(__file__).resolve().parents[1]
LONGEST = ("tests/server/test_training_faults.py", "tests/end_to_end/")
"""Minutes each, most of them spent waiting."""

if "PYTEST_XDIST_WORKER" in os.environ:
    # Two processes of two threads each on two cores would mostly wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process is left with one of them when the others are done."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of research images (``PSLG_DATA``, default ``../shared/data``); skips where it is not to be had."""
    folder = Path(os.environ.get("PSLG_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "nwpu_vhr10" / "annotations.json").is_file():
        pytest.skip(f"no research images at {folder} (set PSLG_DATA to a folder holding nwpu_vhr10)")
    return folder

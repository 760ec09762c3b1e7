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


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of research images (``PSLG_DATA``, default ``../shared/data``); skips where it is not to be had."""
    folder = Path(os.environ.get("PSLG_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "nwpu_vhr10" / "annotations.json").is_file():
        pytest.skip(f"no research images at {folder} (set PSLG_DATA to a folder holding nwpu_vhr10)")
    return folder

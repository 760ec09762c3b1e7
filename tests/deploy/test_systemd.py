"""The systemd unit: systemd reads it, and what it sets is what the server knows."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from backend.settings import NOT_SETTINGS, Settings
from tests.conftest import REPOSITORY

UNIT = (REPOSITORY / "deploy" / "pslg@.service").read_text()


def test_its_variables_are_settings() -> None:
    named = set(re.findall(r"\b(PSLG_[A-Z_]*[A-Z])=", UNIT))
    assert named == {"PSLG_STATE_DIR", "PSLG_WEIGHTS"}
    assert named <= {f"PSLG_{name.upper()}" for name in Settings.model_fields} | set(NOT_SETTINGS)


def test_each_backend_has_a_state_folder_of_its_own() -> None:
    assert "PSLG_STATE_DIR=/var/lib/pslg/%i" in UNIT
    assert re.search(r"^StateDirectory=pslg/%i\b", UNIT, re.M)
    assert re.search(r"^EnvironmentFile=/etc/pslg/%i\.env$", UNIT, re.M)


def test_systemd_takes_it(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    program = tmp_path / "pslg"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert "ExecStart=/opt/pslg/bin/pslg serve\n" in UNIT
    unit = tmp_path / "pslg@.service"
    unit.write_text(UNIT.replace("/opt/pslg/bin/pslg", str(program)))
    result = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (result.returncode, [line for line in result.stderr.splitlines() if "pslg" in line]) == (0, [])

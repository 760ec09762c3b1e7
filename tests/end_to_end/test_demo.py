"""``pslg demo --headless`` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.end_to_end.conftest import Studio

pytestmark = pytest.mark.timeout(1800)


def test_the_demo_runs_through_and_says_what_it_found(studio: Studio, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "backend", "demo", "--headless", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["tasks"] == summary["predictions"] == 20
    assert summary["model_version"].startswith("compact-")
    assert summary["mIoU"] >= 0.7
    assert 0 <= summary["P@0.5"] <= 1
    assert summary["absent_abstained"] is True
    assert f"mIoU:             {summary['mIoU']:.3f}" in done.stdout
    with Image.open(summary["contact_sheet"]) as sheet:
        assert sheet.width > 1000
    for step in ("Starting Label Studio", "Starting the ML backend", "Retrieving predictions"):
        assert step in done.stderr

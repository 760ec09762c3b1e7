"""Memory on large scenes: the benchmark's small version."""

from __future__ import annotations

import json
import subprocess
import sys


def test_memory_does_not_grow_with_the_scene() -> None:
    command = [sys.executable, "-m", "benchmarks.map_scenes", "tile", "--side", "12000", "--every", "36", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["blocks"] == 4
    assert found["output"].endswith("tiles")
    # 432 MB of pixels, and as much again in transparency and copies where they are held at once.
    assert 30 < found["peak_mb"] < 300

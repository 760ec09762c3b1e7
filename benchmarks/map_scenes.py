"""Memory and time on large scenes: ``python -m benchmarks.map_scenes tile`` (or ``prelabel``).

The scene is drawn: a tiled, compressed, sparse GeoTIFF in which every ``--every``-th block of 1000 x 1000 pixels holds
a drawn scene and the others nothing. What is measured is the command itself (``pslg dataset tile``, ``pslg prelabel``)
in a process of its own; its memory is what the kernel says of it twice a second (Linux). Needs the extra ``geo``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

from dataset_tools import synthetic

BLOCK = 1000
_DRAWN = 12
_POINTS = 25


def draw(path: Path, side: int, every: int, kind: str = "uint8") -> int:
    """Write the scene of ``side`` x ``side`` pixels in UTM, 0.3 m a pixel; the number of blocks that hold something."""
    scenes = [synthetic.draw_scene(number, BLOCK, BLOCK, theme="airport").image for number in range(_DRAWN)]
    factor = 1 if kind == "uint8" else 16
    filled = 0
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype=kind, nodata=0, crs="EPSG:32633",
        transform=Affine(0.3, 0, 500_000, 0, -0.3, 4_000_000), tiled=True, blockxsize=512, blockysize=512,
        compress="deflate", sparse_ok=True, bigtiff="IF_SAFER", interleave="pixel",
    ) as file:  # fmt: skip
        columns = side // BLOCK
        for number in range(0, columns * columns, every):
            y, x = divmod(number, columns)
            values = scenes[filled % _DRAWN].transpose(2, 0, 1).astype(kind) * factor
            file.write(np.maximum(values, 1), window=Window(x * BLOCK, y * BLOCK, BLOCK, BLOCK))
            filled += 1
    return filled


def watched(command: list[str]) -> dict[str, Any]:
    """Run ``command``; seconds on the clock and of computing, the greatest resident memory, and its course as
    [seconds, MB], evenly thinned out.

    Raises:
        SystemExit: it failed.
    """
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    course: list[list[float]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        status = Path(f"/proc/{process.pid}/status")
        peak = 0.0
        while process.poll() is None:
            sizes = dict(line.split(":", 1) for line in status.read_text().splitlines() if line.startswith("Vm"))
            if "VmHWM" in sizes:  # a process that has just ended has none
                peak = max(peak, int(sizes["VmHWM"].split()[0]) / 1024)
                course.append([round(time.perf_counter() - start, 1), round(int(sizes["VmRSS"].split()[0]) / 1024, 1)])
            time.sleep(0.5)
        output = process.stdout.read() if process.stdout is not None else ""
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{output}")
    step = max(1, len(course) // _POINTS)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    computing = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": round(time.perf_counter() - start, 1), "cpu_seconds": round(computing, 1), "peak_mb": round(peak, 1),
        "course": course[::step], "output": " ".join(output.split())[-120:],
    }  # fmt: skip


def measure(part: str, side: int, every: int, kind: str, expression: str) -> dict[str, Any]:
    """Draw the scene and run the command on it."""
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.tif"
        filled = draw(scene, side, every, kind)
        pslg = [sys.executable, "-m", "backend"]
        if part == "tile":
            command = [*pslg, "dataset", "tile", str(scene), "--out", f"{folder}/tiles"]
        else:
            command = [*pslg, "prelabel", str(scene), expression, "--out", f"{folder}/objects.gpkg"]
        found = watched(command)
        return {
            "part": part,
            "side": side,
            "kind": kind,
            "blocks": filled,
            "file_mb": scene.stat().st_size >> 20,
            **found,
        }


def main() -> None:
    """Print the measurement, as JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["tile", "prelabel"])
    parser.add_argument("--side", type=int, help="of the scene in pixels; default 60000 for tile, 10000 for prelabel")
    parser.add_argument("--every", type=int, help="every so manieth block holds something; default 20, 1 for prelabel")
    parser.add_argument("--kind", choices=["uint8", "uint16"], default="uint8")
    parser.add_argument("--expression", default="all the airplanes")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    tile = given.part == "tile"
    side, every = given.side or (60_000 if tile else 10_000), given.every or (20 if tile else 1)
    found = measure(given.part, side, every, given.kind, given.expression)
    if given.json:
        print(json.dumps(found))
        return
    for seconds, megabytes in found.pop("course"):
        print(f"{seconds:8.1f} s {megabytes:8.1f} MB")
    print("  ".join(f"{key} {value}" for key, value in found.items()))


if __name__ == "__main__":
    main()

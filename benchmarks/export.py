"""Export of brush masks against label_studio_sdk's converter, and memory of a long export.

python -m benchmarks.export                     pairs of batches, 800 px masks
python -m benchmarks.export --memory 20000      memory curve of an export of so many records
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from label_studio_sdk.converter import brush
from label_studio_sdk.converter.exports.brush_to_coco import generate_contour_from_rle
from PIL import Image

from benchmarks.brush_rle import Mask, pair
from dataset_tools import brush_rle
from dataset_tools.export import export
from dataset_tools.formats.items import to_png
from dataset_tools.masks import from_coco, to_coco_rle
from dataset_tools.records import Record, Sample, SourceImage, target_of

SIDE = 800
BATCH = 20


def object_mask(seed: int, side: int = SIDE) -> Mask:
    """An object of 40 to 300 px with a wavy outline and a hole."""
    rng = np.random.default_rng(seed)
    radius = rng.uniform(20, 150)
    x, y = rng.uniform(radius, side - radius, 2)
    angle = np.linspace(0, 2 * np.pi, 200)
    ripple = radius * (1 + 0.12 * np.cos(5 * angle + rng.uniform(0, 6)))
    points = np.stack((x + ripple * np.cos(angle), y + ripple * np.sin(angle)), axis=1)
    mask = cv2.fillPoly(np.zeros((side, side), np.uint8), [np.rint(points).astype(np.int32)], 1)
    cv2.circle(mask, (int(x), int(y)), int(radius / 4), 0, -1)
    return np.asarray(mask, bool)


def region(code: list[int]) -> dict[str, Any]:
    return {
        "type": "brushlabels",
        "rle": code,
        "original_width": SIDE,
        "original_height": SIDE,
        "brushlabels": ["ship"],
    }


def ours_png(codes: list[list[int]], folder: Path) -> None:
    for number, code in enumerate(codes):
        (folder / f"ours-{number}.png").write_bytes(to_png(brush_rle.decode(code, SIDE, SIDE)))


def sdk_png(codes: list[list[int]], folder: Path) -> None:
    for number, code in enumerate(codes):
        brush.save_brush_images_from_annotation(number, 1, 1, "mask", [region(code)], str(folder), "png")


def ours_coco(codes: list[list[int]], folder: Path) -> None:
    entries = [{"id": k, "segmentation": to_coco_rle(brush_rle.decode(c, SIDE, SIDE))} for k, c in enumerate(codes)]
    (folder / "ours.json").write_text(json.dumps(entries))


def sdk_coco(codes: list[list[int]], folder: Path) -> None:
    entries = [{"id": k, "segmentation": generate_contour_from_rle(c, SIDE, SIDE)[0]} for k, c in enumerate(codes)]
    (folder / "sdk.json").write_text(json.dumps(entries))


def measure(repeats: int) -> dict[str, dict[str, float]]:
    """Both pairs; checks first that every mask comes back exactly."""
    masks = [object_mask(k) for k in range(BATCH)]
    codes = [brush_rle.encode(mask) for mask in masks]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours_png(codes, folder)
        ours_coco(codes, folder)
        entries = json.loads((folder / "ours.json").read_text())
        for number, mask in enumerate(masks):
            png = cv2.imread(str(folder / f"ours-{number}.png"), cv2.IMREAD_GRAYSCALE)
            assert png is not None
            assert np.array_equal(png > 0, mask), "a PNG mask differs"
            assert np.array_equal(from_coco(entries[number]["segmentation"], SIDE, SIDE), mask), "a COCO mask differs"
        results = {
            "mask to PNG": pair(partial(ours_png, codes, folder), partial(sdk_png, codes, folder), repeats),
            "mask to COCO": pair(partial(ours_coco, codes, folder), partial(sdk_coco, codes, folder), repeats),
        }
    for row in results.values():
        for key in ("ms", "sdk_ms"):
            row[key] /= BATCH
    return results


def memory(records: int, workers: int, out: Path) -> dict[str, float]:
    """Peak memory of an export of ``records`` samples in MiB, and its curve as ``export_memory.png`` in ``out``."""
    curve: list[tuple[int, float]] = []
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for k in range(20):
            image = np.full((SIDE, SIDE, 3), 10 * k, np.uint8)
            Image.fromarray(image).save(folder / f"{k}.jpg")
        targets = [target_of(object_mask(k)) for k in range(200)]

        def samples() -> Iterator[Sample]:
            for k in range(records):
                record = Record(f"the ship number {k}", "ship", (targets[k % 200],), "train")
                yield Sample(SourceImage(f"{k:06d}.jpg", SIDE, SIDE, str(folder / f"{k % 20}.jpg")), (record,))

        def watch(_n: int) -> None:
            done.append(1)
            if len(done) % max(1, records // 100) == 0:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                curve.append((len(done), pages * os.sysconf("SC_PAGE_SIZE") / 2**20))

        done: list[int] = []
        report = export(samples(), folder / "out", "refer", workers=workers, progress=watch)
        assert report.images == records
        shutil.rmtree(folder / "out")
    seconds = time.perf_counter() - start
    out.mkdir(parents=True, exist_ok=True)
    plot(curve, out / "export_memory.png")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"records": records, "seconds": seconds, "records_per_second": records / seconds, "peak_mib": peak}


def plot(curve: list[tuple[int, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*zip(*curve, strict=True))
    axes.set(
        xlabel="records exported",
        ylabel="resident memory, MiB",
        ylim=(0, 1.15 * max(size for _, size in curve)),
        title="Memory of an export",
    )
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--memory", type=int, metavar="RECORDS", help="the memory curve instead of the pairs")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs", "bench"))
    arguments = parser.parse_args()
    if arguments.memory:
        print(json.dumps(memory(arguments.memory, arguments.workers, arguments.out)))
        return
    results = measure(arguments.repeats)
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    print(f"{'':16}{'ours ms':>10}{'SDK ms':>10}{'ratio':>8}   per mask of {SIDE} px")
    for name, row in results.items():
        print(f"{name:16}{row['ms']:10.2f}{row['sdk_ms']:10.2f}{row['ratio']:7.1f}x")


if __name__ == "__main__":
    main()

"""Export of brush masks against label_studio_sdk's converter, and memory of a long export.

python -m benchmarks.export                                 pairs of batches, drawn masks of 800 px
python -m benchmarks.export --data A B                      the masks of datasets: of each, objects of its test split
python -m benchmarks.export --memory 20000                  memory curve of an export of so many records

Both sides begin with the brush streams of a Label Studio export, one per object, and end with files: a PNG per mask, or
one JSON of COCO segmentations. The files go into memory (/dev/shm) where there is such a folder: no disk is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from label_studio_sdk.converter import brush
from label_studio_sdk.converter.exports.brush_to_coco import generate_contour_from_rle
from PIL import Image

from benchmarks.brush_rle import Mask, pair
from dataset_tools import brush_rle, labelled
from dataset_tools.export import export
from dataset_tools.formats.items import to_png
from dataset_tools.masks import from_coco, rle_of_runs
from dataset_tools.records import Record, Sample, SourceImage, target_of

SIDE = 800
BATCH = 20
IN_MEMORY = Path("/dev/shm")  # noqa: S108  # nosec B108 # only for a temporary folder of our own


@dataclass(frozen=True)
class Brush:
    """A brush region of an export: its stream, and the size of its image in pixels."""

    code: list[int]
    height: int
    width: int

    @classmethod
    def of(cls, mask: Mask) -> Brush:
        return cls(brush_rle.encode(mask), *mask.shape)


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


def masks_of(folder: Path, count: int) -> list[Mask]:
    """Masks of the objects of a dataset's test split (of all of it where there is none), evenly spread."""
    objects = [item for image in labelled.read_held_out(folder) for item in image.objects]
    return [item.mask() for item in labelled.spread(objects, count)]


def ours_png(regions: Sequence[Brush], folder: Path) -> None:
    for number, one in enumerate(regions):
        png = to_png(brush_rle.decode(one.code, one.height, one.width))
        (folder / f"ours-{number}.png").write_bytes(png)


def sdk_png(regions: Sequence[Brush], folder: Path) -> None:
    for number, one in enumerate(regions):
        region = {
            "type": "brushlabels", "rle": one.code, "original_width": one.width, "original_height": one.height,
            "brushlabels": ["ship"],
        }  # fmt: skip
        brush.save_brush_images_from_annotation(number, 1, 1, "mask", [region], str(folder), "png")


def ours_coco(regions: Sequence[Brush], folder: Path) -> None:
    entries = []
    for number, one in enumerate(regions):
        size = (one.height, one.width)
        entries.append({"id": number, "segmentation": rle_of_runs(*brush_rle.pixel_runs(one.code, *size), *size)})
    (folder / "ours.json").write_text(json.dumps(entries))


def sdk_coco(regions: Sequence[Brush], folder: Path) -> None:
    entries = [
        {"id": number, "segmentation": generate_contour_from_rle(one.code, one.width, one.height)[0]}
        for number, one in enumerate(regions)
    ]
    (folder / "sdk.json").write_text(json.dumps(entries))


def measure(repeats: int, masks: Sequence[Mask], name: str) -> dict[str, dict[str, float]]:
    """Both pairs; checks first that every mask comes back exactly."""
    regions = [Brush.of(mask) for mask in masks]
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as place:
        folder = Path(place)
        ours_png(regions, folder)
        ours_coco(regions, folder)
        entries = json.loads((folder / "ours.json").read_text())
        for number, mask in enumerate(masks):
            png = cv2.imread(str(folder / f"ours-{number}.png"), cv2.IMREAD_GRAYSCALE)
            assert png is not None
            assert np.array_equal(png > 0, mask), "a PNG mask differs"
            assert np.array_equal(from_coco(entries[number]["segmentation"], *mask.shape), mask), "a COCO mask differs"
        results = {
            f"{name} to PNG": pair(partial(ours_png, regions, folder), partial(sdk_png, regions, folder), repeats),
            f"{name} to COCO": pair(partial(ours_coco, regions, folder), partial(sdk_coco, regions, folder), repeats),
        }
    for row in results.values():
        for key in ("ms", "sdk_ms"):
            row[key] /= len(masks)
    return results


def about(masks: Sequence[Mask]) -> str:
    """Which masks: how many, the sizes of their images and of the objects in pixels."""
    widths, heights = [mask.shape[1] for mask in masks], [mask.shape[0] for mask in masks]
    areas = [int(mask.sum()) for mask in masks]
    return (
        f"{len(masks)} masks on images of {min(widths)} to {max(widths)} x {min(heights)} to {max(heights)} px, "
        f"{min(areas):,} to {max(areas):,} pixels each (median {statistics.median(areas):,.0f})"
    )


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
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="dataset folders whose masks are exported")
    parser.add_argument("--masks", type=int, default=100, help="masks of each dataset")
    parser.add_argument("--memory", type=int, metavar="RECORDS", help="the memory curve instead of the pairs")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs", "bench"))
    arguments = parser.parse_args()
    if arguments.memory:
        print(json.dumps(memory(arguments.memory, arguments.workers, arguments.out)))
        return
    sets = {folder.name: masks_of(folder, arguments.masks) for folder in arguments.data}
    sets = sets or {"mask": [object_mask(seed) for seed in range(BATCH)]}
    results = {key: row for name, masks in sets.items() for key, row in measure(arguments.repeats, masks, name).items()}
    for name, masks in sets.items():
        print(f"{name}: {about(masks)}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    print(f"{'':26}{'ours ms':>10}{'SDK ms':>10}{'ratio':>8}   per mask")
    for name, row in results.items():
        print(f"{name:26}{row['ms']:10.3f}{row['sdk_ms']:10.3f}{row['ratio']:7.1f}x")


if __name__ == "__main__":
    main()

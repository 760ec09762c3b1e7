"""Brush RLE against label_studio_sdk's, as medians of interleaved pairs: ``python -m benchmarks.brush_rle``."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt
from label_studio_sdk.converter import brush

from dataset_tools import brush_rle

Mask = npt.NDArray[np.bool_]


def blob(side: int) -> Mask:
    """A smooth shape about half as wide as the image: what a segmenter gives."""
    angle = np.linspace(0, 2 * np.pi, 400)
    radius = side * (0.27 + 0.03 * np.cos(3 * angle) + 0.02 * np.sin(5 * angle))
    points = np.stack((side / 2 + radius * np.cos(angle), side / 2 + radius * np.sin(angle)), axis=1)
    mask = cv2.fillPoly(np.zeros((side, side), np.uint8), [np.rint(points).astype(np.int32)], 1)
    return np.asarray(mask, bool)


def ragged(side: int) -> Mask:
    """Thresholded noise: many short runs, as in vegetation or an uncleaned mask."""
    noise = cv2.GaussianBlur(np.random.default_rng(0).standard_normal((side, side)).astype(np.float32), (0, 0), 8.0)
    return np.asarray(noise > 0.01, bool)


def sdk_decode(code: list[int], side: int) -> Mask:
    """The mask as users of the SDK get it."""
    return np.asarray(brush.decode_rle(code).reshape(side, side, 4)[:, :, 3] > 0)


def pair(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> dict[str, float]:
    """Medians of both in milliseconds of CPU time (others use the machine too), run in turn, and of their ratios."""
    for function in (ours, theirs):
        function()
    mine: list[float] = []
    other: list[float] = []
    for _ in range(repeats):
        for function, times in ((ours, mine), (theirs, other)):
            start = time.process_time()
            function()
            times.append((time.process_time() - start) * 1e3)
    ratios = [b / a for a, b in zip(mine, other, strict=True)]
    return {
        "ms": statistics.median(mine), "sdk_ms": statistics.median(other), "ratio": statistics.median(ratios)
    }  # fmt: skip


def measure(sides: tuple[int, ...] = (800, 2048), repeats: int = 15) -> dict[str, dict[str, float]]:
    """Every pair by name; checks first that both sides agree."""
    results = {}
    for side in sides:
        for name, make in (("blob", blob), ("ragged", ragged)):
            mask = make(side)
            image = mask.astype(np.uint8) * 255
            code = brush_rle.encode(mask)
            assert code == brush.mask2rle(image), "streams differ"
            assert np.array_equal(brush_rle.decode(code, side, side), mask)
            n = repeats if name == "blob" else max(3, repeats // 3)
            results[f"encode {name} {side}"] = pair(partial(brush_rle.encode, mask), partial(brush.mask2rle, image), n)
            results[f"decode {name} {side}"] = pair(
                partial(brush_rle.decode, code, side, side), partial(sdk_decode, code, side), n
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    results = measure(repeats=arguments.repeats)
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    print(f"{'':24}{'ours ms':>10}{'SDK ms':>10}{'ratio':>8}")
    for name, row in results.items():
        print(f"{name:24}{row['ms']:10.2f}{row['sdk_ms']:10.2f}{row['ratio']:7.1f}x")


if __name__ == "__main__":
    main()

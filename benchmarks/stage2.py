"""CFPG and MBO against a plain chain of scikit-learn, scikit-image and PyMaxflow: ``python -m benchmarks.stage2``.

The plain chain takes the same decisions (foreground cluster, watershed markers, thresholds, width of the band)
with the libraries one would reach for first. Both run in turn on objects of synthetic scenes, in one process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import cv2
import maxflow
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import label, regionprops
from skimage.segmentation import watershed
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from backend.pipeline.boundary import optimize_boundary
from backend.pipeline.config import BoundaryConfig, ForegroundPointsConfig
from backend.pipeline.foreground_points import foreground_cluster, foreground_point
from backend.pipeline.types import Box, Image, Mask, Point
from dataset_tools.metrics import iou
from dataset_tools.synthetic import draw_scene

COMPONENTS = 5
GAMMA = 50.0


def crops(side: int, count: int) -> list[tuple[Image, Mask]]:
    """``count`` objects of synthetic scenes, each cut out by its box and scaled to ``side`` x ``side`` px."""
    found: list[tuple[Image, Mask]] = []
    seed = 0
    while len(found) < count:
        scene = draw_scene(seed)
        seed += 1
        for item in scene.objects:
            box = Box.of_mask(item.mask).expand(1.2).clip(scene.image.shape[1], scene.image.shape[0])
            if min(box.width, box.height) < 60:
                continue
            rows, columns = slice(int(box.y0), int(box.y1)), slice(int(box.x0), int(box.x1))
            image = cv2.resize(scene.image[rows, columns], (side, side), interpolation=cv2.INTER_CUBIC)
            mask = cv2.resize(item.mask[rows, columns].astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST)
            found.append((np.asarray(image, np.uint8), np.asarray(mask, np.bool_)))
            break
    return found


def plain_foreground_point(crop: Image, config: ForegroundPointsConfig) -> Point:
    """CFPG with K-means over all pixels and scikit-image's watershed and region properties."""
    pixels = crop.reshape(-1, 3).astype(np.float64)
    labels = KMeans(2, n_init=1, random_state=config.seed).fit_predict(pixels).reshape(crop.shape[:2])
    foreground = foreground_cluster(labels.astype(np.uint8), config.foreground)
    distance = ndimage.distance_transform_edt(foreground)
    components = label(foreground, connectivity=2)
    deepest = np.asarray(ndimage.maximum(distance, components, np.arange(components.max() + 1)))
    markers = label(foreground & (distance >= config.marker_ratio * deepest[components]), connectivity=2)
    found = [
        region
        for region in regionprops(watershed(-distance, markers, mask=foreground))
        if region.area >= config.min_area * foreground.size
    ]
    if not found:
        return Box(0, 0, crop.shape[1], crop.shape[0]).center
    best = max(found, key=lambda region: region.solidity)
    return Point(float(best.centroid[1]), float(best.centroid[0]))


def plain_boundary(image: Image, mask: Mask, config: BoundaryConfig) -> Mask:
    """MBO with two Gaussian mixtures fitted anew for every maximum flow over the whole crop."""
    radius = max(1, round(config.band * float(mask.sum()) ** 0.5))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    sure = cv2.erode(mask.astype(np.uint8), kernel) > 0
    never = cv2.dilate(mask.astype(np.uint8), kernel) == 0
    pixels = image.reshape(-1, 3).astype(np.float64)
    weights = _contrast_weights(image.astype(np.float64))
    labels = mask
    for _ in range(config.max_iterations):
        inside = GaussianMixture(COMPONENTS, random_state=config.seed).fit(pixels[labels.ravel()])
        outside = GaussianMixture(COMPONENTS, random_state=config.seed).fit(pixels[~labels.ravel()])
        cost_inside = -inside.score_samples(pixels).reshape(mask.shape)
        cost_outside = -outside.score_samples(pixels).reshape(mask.shape)
        graph = maxflow.Graph[float]()
        nodes = graph.add_grid_nodes(mask.shape)
        for weight, structure in weights:
            graph.add_grid_edges(nodes, weight, structure, symmetric=True)
        far = 1e6
        graph.add_grid_tedges(
            nodes,
            np.where(never, 0, np.where(sure, far, cost_outside)),
            np.where(sure, 0, np.where(never, far, cost_inside)),
        )
        graph.maxflow()
        cut = ~np.asarray(graph.get_grid_segments(nodes), np.bool_)
        if np.array_equal(cut, labels):
            break
        labels = cut
    return labels


def _contrast_weights(image: npt.NDArray[np.float64]) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]]:
    """GrabCut's smoothness weights to four of the eight neighbours, with PyMaxflow's structures for them."""
    differences = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        difference = ((image - np.roll(image, (-dy, -dx), (0, 1))) ** 2).sum(axis=2)
        structure = np.zeros((3, 3), np.int64)
        structure[1 + dy, 1 + dx] = 1
        differences.append((difference, float(np.hypot(dy, dx)), structure))
    beta = 1 / (2 * np.mean([difference.mean() for difference, _, _ in differences]))
    return [(GAMMA / length * np.exp(-beta * difference), structure) for difference, length, structure in differences]


def compare(ours: Sequence[Callable[[], object]], plain: Sequence[Callable[[], object]]) -> dict[str, float]:
    """Medians in milliseconds over all crops, run in turn, and the median of the pairs' ratios."""
    times: list[tuple[float, float]] = []
    for one, other in zip(ours, plain, strict=True):
        one()  # the first call after another crop pays for cold caches
        start = time.perf_counter()
        one()
        middle = time.perf_counter()
        other()
        times.append(((middle - start) * 1e3, (time.perf_counter() - middle) * 1e3))
    return {
        "ms": statistics.median(first for first, _ in times),
        "plain_ms": statistics.median(second for _, second in times),
        "ratio": statistics.median(second / first for first, second in times),
    }


def displaced(mask: Mask) -> Mask:
    """The mask with its contour a few pixels off, as a decoder might give it."""
    smooth = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), mask.shape[0] / 40)
    return np.asarray(np.roll(smooth > 0.45, mask.shape[0] // 60, axis=1), np.bool_)


def measure(sides: Sequence[int], count: int) -> dict[str, dict[str, float]]:
    """Both stages at each crop side; ``agree`` tells how well the two chains find the same (median over crops)."""
    points, boundary = ForegroundPointsConfig(), BoundaryConfig(band=0.06, min_agreement=0.0)
    results = {}
    for side in sides:
        chosen = crops(side, count)
        box = Box(0, 0, side, side)
        results[f"CFPG {side}"] = compare(
            [partial(foreground_point, image, box, points) for image, _ in chosen],
            [partial(plain_foreground_point, image, points) for image, _ in chosen],
        )
        distances = []
        for image, _ in chosen:
            ours, plain = foreground_point(image, box, points), plain_foreground_point(image, points)
            distances.append(np.hypot(ours.x - plain.x, ours.y - plain.y) / side)
        results[f"CFPG {side}"]["agree"] = 1 - float(np.median(distances))
        given = [displaced(mask) for _, mask in chosen]
        results[f"MBO {side}"] = compare(
            [partial(optimize_boundary, image, mask, boundary) for (image, _), mask in zip(chosen, given, strict=True)],
            [partial(plain_boundary, image, mask, boundary) for (image, _), mask in zip(chosen, given, strict=True)],
        )
        overlaps = []
        for (image, _), mask in zip(chosen[:4], given[:4], strict=True):
            overlaps.append(iou(optimize_boundary(image, mask, boundary).mask, plain_boundary(image, mask, boundary)))
        results[f"MBO {side}"]["agree"] = float(np.median(overlaps))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--crops", type=int, default=12, help="objects per crop side")
    parser.add_argument("--sides", type=int, nargs="+", default=[100, 300, 600])
    arguments = parser.parse_args()
    results = measure(arguments.sides, arguments.crops)
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    print(f"{'':12}{'ours ms':>10}{'plain ms':>10}{'ratio':>8}{'agree':>8}")
    for name, values in results.items():
        print(f"{name:12}{values['ms']:10.1f}{values['plain_ms']:10.1f}{values['ratio']:8.1f}{values['agree']:8.3f}")


if __name__ == "__main__":
    main()

"""Building blocks of scenes: natural ground, lines across the image, rows of objects, traffic, parking lots."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from dataset_tools.synthetic import ground
from dataset_tools.synthetic.blueprints import Draw, Points, rectangle
from dataset_tools.synthetic.canvas import CELL, Canvas, Placement
from dataset_tools.synthetic.scenery import parking_lot
from dataset_tools.synthetic.vehicles import vehicle

Zone: TypeAlias = npt.NDArray[np.bool_]
"""bool[H / 4, W / 4]: cells where objects may go."""


def land(canvas: Canvas, farmed: float = 0.2) -> None:
    """Fill the canvas with one or two natural grounds that run into each other; ``farmed``: how often with fields."""
    rng, noise = canvas.rng, canvas.noise
    if rng.random() < farmed:
        canvas.cover(ground.fields(rng, noise))
        return
    first, second = (ground.grass, ground.soil) if rng.random() < 0.75 else (ground.soil, ground.grass)
    canvas.cover(first(rng, noise))
    if rng.random() < 0.6:
        patches = ground.smoothstep(noise.coarse(), 0.4, 1.0)
        canvas.cover(second(rng, noise), patches)


def main_direction(canvas: Canvas) -> float:
    """The main direction of a built-up scene in degrees."""
    return float(canvas.rng.uniform(-40, 40) if canvas.rng.random() < 0.6 else canvas.rng.normal(0, 3))


def right_angles(axis: float) -> tuple[float, ...]:
    """The four directions along and across ``axis`` degrees."""
    return (axis, axis + 90, axis + 180, axis + 270)


def across(canvas: Canvas, axis: float, offset: float, bend: float) -> Points:
    """A line right across the image in direction ``axis``, ``offset`` pixels beside its centre: float64[N, 2]."""
    turn = np.radians(axis)
    along, aside = np.array((np.cos(turn), np.sin(turn))), np.array((-np.sin(turn), np.cos(turn)))
    reach = canvas.width + canvas.height
    steps = np.linspace(-0.5, 0.5, 25)
    middle = np.array((canvas.width / 2, canvas.height / 2)) + aside * offset
    return np.asarray(middle + np.outer(steps * reach, along) + np.outer(bend * reach * steps**2, aside))


def traffic(canvas: Canvas, line: Points, width: float, share: float) -> None:
    """Vehicles on the road along ``line``, each in the lane of its direction."""
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    along = np.concatenate(([0.0], np.cumsum(steps)))
    length = float(canvas.rng.uniform(24, 30))
    for s in np.arange(30.0, along[-1] - 30, length * canvas.scale * 3.2):
        if canvas.rng.random() > share:
            continue
        x, y, x1, y1 = (float(np.interp(s + d, along, line[:, k])) for d in (0, 4) for k in (0, 1))
        if not (30 < x < canvas.width - 30 and 30 < y < canvas.height - 30):
            continue
        direction = float(np.degrees(np.arctan2(y1 - y, x1 - x)))
        lane = float(canvas.rng.choice([-1, 1]))
        spot = Placement(x, y, direction).at(0, lane * width * 0.24, 0 if lane > 0 else 180)
        canvas.put(vehicle, min(length, width * 0.85 / canvas.scale), spot, None, 0)


def row_of(
    canvas: Canvas, draw: Draw, length: float, count: int, gap: float, axis: float, zone: Zone, face: float
) -> int:
    """A row of ``count`` objects, ``gap`` pixels apart along ``axis``, turned to ``face``; how many were placed."""
    free = np.argwhere(zone & ~canvas.taken)
    side = min(length, gap) * canvas.scale
    for row, column in free[canvas.rng.integers(len(free), size=30)] if len(free) else []:
        start = Placement(float(column) * CELL, float(row) * CELL, axis)
        spots = [start.at(k * gap * canvas.scale, 0, face - axis) for k in range(count)]
        if all(canvas.fits(rectangle(spot.x, spot.y, side, side), zone, 2) for spot in spots):
            return sum(canvas.put(draw, length, spot, zone, 1) for spot in spots)
    return 0


def parking(canvas: Canvas, zone: Zone, axis: float) -> None:
    """A parking lot with some of its bays taken."""
    bays = int(canvas.rng.integers(4, 9))
    car = float(canvas.rng.uniform(25, 31))
    bay = car * 0.66
    lot = canvas.place(parking_lot(bays, bay, car * 1.15), bays * bay + 12, zone, right_angles(axis), 4)
    if lot is None:
        return
    for k in range(bays):
        if canvas.rng.random() < 0.55:
            spot = lot.at((-bays / 2 + k + 0.5) * bay * canvas.scale, -0.4 * car * canvas.scale, 90)
            canvas.put(vehicle, car, spot, None, 0)


def some(canvas: Canvas, low: int, high: int) -> range:
    """A range of random length, ``low`` to ``high``."""
    return range(int(canvas.rng.integers(low, high + 1)))


def shore(canvas: Canvas, share: float, roughness: float = 0.12) -> ground.Field:
    """A coast: float32[H, W], 1 on water, 0 on land; water covers about ``share`` of the image, at a random side."""
    rows, columns = np.mgrid[0 : canvas.height, 0 : canvas.width].astype(np.float32)
    turn = canvas.rng.uniform(0, 2 * np.pi)
    depth = columns / canvas.width * np.float32(np.cos(turn)) + rows / canvas.height * np.float32(np.sin(turn))
    depth += np.float32(roughness) * canvas.noise.coarse() * np.float32(0.5)
    level = float(np.quantile(depth[::8, ::8], 1 - share))
    return ground.smoothstep(depth, level - 0.004, level + 0.004)


def blurred(field: ground.Field, sigma: float) -> ground.Field:
    """``field`` float32[H, W] after a Gaussian of ``sigma`` pixels, computed at a quarter of the size."""
    small = cv2.resize(field, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    smooth = cv2.GaussianBlur(small, (0, 0), sigma / 4)
    return np.asarray(cv2.resize(smooth, field.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)

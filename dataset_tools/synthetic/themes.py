"""Kinds of scene: airport, port, river, park, industry, town, coast and countryside.

Each function lays out the ground of a fresh canvas and places its objects; what does not fit is left out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dataset_tools.synthetic import ground
from dataset_tools.synthetic.blueprints import Draw, rectangle
from dataset_tools.synthetic.canvas import Canvas, Placement
from dataset_tools.synthetic.grounds import baseballfield, basketballcourt, groundtrackfield, tenniscourt
from dataset_tools.synthetic.layouts import (
    across,
    blurred,
    land,
    main_direction,
    parking,
    right_angles,
    row_of,
    shore,
    some,
    traffic,
)  # fmt: skip
from dataset_tools.synthetic.scenery import plaza, pool, runway, taxi_line
from dataset_tools.synthetic.structures import bridge, bridge_width, building, harbor, storagetank
from dataset_tools.synthetic.vehicles import airplane, ship, vehicle


def airport(canvas: Canvas) -> None:
    """Runway, taxiways and apron; airplanes parked in a row and on the move."""
    rng, noise = canvas.rng, canvas.noise
    canvas.cover(ground.grass(rng, noise))
    axis = main_direction(canvas)
    center = Placement(canvas.width / 2, canvas.height / 2, axis)
    side = float(rng.choice([-1, 1]))
    reach = canvas.width + canvas.height
    apron = rectangle(0, 0, reach, canvas.height * 0.62) @ center.rotation().T
    spot = center.at(0, side * canvas.height * 0.2)
    weight = canvas.polygon_mask(apron + np.array(spot[:2]), 0.6)
    canvas.cover((ground.concrete if rng.random() < 0.65 else ground.asphalt)(rng, noise), weight)
    strip = center.at(0, -side * canvas.height * 0.36)
    canvas.put(runway, reach / canvas.scale, strip)
    free = canvas.taken.copy()
    for k in (-0.02, 0.27):
        canvas.put(taxi_line, reach / canvas.scale, center.at(0, side * canvas.height * k))
    canvas.taken = free
    zone = canvas.zone(weight)
    length = float(rng.uniform(66, 128))
    face = axis + side * 90 + float(rng.choice([0, 0, 25, -25]))
    row_of(canvas, building, length * 1.4, int(rng.integers(1, 4)), length * 1.75, axis, zone, axis)
    row_of(canvas, airplane, length, int(rng.integers(2, 5)), length * 1.16, axis, zone, face)
    for _ in some(canvas, 1, 5):
        canvas.place(airplane, length * float(rng.uniform(0.62, 1.2)), zone, margin=6)
    if rng.random() < 0.4:
        canvas.put(airplane, length * 0.9, strip.at(float(rng.uniform(-0.25, 0.25)) * canvas.width, 0))
    for _ in some(canvas, 1, 5):
        canvas.place(vehicle, float(rng.uniform(22, 28)), zone, right_angles(axis), 5)
    canvas.trees(14, canvas.zone(1 - weight))


def port(canvas: Canvas) -> None:
    """A coast: docks and ships on the water, tanks, buildings and vehicles on the quay."""
    rng, noise = canvas.rng, canvas.noise
    land(canvas, farmed=0.0)
    turn = float(rng.uniform(0, 360))
    center = Placement(canvas.width / 2, canvas.height / 2, turn)
    # +x of this frame points out to sea.
    coast = float(rng.uniform(-0.12, 0.1)) * canvas.height
    reach = canvas.width + canvas.height
    spot = center.at(coast + reach / 2, 0)
    quay = center.at(coast - 45 * canvas.scale, 0)
    weight = canvas.polygon_mask(rectangle(0, 0, reach, 2 * reach) @ center.rotation().T + np.array(spot[:2]), 0.5)
    slab = canvas.polygon_mask(
        rectangle(0, 0, 90 * canvas.scale, 2 * reach) @ center.rotation().T + np.array(quay[:2]), 0.7
    )
    canvas.cover(ground.concrete(rng, noise), slab)
    canvas.cover(ground.water(rng, noise), weight)
    rim = canvas.polygon_mask(rectangle(coast, 0, 3.0, 2 * reach) @ center.rotation().T + np.array(center[:2]), 0.4)
    canvas.cover(np.full_like(canvas.image, 196, dtype=np.float32), rim)
    sea, shore_side = canvas.zone(weight, 1), canvas.zone(1 - weight, 3)
    for _ in some(canvas, 1, 3):
        length = float(rng.uniform(120, 190))
        for _attempt in range(8):
            y = float(rng.uniform(-0.5, 0.5)) * canvas.width
            if canvas.put(harbor, length, center.at(coast + length * canvas.scale / 2 + 2, y), canvas.everywhere(), 6):
                break
    size = float(rng.uniform(70, 130))
    for _ in some(canvas, 1, 5):
        canvas.place(ship, size * float(rng.uniform(0.6, 1.35)), sea, margin=8)
    for _ in some(canvas, 0, 3):
        canvas.place(ship, float(rng.uniform(28, 44)), sea, margin=5)
    if rng.random() < 0.6:
        tank = float(rng.uniform(42, 72))
        row_of(canvas, storagetank, tank, int(rng.integers(2, 5)), tank * 1.25, turn + 90, shore_side, turn)
    for _ in some(canvas, 1, 4):
        canvas.place(building, float(rng.uniform(70, 130)), shore_side, right_angles(turn))
    for _ in some(canvas, 1, 5):
        canvas.place(vehicle, float(rng.uniform(25, 32)), shore_side, right_angles(turn), 5)
    canvas.trees(24, shore_side)


def river(canvas: Canvas) -> None:
    """A river with one or two bridges, roads leading onto them, ships below."""
    rng, noise = canvas.rng, canvas.noise
    land(canvas, farmed=0.4)
    flow = float(rng.uniform(-35, 35)) + float(rng.choice([0, 90]))
    half = float(rng.uniform(70, 120)) * canvas.scale
    line = across(canvas, flow, float(rng.normal(0, 30)), float(rng.uniform(-0.12, 0.12)))
    edge = noise.coarse()
    rows, columns = np.mgrid[0 : canvas.height, 0 : canvas.width].astype(np.float32)
    normal = np.array((-np.sin(np.radians(flow)), np.cos(np.radians(flow))))
    along = np.array((np.cos(np.radians(flow)), np.sin(np.radians(flow))))
    s = columns * np.float32(along[0]) + rows * np.float32(along[1])
    middle = np.interp(s, line @ along, line @ normal).astype(np.float32)
    away = np.abs(columns * np.float32(normal[0]) + rows * np.float32(normal[1]) - middle) - edge * np.float32(7)
    weight = 1 - ground.smoothstep(away, half - 1.2, half + 1.2)
    bank = 1 - ground.smoothstep(away, half + 3, half + 16)
    canvas.cover(ground.soil(rng, noise), bank)
    canvas.cover(ground.water(rng, noise), weight)
    water, banks = canvas.zone(weight, 2), canvas.zone(1 - bank, 3)
    length = 2 * half + 44
    spread = (-0.22, 0.24) if rng.random() < 0.5 else (float(rng.uniform(-0.2, 0.2)),)
    for share in spread:
        k = 12 + share * 14
        x, y = (float(np.interp(k, np.arange(25), line[:, i])) for i in (0, 1))
        direction = (
            float(np.degrees(np.arctan2(*(line[int(k) + 1] - line[int(k)])[::-1]))) + 90 + float(rng.normal(0, 5))
        )
        deck = Placement(x, y, direction)
        width = bridge_width(length)
        ends = [
            deck.at(r, 0)
            for r in (-canvas.width - canvas.height, -length / 2 + 2, length / 2 - 2, canvas.width + canvas.height)
        ]
        for start, end in (ends[:2], ends[2:]):
            canvas.road(np.array(((start.x, start.y), (end.x, end.y))), width * 0.8)
        canvas.put(bridge, length / canvas.scale, deck)
        lane = np.array([deck.at(r, 0)[:2] for r in np.linspace(-1, 1, 21) * max(canvas.width, canvas.height)])
        traffic(canvas, lane, width * 0.8, 0.3)
    for _ in some(canvas, 1, 4):
        canvas.place(ship, float(rng.uniform(52, 110)), water, (flow, flow + 180), 6)
    for _ in some(canvas, 1, 5):
        canvas.place(building, float(rng.uniform(52, 96)), banks, right_angles(flow))
    if rng.random() < 0.5:
        canvas.place(baseballfield, float(rng.uniform(60, 80)), banks)
    if rng.random() < 0.4:
        canvas.place(storagetank, float(rng.uniform(40, 60)), banks)
    canvas.trees(70, banks, 10)


def park(canvas: Canvas) -> None:
    """Sports grounds among lawns and trees, with a street and a parking lot."""
    rng = canvas.rng
    land(canvas, farmed=0.0)
    axis = main_direction(canvas)
    side = min(canvas.height, canvas.width)
    street = across(canvas, axis, float(rng.choice([-0.42, 0.42])) * side, float(rng.uniform(-0.05, 0.05)))
    canvas.road(street, 30 * canvas.scale)
    zone = canvas.everywhere()
    angles = right_angles(axis)
    if rng.random() < 0.6:
        canvas.place(groundtrackfield, float(rng.uniform(230, 330)), zone, angles, 10)
    for _ in some(canvas, 0, 3):
        canvas.place(baseballfield, float(rng.uniform(62, 100)), zone, None, 8)
    court = float(rng.uniform(66, 96))
    if rng.random() < 0.75:
        row_of(canvas, tenniscourt, court, int(rng.integers(1, 5)), court * 0.62, axis, zone, axis + 90)
    for _ in some(canvas, 0, 2):
        canvas.place(tenniscourt, court * float(rng.uniform(0.85, 1.1)), zone, angles)
    for _ in some(canvas, 0, 3):
        canvas.place(basketballcourt, float(rng.uniform(58, 84)), zone, angles)
    parking(canvas, zone, axis)
    for _ in some(canvas, 0, 3):
        canvas.place(building, float(rng.uniform(64, 120)), zone, angles)
    traffic(canvas, street, 30 * canvas.scale, 0.2)
    canvas.trees(110, zone, 10)


def industry(canvas: Canvas) -> None:
    """Storage tanks in rows, sheds, roads with vehicles."""
    rng, noise = canvas.rng, canvas.noise
    land(canvas, farmed=0.1)
    axis = main_direction(canvas)
    canvas.cover(ground.soil(rng, noise), ground.smoothstep(noise.coarse(), -0.9, -0.2))
    side = min(canvas.height, canvas.width)
    street = across(canvas, axis, float(rng.uniform(-0.3, 0.3)) * side, 0.0)
    canvas.road(street, 32 * canvas.scale)
    if rng.random() < 0.5:
        canvas.road(across(canvas, axis + 90, float(rng.uniform(-0.35, 0.35)) * side, 0.0), 28 * canvas.scale)
    zone = canvas.everywhere()
    for _ in some(canvas, 1, 3):
        tank = float(rng.uniform(36, 84))
        row_of(
            canvas,
            storagetank,
            tank,
            int(rng.integers(2, 6)),
            tank * 1.22,
            axis + float(rng.choice([0, 90])),
            zone,
            axis,
        )
    for _ in some(canvas, 0, 3):
        canvas.place(storagetank, float(rng.uniform(30, 100)), zone)
    for _ in some(canvas, 1, 5):
        canvas.place(building, float(rng.uniform(80, 160)), zone, right_angles(axis))
    traffic(canvas, street, 32 * canvas.scale, 0.3)
    parking(canvas, zone, axis)
    for _ in some(canvas, 0, 4):
        canvas.place(vehicle, float(rng.uniform(25, 31)), zone, right_angles(axis), 5)
    canvas.trees(40, zone)


def town(canvas: Canvas) -> None:
    """Houses along streets, gardens with trees and pools, a court here and there."""
    rng = canvas.rng
    land(canvas, farmed=0.0)
    axis = main_direction(canvas)
    side = min(canvas.height, canvas.width)
    bend = float(rng.uniform(-0.06, 0.06))
    streets = [
        across(canvas, axis, offset * side, bend)
        for offset in rng.choice([-0.3, 0.0, 0.3], int(rng.integers(1, 3)), replace=False)
    ]
    for street in streets:
        canvas.road(street, 27 * canvas.scale)
    canvas.road(across(canvas, axis + 90, float(rng.uniform(-0.3, 0.3)) * side, 0.0), 27 * canvas.scale)
    zone = canvas.everywhere()
    if rng.random() < 0.7:
        canvas.place(tenniscourt, float(rng.uniform(64, 84)), zone, right_angles(axis))
    if rng.random() < 0.6:
        canvas.place(basketballcourt, float(rng.uniform(54, 72)), zone, right_angles(axis))
    if rng.random() < 0.25:
        canvas.place(plaza, 110, zone, right_angles(axis))
    house = float(rng.uniform(52, 86))
    for _ in some(canvas, 5, 14):
        canvas.place(building, house * float(rng.uniform(0.8, 1.35)), zone, right_angles(axis))
    for _ in some(canvas, 0, 4):
        canvas.place(pool, float(rng.uniform(22, 34)), zone, right_angles(axis), 3)
    for street in streets:
        traffic(canvas, street, 27 * canvas.scale, 0.28)
    parking(canvas, zone, axis)
    canvas.trees(100, zone, 8)


def coast(canvas: Canvas) -> None:
    """A natural shore: beach, ships on the water, a few houses, fields or a ball field behind."""
    rng, noise = canvas.rng, canvas.noise
    land(canvas, farmed=0.3)
    water = shore(canvas, float(rng.uniform(0.35, 0.6)))
    from_water = ground.smoothstep(blurred(water, 14), 0.08, 0.3)
    canvas.cover(ground.soil(rng, noise), from_water)
    canvas.cover(ground.water(rng, noise), water)
    sea, shore_side = canvas.zone(water, 4), canvas.zone(1 - from_water, 2)
    size = float(rng.uniform(60, 130))
    for _ in some(canvas, 2, 6):
        canvas.place(ship, size * float(rng.uniform(0.6, 1.3)), sea, margin=10)
    for _ in some(canvas, 0, 4):
        canvas.place(building, float(rng.uniform(50, 90)), shore_side)
    for draw, length, chance in ((baseballfield, 76.0, 0.5), (storagetank, 50.0, 0.4), (tenniscourt, 78.0, 0.4)):
        if rng.random() < chance:
            canvas.place(draw, length * float(rng.uniform(0.85, 1.2)), shore_side)
    canvas.trees(60, shore_side)


def countryside(canvas: Canvas) -> None:
    """Farmland with a road, and objects of almost any kind in the clear."""
    rng = canvas.rng
    land(canvas, farmed=0.7)
    axis = main_direction(canvas)
    road = across(
        canvas, axis, float(rng.uniform(-0.35, 0.35)) * min(canvas.height, canvas.width), float(rng.uniform(-0.1, 0.1))
    )
    canvas.road(road, 28 * canvas.scale)
    zone = canvas.everywhere()
    kinds: list[tuple[Draw, float]] = [
        (airplane, 84), (storagetank, 56), (tenniscourt, 80), (basketballcourt, 68), (baseballfield, 84),
        (building, 78),
    ]  # fmt: skip
    if rng.random() < 0.25:
        canvas.place(groundtrackfield, float(rng.uniform(220, 290)), zone)
    for index in rng.choice(len(kinds), 2, replace=False):
        draw, length = kinds[int(index)]
        for _ in some(canvas, 1, 4):
            canvas.place(draw, length * float(rng.uniform(0.75, 1.3)), zone, margin=12)
    traffic(canvas, road, 28 * canvas.scale, 0.25)
    canvas.trees(60, zone, 10)


THEMES: dict[str, Callable[[Canvas], None]] = {
    "airport": airport,
    "port": port,
    "river": river,
    "park": park,
    "industry": industry,
    "town": town,
    "coast": coast,
    "countryside": countryside,
}
"""Kinds of scene by name."""

"""Storage tanks, harbors, bridges and buildings as blueprints."""

from __future__ import annotations

import numpy as np

from dataset_tools.synthetic.blueprints import (
    Blueprint,
    Points,
    Rgb,
    circle,
    line,
    polygon,
    rectangle,
    sector,
    shade,
    vary,
)
from dataset_tools.synthetic.vehicles import ship

ROOF_COLORS: dict[str, Rgb] = {
    "red": (164, 82, 62),
    "brown": (124, 96, 76),
    "gray": (136, 138, 140),
    "white": (214, 214, 208),
    "blue": (74, 112, 158),
}


def storagetank(rng: np.random.Generator, length: float, light: Points) -> Blueprint:
    """A cylindrical tank of diameter ``length`` with a cone or a floating roof."""
    radius = length / 2
    color = str(rng.choice(["white", "gray", "brown"], p=[0.62, 0.26, 0.12]))
    paint = vary(rng, {"white": (228, 229, 226), "gray": (152, 156, 158), "brown": (150, 120, 94)}[color], 6)
    tank = Blueprint("storagetank", color, height=length * rng.uniform(0.2, 0.4))
    tank.add(circle(0, 0, radius), shade(paint, 0.86))
    if rng.random() < 0.65:  # cone roof: each sector reflects by how it faces the sun
        towards = np.degrees(np.arctan2(light[1], light[0]))
        for start in range(0, 360, 20):
            tint = 0.97 + 0.07 * np.cos(np.radians(start + 10 - towards))
            tank.add(sector(0, 0, radius * 0.95, start, start + 21), shade(paint, float(tint)))
        tank.add(circle(0, 0, max(1.0, radius * 0.09)), shade(paint, 0.7))
    else:  # floating roof: it lies below the rim, which throws a shadow on it
        tank.add(circle(0, 0, radius * 0.9), shade(paint, 0.58))
        drop = light * radius * -0.12
        tank.add(circle(0, 0, radius * 0.88) * 0.93 + drop, shade(paint, 0.84))
        tank.add(circle(drop[0], drop[1], radius * 0.4), shade(paint, 0.9))
    turn = rng.uniform(0, 2 * np.pi)
    stair = np.array((np.cos(turn), np.sin(turn))) * radius
    tank.add(
        line(stair[0] * 0.35, stair[1] * 0.35, stair[0] * 0.96, stair[1] * 0.96, max(0.9, radius * 0.05)),
        shade(paint, 0.66),
    )
    return tank


def harbor(rng: np.random.Generator, length: float, light: Points) -> Blueprint:
    """A dock with finger piers and moored boats, ``length`` pixels long, going out to +x.

    The mask is the dock as annotators outline it: walkway, slips and the boats moored in them.
    """
    wood = vary(rng, ((176, 164, 146), (150, 150, 150), (196, 190, 180))[rng.integers(3)], 6)
    slip = length * rng.uniform(0.2, 0.26)
    count = int(rng.integers(5, 9))
    pitch = length / count
    dock = Blueprint("harbor", height=2.0)
    sides = (-1, 1) if rng.random() < 0.75 else (1,)
    reach = slip * 1.12
    top, bottom = (-reach if -1 in sides else -length * 0.03), reach
    dock.add(polygon((-length / 2, top), (length / 2, top), (length / 2, bottom), (-length / 2, bottom)), None)
    dock.add(rectangle(0, 0, length, max(3.0, length * 0.035)), wood)
    for side in sides:
        for k in range(count + 1):
            x = -length / 2 + k * pitch
            x = min(max(x, -length / 2 + 1), length / 2 - 1)
            dock.add(line(x, 0, x, side * slip, max(1.4, length * 0.011)), shade(wood, 0.95))
        for k in range(count):
            if rng.random() < 0.9:
                boat = ship(rng, slip * rng.uniform(0.78, 0.96), light)
                middle = (-length / 2 + (k + 0.5) * pitch, side * slip * 0.54)
                narrow = min(1.0, pitch * 0.72 / (slip * 0.3))
                for part in boat.parts:
                    if part.in_mask:
                        turned = np.stack((part.points[:, 1] * narrow, part.points[:, 0] * side), axis=1) + middle
                        dock.add(turned, part.rgb)
    return dock


def bridge(rng: np.random.Generator, length: float, _light: Points) -> Blueprint:
    """A road bridge of ``length`` pixels along x; its width is that of the road, see :func:`bridge_width`."""
    width = bridge_width(length)
    concrete = vary(rng, ((196, 192, 184), (168, 168, 166), (152, 146, 138))[rng.integers(3)], 6)
    deck = Blueprint("bridge", height=8.0)
    deck.add(rectangle(0, 0, length, width), concrete)
    asphalt = vary(rng, (104, 104, 106), 8)
    deck.add(rectangle(0, 0, length, width * 0.8), asphalt)
    for y in (-0.36 * width, 0.36 * width):
        deck.add(line(-length / 2, y, length / 2, y, 1.0), (206, 206, 200))
    for x in np.arange(-length / 2 + 6, length / 2 - 6, 16.0).tolist():
        deck.add(line(x, 0, x + 8, 0, 1.1), (222, 214, 170))
    if rng.random() < 0.4:  # a truss: cross beams over the road
        for x in np.arange(-length / 2 + 10, length / 2 - 10, 20.0).tolist():
            deck.add(line(x, -width / 2, x, width / 2, 1.4), shade(concrete, 1.08))
            deck.add(line(x, -width / 2, x + 20, width / 2, 0.9), shade(concrete, 0.95))
    else:
        for x in np.arange(-length / 2 + 18, length / 2, 36.0).tolist():
            deck.add(line(x, -width / 2, x, width / 2, 0.9), shade(asphalt, 0.84))
    return deck


def bridge_width(length: float) -> float:
    """Width in pixels of a bridge of ``length`` pixels, and of the road that leads onto it."""
    return float(np.clip(length * 0.11, 22, 40))


def building(rng: np.random.Generator, length: float, light: Points) -> Blueprint:
    """A building with a flat, gabled or hipped roof, ``length`` pixels long."""
    width = length * rng.uniform(0.5, 0.8)
    color = str(rng.choice(list(ROOF_COLORS), p=[0.27, 0.2, 0.27, 0.16, 0.1]))
    roof = vary(rng, ROOF_COLORS[color], 8)
    house = Blueprint("building", color, height=length * rng.uniform(0.1, 0.22))
    kind = str(rng.choice(["flat", "gable", "hip", "wings"], p=[0.36, 0.26, 0.2, 0.18]))
    a, b = length / 2, width / 2

    def face(points: Points, normal: tuple[float, float]) -> None:
        house.add(points, shade(roof, 1.0 + 0.16 * float(np.dot(light, normal))))

    if kind == "gable":
        face(polygon((-a, -b), (a, -b), (a, 0), (-a, 0)), (0, -1))
        face(polygon((-a, 0), (a, 0), (a, b), (-a, b)), (0, 1))
        house.add(line(-a, 0, a, 0, 1.1), shade(roof, 1.18))
        for x in np.arange(-a + 4, a, 5.0).tolist():
            house.add(line(x, -b, x, b, 0.6), shade(roof, 0.93), opacity=0.5)
    elif kind == "hip":
        ridge = a - b * 0.9
        face(polygon((-a, -b), (a, -b), (ridge, 0), (-ridge, 0)), (0, -1))
        face(polygon((-a, b), (a, b), (ridge, 0), (-ridge, 0)), (0, 1))
        face(polygon((a, -b), (a, b), (ridge, 0)), (1, 0))
        face(polygon((-a, -b), (-a, b), (-ridge, 0)), (-1, 0))
        house.add(line(-ridge, 0, ridge, 0, 1.0), shade(roof, 1.16))
    else:
        blocks = [rectangle(0, 0, length, width)]
        if kind == "wings":
            corner = float(rng.choice([-1, 1]))
            blocks = [
                rectangle(0, -b * 0.45, length, width * 0.55),
                rectangle(corner * a * 0.62, b * 0.3, length * 0.38, width * 0.7),
            ]
        for block in blocks:
            house.add(block, shade(roof, 0.82))
        for block in blocks:
            house.add((block - block.mean(0)) * (1 - 4 / length) + block.mean(0), roof)
        for _ in range(int(rng.integers(2, 7))):
            inside = blocks[rng.integers(len(blocks))]
            low, high = inside.min(0), inside.max(0)
            x, y = rng.uniform(low + 0.2 * (high - low), high - 0.2 * (high - low))
            size = rng.uniform(0.05, 0.1) * length
            shadow = -light * size * 0.4
            house.add(rectangle(x + shadow[0], y + shadow[1], size, size * 0.8), shade(roof, 0.68))
            house.add(rectangle(x, y, size, size * 0.8), shade(roof, 1.16))
    return house

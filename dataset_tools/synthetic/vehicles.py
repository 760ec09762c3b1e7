"""Airplanes, ships and vehicles as blueprints."""

from __future__ import annotations

import numpy as np

from dataset_tools.synthetic.blueprints import (
    Blueprint,
    Points,
    Rgb,
    circle,
    line,
    mirrored,
    polygon,
    rectangle,
    rounded,
    shade,
    vary,
)

WINDOW: Rgb = (38, 44, 54)
VEHICLE_COLORS: dict[str, Rgb] = {
    "white": (236, 236, 232),
    "gray": (140, 143, 148),
    "black": (34, 35, 40),
    "red": (186, 34, 34),
    "blue": (36, 72, 168),
    "yellow": (232, 188, 44),
    "green": (40, 110, 62),
}
SHIP_COLORS: dict[str, Rgb] = {
    "white": (228, 230, 228),
    "gray": (128, 134, 140),
    "red": (158, 52, 42),
    "blue": (48, 82, 142),
    "black": (52, 52, 54),
}
CONTAINERS: tuple[Rgb, ...] = (
    (168, 58, 44),
    (46, 84, 148),
    (196, 150, 60),
    (72, 122, 88),
    (206, 208, 204),
    (120, 92, 74),
)


def airplane(rng: np.random.Generator, length: float, _light: Points) -> Blueprint:
    """An airliner, a propeller plane or a delta-winged jet, nose towards +x; ``length`` in pixels."""
    kind = rng.choice(["airliner", "propeller", "delta"], p=[0.66, 0.22, 0.12])
    color = "gray" if kind == "delta" or rng.random() < 0.18 else "white"
    paint = vary(rng, (232, 233, 234) if color == "white" else (146, 152, 158), 6)
    accent: Rgb = [(178, 40, 44), (34, 66, 140), (28, 110, 90), (216, 146, 40), (70, 72, 80)][rng.integers(5)]
    plane = Blueprint("airplane", color, height=0.09 * length)
    half = length * rng.uniform(0.042, 0.052)
    x = np.array([0.5, 0.485, 0.45, 0.40, -0.22, -0.36, -0.47, -0.5]) * length
    y = np.array([0.0, 0.42, 0.78, 1.0, 1.0, 0.72, 0.28, 0.0]) * half
    fuselage = np.concatenate((np.stack((x, y), 1), np.stack((x, -y), 1)[::-1]))
    if kind == "delta":
        wing = polygon((0.20, 0.03), (-0.30, 0.36), (-0.38, 0.36), (-0.40, 0.03)) * length
        tail = polygon((-0.34, 0.02), (-0.46, 0.16), (-0.50, 0.16), (-0.49, 0.02)) * length
        engines: list[Points] = []
    elif kind == "propeller":
        span = rng.uniform(0.50, 0.58)
        wing = polygon((0.17, 0.0), (0.14, span), (0.02, span), (-0.02, 0.0)) * length
        tail = polygon((-0.38, 0.0), (-0.40, 0.2), (-0.48, 0.2), (-0.49, 0.0)) * length
        engines = [rounded(0.16 * length, 0.2 * length, 0.14 * length, 0.055 * length, 0.02 * length)]
    else:
        span, sweep = rng.uniform(0.44, 0.5), rng.uniform(0.12, 0.22)
        wing = (
            polygon((0.13, 0.03), (-sweep - 0.02, span), (-sweep - 0.07, span), (-0.06, 0.14), (-0.09, 0.03)) * length
        )
        tail = polygon((-0.36, 0.02), (-0.455, 0.18), (-0.495, 0.18), (-0.465, 0.02)) * length
        engines = [rounded(0.03 * length, 0.155 * length, 0.1 * length, 0.042 * length, 0.018 * length)]
        if rng.random() < 0.3:
            engines.append(rounded(-0.055 * length, 0.28 * length, 0.09 * length, 0.038 * length, 0.016 * length))
    for engine in engines:
        plane.add(engine, shade(paint, 0.72))
        plane.add(mirrored(engine), shade(paint, 0.72))
    for surface, tint in ((wing, 0.9), (tail, 0.88)):
        plane.add(surface, shade(paint, tint))
        plane.add(mirrored(surface), shade(paint, tint * 0.97))
    if kind == "airliner" and rng.random() < 0.5:
        tip = np.stack((wing[1], wing[2], wing[2] * (1.0, 0.9), wing[1] * (0.9, 0.9)))
        plane.add(tip, accent)
        plane.add(mirrored(tip), accent)
    plane.add(fuselage, paint)
    plane.add(fuselage * (0.93, 0.38), shade(paint, 1.06))
    plane.add(line(-0.49 * length, 0, -0.34 * length, 0, max(1.2, 0.022 * length)), accent)
    plane.add(rounded(0.435 * length, 0, 0.035 * length, half * 1.1, half * 0.3), WINDOW)
    return plane


def ship(rng: np.random.Generator, length: float, _light: Points) -> Blueprint:
    """A cargo, container or tank ship, a ferry, or a small boat, bow towards +x; ``length`` in pixels."""
    kinds = ["boat", "yacht"] if length < 46 else ["cargo", "container", "tanker", "ferry", "navy"]
    kind = str(rng.choice(kinds))
    names = {"navy": ["gray"], "yacht": ["white"], "ferry": ["white", "blue"], "tanker": ["red", "black", "gray"]}
    color = str(rng.choice(names.get(kind, list(SHIP_COLORS))))
    hull = vary(rng, SHIP_COLORS[color], 7)
    beam = length * (rng.uniform(0.26, 0.32) if length < 46 else rng.uniform(0.15, 0.2))
    vessel = Blueprint("ship", color, height=0.05 * length)
    stern = rng.uniform(0.78, 0.95)
    x = np.array([0.5, 0.44, 0.36, 0.26, -0.44, -0.5]) * length
    y = np.array([0.0, 0.45, 0.8, 1.0, 1.0, stern]) * beam / 2
    outline = np.concatenate((np.stack((x, y), 1), np.stack((x, -y), 1)[::-1]))
    if rng.random() < 0.4:  # under way: a wake behind it, which is water and not ship
        wake = polygon((-0.5, -0.12), (-0.5, 0.12), (-1.15, 0.3), (-1.0, 0.0), (-1.15, -0.3)) * (length, beam * 1.3)
        vessel.add(wake, (196, 210, 214), in_mask=False, opacity=0.28)
        vessel.add(wake * (0.8, 0.45), (222, 230, 232), in_mask=False, opacity=0.35)
    vessel.add(outline, hull)
    # The deck keeps the hull's colour word: ships are seen from above, the deck is most of what is visible.
    deck = shade(hull, 1.12) if color != "black" else (84, 80, 78)
    vessel.add(outline * (0.95, 0.8), deck)
    bridge: Rgb = (238, 238, 234)
    if kind in ("boat", "yacht"):
        vessel.add(outline * (0.55, 0.55) - (0.12 * length, 0), bridge if color != "white" else (176, 186, 192))
        vessel.add(rectangle(0.08 * length, 0, 0.07 * length, beam * 0.5), WINDOW)
        if rng.random() < 0.5:
            vessel.add(rectangle(-0.36 * length, 0, 0.14 * length, beam * 0.6), vary(rng, (150, 116, 80)))
        return vessel
    if kind == "container":
        for row in np.linspace(-0.28, 0.3, 9):
            for side in (-0.27, 0.0, 0.27):
                box = CONTAINERS[rng.integers(len(CONTAINERS))]
                vessel.add(rectangle(row * length, side * beam, 0.055 * length, 0.25 * beam), vary(rng, box, 6))
    elif kind == "cargo":
        for hatch in np.linspace(-0.2, 0.3, int(rng.integers(3, 6))):
            vessel.add(rectangle(hatch * length, 0, 0.09 * length, beam * 0.56), shade(deck, 0.68))
            vessel.add(rectangle(hatch * length, 0, 0.075 * length, beam * 0.46), shade(deck, 0.8))
            vessel.add(line((hatch + 0.06) * length, -beam * 0.3, (hatch + 0.06) * length, beam * 0.3, 1.4), bridge)
    elif kind == "tanker":
        vessel.add(line(-0.3 * length, 0, 0.36 * length, 0, max(1.2, beam * 0.07)), (206, 204, 196))
        for pipe in np.linspace(-0.2, 0.3, 6):
            vessel.add(line(pipe * length, -beam * 0.34, pipe * length, beam * 0.34, 1.1), shade(deck, 1.35))
        vessel.add(circle(0.02 * length, 0, beam * 0.1), (214, 212, 206))
    else:
        vessel.add(outline * (0.72, 0.62) - (0.04 * length, 0), shade(deck, 1.1 if kind == "ferry" else 0.86))
        for deckhouse in (-0.14, 0.12):
            vessel.add(rectangle(deckhouse * length, 0, 0.16 * length, beam * 0.42), shade(deck, 0.78))
        vessel.add(circle(-0.02 * length, 0, beam * 0.13), (96, 60, 50) if kind == "ferry" else (70, 74, 78))
    if kind != "navy":
        vessel.add(rounded(-0.4 * length, 0, 0.1 * length, beam * 0.74, 1.5), bridge)
        vessel.add(rectangle(-0.355 * length, 0, 0.014 * length, beam * 0.6), WINDOW)
        vessel.add(circle(-0.43 * length, 0, beam * 0.1), (150, 60, 44))
    else:
        vessel.add(line(0.3 * length, 0, 0.42 * length, 0, max(1.0, beam * 0.1)), shade(deck, 0.6))
    return vessel


def vehicle(rng: np.random.Generator, length: float, _light: Points) -> Blueprint:
    """A car, van, truck or bus, front towards +x; ``length`` in pixels of a car (trucks and buses are longer)."""
    kind = str(rng.choice(["car", "van", "truck", "bus"], p=[0.66, 0.16, 0.11, 0.07]))
    color = str(rng.choice(list(VEHICLE_COLORS), p=[0.3, 0.17, 0.14, 0.14, 0.13, 0.07, 0.05]))
    paint = vary(rng, VEHICLE_COLORS[color], 7)
    width = length * rng.uniform(0.42, 0.47)
    body = Blueprint("vehicle", color, height=0.22 * length)
    if kind == "truck":
        long = length * rng.uniform(1.5, 2.0)
        body.add(rounded(-0.12 * long, 0, 0.76 * long, width * 1.1, 1.0), paint)
        body.add(rectangle(-0.12 * long, 0, 0.7 * long, width * 0.92), shade(paint, 1.07))
        for rib in np.linspace(-0.42, 0.18, 6):
            body.add(line(rib * long, -width * 0.45, rib * long, width * 0.45, 0.9), shade(paint, 0.86))
        body.add(rounded(0.38 * long, 0, 0.2 * long, width, width * 0.16), shade(paint, 0.95))
        body.add(rectangle(0.44 * long, 0, 0.045 * long, width * 0.8), WINDOW)
        body.add(rectangle(0.27 * long, 0, 0.03 * long, width * 0.5), (60, 60, 62))
        return body
    if kind == "bus":
        long = length * rng.uniform(1.9, 2.3)
        body.add(rounded(0, 0, long, width * 1.08, width * 0.18), paint)
        body.add(rounded(0, 0, 0.94 * long, width * 0.84, width * 0.14), shade(paint, 1.08))
        for unit in (-0.25, 0.12):
            body.add(rectangle(unit * long, 0, 0.14 * long, width * 0.5), shade(paint, 0.76))
        body.add(rectangle(0.47 * long, 0, 0.025 * long, width * 0.86), WINDOW)
        return body
    long = length * (1.12 if kind == "van" else 1.0)
    body.add(rounded(0, 0, long, width, width * 0.3), paint)
    roof = (-0.14, 0.5) if kind == "van" else (-0.09, 0.36)
    body.add(rounded(roof[0] * long, 0, (roof[1] + 0.24) * long, width * 0.82, width * 0.16), WINDOW)
    body.add(rounded(roof[0] * long, 0, roof[1] * long, width * 0.74, width * 0.14), shade(paint, 1.1))
    body.add(line(0.32 * long, -width * 0.3, 0.44 * long, -width * 0.26, 0.9), shade(paint, 0.8))
    body.add(line(0.32 * long, width * 0.3, 0.44 * long, width * 0.26, 0.9), shade(paint, 0.8))
    return body

"""Sports grounds as blueprints: tennis and basketball courts, baseball fields, ground track fields."""

from __future__ import annotations

import numpy as np

from dataset_tools.synthetic.blueprints import (
    Blueprint,
    Points,
    Rgb,
    arc,
    band,
    circle,
    line,
    polygon,
    rectangle,
    rounded,
    sector,
    shade,
    vary,
)

CHALK: Rgb = (232, 232, 226)
COURT_COLORS: dict[str, Rgb] = {
    "green": (64, 122, 78),
    "blue": (52, 92, 158),
    "red": (166, 74, 58),
    "gray": (132, 134, 134),
    "orange": (206, 130, 70),
}
GRASS: tuple[Rgb, ...] = ((84, 124, 62), (98, 132, 70), (72, 108, 58), (116, 132, 78))
DIRT: tuple[Rgb, ...] = ((190, 148, 106), (176, 128, 88), (198, 166, 128), (164, 112, 80))


def tenniscourt(rng: np.random.Generator, length: float, _light: Points) -> Blueprint:
    """A fenced tennis court, ``length`` pixels long and half as wide, with its lines and net."""
    width = length * rng.uniform(0.48, 0.54)
    color = str(rng.choice(["green", "blue", "red"], p=[0.4, 0.38, 0.22]))
    surround = color if rng.random() < 0.3 else str(rng.choice([c for c in ("green", "blue", "red") if c != color]))
    court = Blueprint("tenniscourt", color)
    inner = vary(rng, COURT_COLORS[color], 6)
    outer = shade(vary(rng, COURT_COLORS[surround], 6), 0.86 if surround == color else 0.96)
    # Where the surround has another colour it stays a narrow frame, so that the court has one colour word.
    margin = 1.0 if surround == color else 0.86
    court.add(rectangle(0, 0, length, width), outer)
    a, b = length * 0.66 / margin / 2, width * 0.62 / margin / 2
    court.add(rectangle(0, 0, 2 * a, 2 * b), inner)
    pen = max(0.9, length * 0.011)
    for y in (-b, -0.75 * b, 0.75 * b, b):
        court.add(line(-a, y, a, y, pen), CHALK)
    for x in (-a, -0.54 * a, 0.54 * a, a):
        reach = b if abs(x) == a else 0.75 * b
        court.add(line(x, -reach, x, reach, pen), CHALK)
    court.add(line(-0.54 * a, 0, 0.54 * a, 0, pen), CHALK)
    court.add(line(0, -1.08 * b, 0, 1.08 * b, pen * 1.2), (58, 62, 60))
    return court


def basketballcourt(rng: np.random.Generator, length: float, _light: Points) -> Blueprint:
    """A basketball court, ``length`` pixels long, with keys, three-point lines and centre circle."""
    width = length * rng.uniform(0.52, 0.58)
    color = str(rng.choice(list(COURT_COLORS)))
    court = Blueprint("basketballcourt", color)
    floor = vary(rng, COURT_COLORS[color], 7)
    key = vary(rng, COURT_COLORS[str(rng.choice([c for c in COURT_COLORS if c != color]))], 6)
    pen = max(0.9, length * 0.011)
    a, b = length * 0.455, width * 0.44
    court.add(rectangle(0, 0, length, width), shade(floor, 0.9))
    court.add(rectangle(0, 0, 2 * a, 2 * b), floor)
    for side in (-1, 1):
        court.add(rectangle(side * a * 0.8, 0, a * 0.4, b * 0.64), key)
        facing = 90 if side > 0 else -90
        three = arc(side * a * 0.88, 0, b * 0.84, facing, facing + 180, 28)
        court.add(
            band(np.concatenate((polygon((side * a, three[0, 1])), three, polygon((side * a, three[-1, 1])))), pen),
            CHALK,
        )
        court.add(band(arc(side * a * 0.6, 0, b * 0.32, facing, facing + 180, 16), pen), CHALK)
        court.add(line(side * a * 0.6, -b * 0.32, side * a * 0.6, b * 0.32, pen), CHALK)
        for edge in (-0.32, 0.32):
            court.add(line(side * a * 0.6, edge * b, side * a, edge * b, pen), CHALK)
        court.add(rectangle(side * a * 0.94, 0, pen * 1.6, b * 0.22), (236, 236, 236))
    for x in (-a, 0.0, a):
        court.add(line(x, -b, x, b, pen), CHALK)
    for y in (-b, b):
        court.add(line(-a, y, a, y, pen), CHALK)
    court.add(circle(0, 0, b * 0.32), key)
    court.add(band(arc(0, 0, b * 0.32, 0, 360, 28), pen), CHALK)
    return court


def baseballfield(rng: np.random.Generator, length: float, _light: Points) -> Blueprint:
    """A baseball diamond, home plate towards -x, ``length`` pixels from home plate to the infield's far edge.

    The mask is the diamond (infield dirt with what it encloses); the mown outfield beyond it is drawn, not masked.
    """
    field = Blueprint("baseballfield")
    dirt, grass = vary(rng, DIRT[rng.integers(len(DIRT))], 6), vary(rng, GRASS[rng.integers(len(GRASS))], 6)
    home = -length * 0.5
    if rng.random() < 0.8:
        reach = length * rng.uniform(1.7, 2.2)
        field.add(sector(home, 0, reach, -46, 46), shade(grass, 0.96), in_mask=False)
        for k in range(0, 7, 2):
            ring = np.concatenate(
                (arc(home, 0, reach * (0.5 + k / 14), -46, 46), arc(home, 0, reach * (0.57 + k / 14), 46, -46))
            )
            field.add(ring, shade(grass, 1.05), in_mask=False)
        if rng.random() < 0.5:
            track = np.concatenate((arc(home, 0, reach, -46, 46), arc(home, 0, reach * 0.95, 46, -46)))
            field.add(track, shade(dirt, 0.95), in_mask=False)
    skin = np.concatenate((polygon((home - length * 0.05, 0)), arc(home + length * 0.2, 0, length * 0.8, -68, 68, 32)))
    field.add(skin, dirt)
    field.add(circle(home + length * 0.03, 0, length * 0.12), dirt)
    side = length * rng.uniform(0.46, 0.52)
    square = polygon((0, 0), (side, side), (2 * side, 0), (side, -side)) * np.sqrt(0.5) + (home + length * 0.06, 0)
    if rng.random() < 0.75:
        field.add((square - square.mean(axis=0)) * 0.84 + square.mean(axis=0), shade(grass, 1.02))
        field.add(circle(square[:, 0].mean(), 0, length * 0.06), dirt)
        field.add(circle(square[0, 0], 0, length * 0.085), dirt)
    pen = max(0.9, length * 0.014)
    for turn in (-1, 1):
        end = length * 0.72
        field.add(line(square[0, 0], 0, square[0, 0] + end * 0.72, turn * end * 0.72, pen), CHALK)
    for base in square[1:]:
        field.add(rectangle(base[0], base[1], pen * 1.8, pen * 1.8), (244, 244, 240))
    return field


def groundtrackfield(rng: np.random.Generator, length: float, _light: Points) -> Blueprint:
    """A running track of ``length`` pixels with its lanes and the field inside; the mask is all of it."""
    width = length * rng.uniform(0.5, 0.58)
    track = Blueprint("groundtrackfield")
    tartan = vary(
        rng, ((172, 84, 66), (160, 92, 74), (78, 108, 150), (150, 140, 126))[rng.choice(4, p=[0.5, 0.25, 0.1, 0.15])], 7
    )
    grass = vary(rng, GRASS[rng.integers(len(GRASS))], 6)
    lanes = width * rng.uniform(0.13, 0.17)
    track.add(rounded(0, 0, length, width, width / 2 - 1e-6), tartan)
    pen = max(0.8, length * 0.0028)
    for k in range(7):
        inset = lanes * k / 6
        outline = rounded(0, 0, length - 2 * inset, width - 2 * inset, width / 2 - inset - 1e-6)
        track.add(band(np.concatenate((outline, outline[:1])), pen), shade(CHALK, 0.94))
    inner_length, inner_width = length - 2 * lanes, width - 2 * lanes
    field = rounded(0, 0, inner_length, inner_width, inner_width / 2 - 1e-6)
    track.add(field, shade(grass, 0.95) if rng.random() < 0.6 else tartan)
    a, b = (length - width) / 2 * 1.08, inner_width / 2 * 0.9
    stripes = int(rng.integers(8, 13))
    for k in range(stripes):
        x = -a + (k + 0.5) * 2 * a / stripes
        track.add(rectangle(x, 0, 2 * a / stripes + 0.4, 2 * b), shade(grass, 1.04 if k % 2 else 0.97))
    pen = max(0.9, length * 0.0045)
    for x in (-a, 0.0, a):
        track.add(line(x, -b, x, b, pen), CHALK)
    for y in (-b, b):
        track.add(line(-a, y, a, y, pen), CHALK)
    track.add(band(arc(0, 0, b * 0.28, 0, 360, 28), pen), CHALK)
    for side in (-1, 1):
        track.add(line(side * a * 0.72, -b * 0.5, side * a * 0.72, b * 0.5, pen), CHALK)
        for y in (-b * 0.5, b * 0.5):
            track.add(line(side * a * 0.72, y, side * a, y, pen), CHALK)
    if rng.random() < 0.5:
        pit = rectangle(0.5 * length - lanes - inner_width * 0.18, 0, inner_width * 0.12, inner_width * 0.4)
        track.add(pit, (206, 186, 150))
    return track

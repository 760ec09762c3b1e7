"""Things that are no objects of a scene but make it a place: parking lots, pools, plazas, runways. Blueprints too."""

from __future__ import annotations

import numpy as np

from dataset_tools.synthetic.blueprints import Blueprint, Draw, Points, Rgb, line, rectangle, rounded, shade, vary

CHALK: Rgb = (216, 216, 208)


def parking_lot(bays: int, bay_width: float, bay_length: float) -> Draw:
    """A parking lot with one row of ``bays``; sizes in pixels at scale 1 (``length`` is its whole length)."""

    def draw(rng: np.random.Generator, length: float, _light: Points) -> Blueprint:
        scale = length / (bays * bay_width + 12)
        lot = Blueprint("")
        tone = float(rng.uniform(92, 122))
        lot.add(rectangle(0, 0, length, (bay_length * 1.9) * scale), (tone, tone, tone + 2), in_mask=False)
        for k in range(bays + 1):
            x = (-bays / 2 + k) * bay_width * scale
            lot.add(line(x, -0.9 * bay_length * scale, x, 0.2 * bay_length * scale, 1.1), CHALK, in_mask=False)
        return lot

    return draw


def pool(rng: np.random.Generator, length: float, _light: Points) -> Blueprint:
    """A swimming pool with a paved edge."""
    basin = Blueprint("")
    basin.add(rounded(0, 0, length, length * 0.62, length * 0.16), vary(rng, (206, 200, 188), 5), in_mask=False)
    basin.add(rounded(0, 0, length * 0.84, length * 0.44, length * 0.12), vary(rng, (86, 176, 196), 6), in_mask=False)
    return basin


def plaza(rng: np.random.Generator, length: float, _light: Points) -> Blueprint:
    """A paved square, twice as long as wide."""
    square = Blueprint("")
    tone = vary(rng, ((176, 172, 162), (152, 150, 148), (186, 170, 150))[rng.integers(3)], 6)
    square.add(rectangle(0, 0, length, length * 0.5), tone, in_mask=False)
    for x in np.linspace(-0.5, 0.5, 9).tolist():
        square.add(line(x * length, -0.25 * length, x * length, 0.25 * length, 0.9), shade(tone, 0.92), in_mask=False)
    return square


def runway(rng: np.random.Generator, length: float, _light: Points) -> Blueprint:
    """A runway with centre line, edge lines and threshold bars along x."""
    strip = Blueprint("")
    width = 78.0
    tone = float(rng.uniform(88, 112))
    strip.add(rectangle(0, 0, length, width * 1.16), (tone + 12, tone + 14, tone + 6), in_mask=False)
    strip.add(rectangle(0, 0, length, width), (tone, tone, tone + 2), in_mask=False)
    for y in (-0.44, 0.44):
        strip.add(line(-length / 2, y * width, length / 2, y * width, 1.8), CHALK, in_mask=False)
    for x in np.arange(-length / 2, length / 2, 46.0).tolist():
        strip.add(line(x, 0, x + 26, 0, 2.0), CHALK, in_mask=False)
    for _ in range(14):  # rubber of many landings
        start, y = rng.uniform(-0.4, 0.4) * length, float(rng.normal(0, 0.1)) * width
        strip.add(line(start, y, start + rng.uniform(40, 130), y, 3), (tone * 0.6,) * 3, in_mask=False, opacity=0.3)
    return strip


def taxi_line(rng: np.random.Generator, length: float, _light: Points) -> Blueprint:
    """A yellow guide line on an apron along x."""
    guide = Blueprint("")
    guide.add(line(-length / 2, 0, length / 2, 0, 1.5), vary(rng, (206, 176, 70), 5), in_mask=False)
    return guide

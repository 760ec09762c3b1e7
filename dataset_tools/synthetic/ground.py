"""Ground textures: multi-octave noise in the colours of grass, soil, asphalt, concrete, water and fields."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from dataset_tools.synthetic.blueprints import Rgb

Field: TypeAlias = npt.NDArray[np.float32]
"""float32[H, W]: one value per pixel."""
Texture: TypeAlias = npt.NDArray[np.float32]
"""float32[H, W, 3]: RGB in 0..255."""


def fractal(rng: np.random.Generator, height: int, width: int, cell: int, octaves: int, gain: float = 0.55) -> Field:
    """Value noise of several octaves that tiles the plane: mean about 0, standard deviation about 1.

    Args:
        rng: source of randomness.
        height, width: least size in pixels; the result is float32 of the next multiple of ``cell``, so that it tiles.
        cell: size in pixels of the coarsest features, divisible by 2 ** (octaves - 1); every octave halves it.
        octaves: number of octaves.
        gain: strength of each octave relative to the one before.
    """
    height, width = -(-height // cell) * cell, -(-width // cell) * cell
    total = np.zeros((height, width), np.float32)
    power = 0.0
    for octave in range(octaves):
        size, amplitude = cell >> octave, gain**octave
        grid = rng.standard_normal((height // size, width // size), dtype=np.float32) * np.float32(amplitude)
        grid = np.pad(grid, 2, mode="wrap")
        smooth = cv2.resize(grid, None, fx=size, fy=size, interpolation=cv2.INTER_CUBIC)
        total += smooth[2 * size : 2 * size + height, 2 * size : 2 * size + width]
        power += (amplitude * 0.7) ** 2
    total *= np.float32(1 / np.sqrt(power))
    return total


class Noise:
    """Noise fields of one scene, made once and shifted for every texture that needs its own."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self._rng = rng
        self._height, self._width = height, width
        quarter = fractal(rng, -(-height // 4), -(-width // 4), 56, 4)
        self._coarse = cv2.resize(quarter, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)
        self._medium = fractal(rng, height, width, 36, 3)
        self._fine = fractal(rng, height, width, 6, 2, 0.8)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the scene in pixels."""
        return self._height, self._width

    def _shifted(self, field: Field) -> Field:
        rows, columns = (int(self._rng.integers(side)) for side in field.shape)
        return np.roll(field, (rows, columns), axis=(0, 1))[: self._height, : self._width]

    def coarse(self) -> Field:
        """Features of some 200 pixels: float32[H, W]. Each call shifts the field, as good as new noise and cheaper."""
        return self._shifted(self._coarse)

    def medium(self) -> Field:
        """Features of some 30 pixels: float32[H, W]."""
        return self._shifted(self._medium)

    def fine(self) -> Field:
        """Features of some 5 pixels: float32[H, W]."""
        return self._shifted(self._fine)


def paint(base: Rgb, layers: list[tuple[Field, Rgb]]) -> Texture:
    """``base`` plus each field times its colour step: float32[H, W, 3]."""
    height, width = layers[0][0].shape
    texture = np.empty((height, width, 3), np.float32)
    for channel in range(3):
        plane = np.full((height, width), base[channel], np.float32)
        for field, step in layers:
            if step[channel]:
                plane += field * np.float32(step[channel])
        texture[..., channel] = plane
    return texture


def grass(rng: np.random.Generator, noise: Noise) -> Texture:
    """Meadow or lawn, from lush to dry."""
    base: Rgb = ((78, 104, 60), (96, 116, 66), (112, 118, 74), (66, 92, 56), (132, 128, 86))[rng.integers(5)]
    return paint(base, [(noise.coarse(), (9, 4, 3)), (noise.medium(), (5, 5, 4)), (noise.fine(), (5, 6, 4))])


def soil(rng: np.random.Generator, noise: Noise) -> Texture:
    """Bare earth, sand or gravel."""
    base: Rgb = ((168, 142, 110), (150, 124, 96), (178, 162, 132), (142, 132, 116))[rng.integers(4)]
    return paint(base, [(noise.coarse(), (11, 11, 9)), (noise.medium(), (6, 6, 6)), (noise.fine(), (5, 5, 5))])


def asphalt(rng: np.random.Generator, noise: Noise) -> Texture:
    """Dark road surface with stains."""
    level = float(rng.uniform(84, 116))
    return paint(
        (level, level, level + 3), [(noise.coarse(), (4, 4, 4)), (noise.medium(), (3, 3, 3)), (noise.fine(), (3, 3, 3))]
    )


def concrete(rng: np.random.Generator, noise: Noise) -> Texture:
    """Light slabs with joints, as on aprons and quays."""
    level = float(rng.uniform(150, 182))
    texture = paint(
        (level, level - 2, level - 9),
        [(noise.coarse(), (6, 6, 6)), (noise.medium(), (4, 4, 4)), (noise.fine(), (3, 3, 3))],
    )
    height, width = texture.shape[:2]
    pitch = int(rng.integers(26, 44))
    slabs = rng.normal(0, 3.0, (height // pitch + 2, width // pitch + 2)).astype(np.float32)
    texture += np.repeat(np.repeat(slabs, pitch, 0), pitch, 1)[:height, :width, None]
    texture[int(rng.integers(pitch)) :: pitch] -= 13
    texture[:, int(rng.integers(pitch)) :: pitch] -= 13
    return texture


def water(rng: np.random.Generator, noise: Noise) -> Texture:
    """Sea or river with ripples along one direction."""
    base: Rgb = ((38, 66, 82), (46, 78, 84), (52, 72, 66), (30, 54, 76), (62, 88, 92))[rng.integers(5)]
    height, width = noise.size
    long, short = (height, width // 6) if rng.random() < 0.5 else (height // 6, width)
    ripple = cv2.resize(
        fractal(rng, max(8, long), max(8, short), 12, 3), (width, height), interpolation=cv2.INTER_LINEAR
    )
    return paint(base, [(noise.coarse(), (4, 6, 7)), (ripple, (3.4, 4, 4.2)), (noise.fine(), (1.5, 1.5, 1.5))])


def fields(rng: np.random.Generator, noise: Noise) -> Texture:
    """Farmland: parcels of different crops with rows, all turned by one angle."""
    height, width = noise.size
    crops: tuple[Rgb, ...] = (
        (104, 124, 70), (142, 138, 88), (86, 110, 62), (170, 152, 112), (122, 132, 78), (150, 122, 90),
        (74, 98, 58), (184, 170, 122),
    )  # fmt: skip
    turn = rng.uniform(-0.5, 0.5)
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    u = columns * np.float32(np.cos(turn)) + rows * np.float32(np.sin(turn))
    v = rows * np.float32(np.cos(turn)) - columns * np.float32(np.sin(turn))
    strip = (v - v.min()) // np.float32(rng.uniform(130, 230))
    cuts = rng.uniform(150, 320, 16)
    parcel = np.floor((u - u.min()) / cuts.astype(np.float32)[strip.astype(np.int32) % 16] + rng.random())
    index = (strip * 7 + parcel * 3 + int(rng.integers(100))).astype(np.int32) % len(crops)
    texture = np.asarray(crops, np.float32)[index]
    across = np.where((index % 2).astype(bool), u, v)
    rows_on = (np.float32(2.6) * np.sin(across * np.float32(2 * np.pi / rng.uniform(5, 9)))).astype(np.float32)
    shades = noise.coarse() * np.float32(5) + noise.fine() * np.float32(4) + rows_on
    return np.asarray(texture + shades[..., None], np.float32)


def smoothstep(field: Field, low: float, high: float) -> Field:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((field - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)

"""Shapes pasted into training images: objects that are told from their ground by colour and edges alone.

Eleven categories of mostly convex objects teach a network to fill boxes. These scenes hold shapes of no category, drawn
at random (blobs with bays, crossing bars, thin branches, rings; half of them mirrored, as things made by people are)
and filled with colours or with pixels of other images, so that an unknown object's outline has to be looked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from backend.training.segmenter.samples import SHAPES, TrainingScene, scene_of

__all__ = ["CATEGORY", "draw_shape", "shape_scenes"]

CATEGORY = "shape"
"""Stands in for a category in training's figures."""

PER_SCENE = 10
SCENE_SIDE = 640
SIDES = (18.0, 260.0)
"""Longer sides of shapes in pixels."""

OVERSAMPLING = 4
LEAST_CONTRAST = 12.0
"""Levels between the mean colours of a shape and of the ground around it."""

Rgb = npt.NDArray[np.uint8]
Alpha = npt.NDArray[np.float32]
Canvas = npt.NDArray[np.uint8]


def shape_scenes(scenes: Sequence[TrainingScene], count: int, seed: int) -> Iterator[TrainingScene]:
    """``count`` scenes: parts of the images of ``scenes`` with shapes pasted in, the shapes their only objects."""
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        ground = _ground(scenes, rng)
        masks = _paste_shapes(ground, scenes, rng)
        yield scene_of(f"shapes-{seed}-{number}", ground, ((CATEGORY, mask) for mask in masks), SHAPES)


def draw_shape(side: int, rng: np.random.Generator) -> Alpha:
    """A random shape as coverage float32[side, side] in [0, 1]; it touches two opposite borders, more or less."""
    big = side * OVERSAMPLING
    canvas: Canvas = np.zeros((big, big), np.uint8)
    draw = (_blob, _bars, _bars, _branch, _ring)[int(rng.integers(5))]
    draw(canvas, rng)
    if rng.random() < 0.5:
        canvas = np.maximum(canvas, canvas[:, ::-1])
    canvas = _largest_part(canvas)
    matrix = cv2.getRotationMatrix2D((big / 2, big / 2), rng.uniform(0, 360), 1.0)
    x, y, width, height = cv2.boundingRect(np.asarray(cv2.warpAffine(canvas, matrix, (big, big))))
    if min(width, height) < OVERSAMPLING * 3:
        return np.zeros((side, side), np.float32)
    # Turned about its own middle and enlarged to the canvas in one map, so that edges stay sharp.
    scale = (big - 2 * OVERSAMPLING) / max(width, height)
    matrix = matrix * scale
    matrix[:, 2] += big / 2 - scale * np.array([x + width / 2, y + height / 2])
    turned = cv2.warpAffine(canvas, matrix, (big, big), flags=cv2.INTER_LINEAR)
    small = cv2.resize(turned, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(255)


def _largest_part(canvas: Canvas) -> Canvas:
    """What is connected, like most objects."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(canvas)
    if count == 1:
        return canvas
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    return np.where(labels == largest, canvas, 0).astype(np.uint8)


def _ground(scenes: Sequence[TrainingScene], rng: np.random.Generator) -> Rgb:
    """A copy of a random part of a random image, no larger than ``SCENE_SIDE``."""
    image = scenes[int(rng.integers(len(scenes)))].image
    height, width = (min(SCENE_SIDE, extent) for extent in image.shape[:2])
    y, x = (int(rng.integers(1 + whole - part)) for whole, part in zip(image.shape[:2], (height, width), strict=True))
    return image[y : y + height, x : x + width].copy()


def _paste_shapes(
    ground: Rgb, scenes: Sequence[TrainingScene], rng: np.random.Generator
) -> list[npt.NDArray[np.bool_]]:
    """Paste shapes into ``ground`` where none is yet; returns their masks bool[H, W]."""
    height, width = ground.shape[:2]
    taken = np.zeros((height, width), bool)
    sun = rng.uniform(0, 2 * math.pi)
    masks: list[npt.NDArray[np.bool_]] = []
    for _ in range(3 * PER_SCENE):
        side = int(math.exp(rng.uniform(*np.log(SIDES))))
        if side >= min(height, width) or len(masks) == PER_SCENE:
            continue
        y, x = int(rng.integers(height - side)), int(rng.integers(width - side))
        here = (slice(y, y + side), slice(x, x + side))
        alpha = draw_shape(side, rng)
        if taken[here].any() or (alpha > 0.5).sum() < 30:
            continue
        taken[here] = True
        region = ground[here]
        if rng.random() < 0.5:
            _cast_shadow(region, alpha, sun, rng)
        if rng.random() < 0.5:
            alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.4, 1.0)), np.float32)
        filling = _filling(region, alpha, scenes, rng)
        ground[here] = np.clip(region + alpha[:, :, None] * (filling - region), 0, 255).astype(np.uint8)
        mask = np.zeros((height, width), bool)
        mask[here] = alpha > 0.5
        masks.append(mask)
    return masks


def _filling(
    region: Rgb, alpha: Alpha, scenes: Sequence[TrainingScene], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """What a shape is made of, float32[side, side, 3]: a colour, pixels of another image, or the ground recoloured."""
    side = len(alpha)
    kind = rng.random()
    if kind < 0.45:
        filling = np.full((side, side, 3), rng.uniform(20, 250), np.float32) + rng.normal(0, 22, 3)
    elif kind < 0.75:
        image = scenes[int(rng.integers(len(scenes)))].image
        part = max(8, int(min(side * rng.uniform(0.5, 2.0), *image.shape[:2])))
        y, x = (int(rng.integers(1 + extent - part)) for extent in image.shape[:2])
        resized = cv2.resize(image[y : y + part, x : x + part], (side, side), interpolation=cv2.INTER_AREA)
        filling = resized.astype(np.float32) * rng.uniform(0.7, 1.3)
    else:
        filling = region.astype(np.float32) * rng.uniform(0.4, 0.8) + rng.uniform(0, 120, 3)
    filling = filling + _parts(side, rng) + rng.normal(0, rng.uniform(0, 7), (side, side, 1))
    inside, around = alpha > 0.5, alpha < 0.05
    ground = (region[around] if around.any() else region.reshape(-1, 3)).mean(axis=0)
    if float(np.abs(filling[inside].mean(axis=0) - ground).max()) < LEAST_CONTRAST:
        direction = 1.0 if ground.mean() < 128 else -1.0
        filling = filling + direction * (LEAST_CONTRAST + rng.uniform(0, 30))
    return np.asarray(filling, np.float32)


def _parts(side: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Steps of brightness and colour, float32[side, side, 3]: roofs, wings and decks have parts unlike the rest."""
    steps = np.zeros((side, side, 3), np.float32)
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
    for _ in range(int(rng.integers(0, 4))):
        angle, offset = rng.uniform(0, 2 * math.pi), rng.uniform(-0.3, 0.3)
        beyond = rows * math.sin(angle) + columns * math.cos(angle) > offset
        steps += beyond[:, :, None] * np.float32(rng.normal(0, 16))
    if rng.random() < 0.5:  # stripes, decks and hulls: a shape within the shape
        inner = draw_shape(side, rng)[:, :, None]
        steps += inner * (rng.normal(0, 35) + rng.normal(0, 12, 3)).astype(np.float32)
    return steps


def _cast_shadow(region: Rgb, alpha: Alpha, sun: float, rng: np.random.Generator) -> None:
    """Darken ``region`` in place where the shape's shadow falls."""
    reach = len(alpha) * rng.uniform(0.03, 0.25)
    matrix = np.array([[1, 0, reach * math.cos(sun)], [0, 1, reach * math.sin(sun)]])
    shadow = cv2.warpAffine(alpha, matrix, alpha.shape[::-1]) * rng.uniform(0.3, 0.7)
    region[:] = (region * (1 - shadow[:, :, None])).astype(np.uint8)


def _blob(canvas: Canvas, rng: np.random.Generator) -> None:
    """A closed curve whose radius is a sum of waves: bays and lobes."""
    big = len(canvas)
    angles = np.linspace(0, 2 * math.pi, 120, endpoint=False)
    radius = np.ones_like(angles)
    for wave in range(2, 7):
        radius += rng.normal(0, 0.45 / wave**0.5) * np.cos(wave * angles + rng.uniform(0, 2 * math.pi))
    radius = np.clip(radius, 0.12, None)
    radius *= 0.45 * big / radius.max()
    points = np.column_stack([np.cos(angles), np.sin(angles)]) * radius[:, None] + big / 2
    if rng.random() < 0.4:  # a few corners instead of a smooth curve
        points = points[np.sort(rng.choice(len(points), int(rng.integers(4, 9)), replace=False))]
    cv2.fillPoly(canvas, [points.astype(np.int32)], 255)


def _bars(canvas: Canvas, rng: np.random.Generator) -> None:
    """Bars, wedges and ellipses that meet."""
    big = len(canvas)
    for number in range(int(rng.integers(2, 5))):
        length, width = big * rng.uniform(0.35, 0.9), big * rng.uniform(0.06, 0.28)
        center = big / 2 + (rng.uniform(-0.22, 0.22, 2) * big if number else 0)
        angle = rng.choice([0, 90, 90, rng.uniform(0, 180)])
        if rng.random() < 0.35:
            cv2.ellipse(canvas, (tuple(map(float, np.zeros(2) + center)), (length, width), float(angle)), 255, -1)
            continue
        taper = rng.uniform(0.3, 1.0) if rng.random() < 0.5 else 1.0
        corners = np.array([[-1, -1], [1, -taper], [1, taper], [-1, 1]]) * (length / 2, width / 2)
        turn = np.deg2rad(float(angle))
        rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        cv2.fillPoly(canvas, [(corners @ rotation + center).astype(np.int32)], 255)


def _branch(canvas: Canvas, rng: np.random.Generator) -> None:
    """A bent band with branches."""
    big = len(canvas)
    thickness = int(big * rng.uniform(0.05, 0.18))
    points = [rng.uniform(0.2, 0.8, 2) * big]
    for _ in range(int(rng.integers(2, 5))):
        start = points[int(rng.integers(len(points)))]
        end = np.clip(start + rng.uniform(-0.6, 0.6, 2) * big, 0.08 * big, 0.92 * big)
        cv2.line(canvas, tuple(start.astype(int).tolist()), tuple(end.astype(int).tolist()), 255, thickness)
        points.append(end)


def _ring(canvas: Canvas, rng: np.random.Generator) -> None:
    """A blob with a bite or a hole."""
    _blob(canvas, rng)
    big = len(canvas)
    x, y = (rng.uniform(0.3, 0.7, 2) * big).astype(int).tolist()
    axes = (int(big * rng.uniform(0.06, 0.25)), int(big * rng.uniform(0.06, 0.25)))
    cv2.ellipse(canvas, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, 0, -1)

"""The canvas of a scene: ground, roads, trees and objects painted onto an RGB image, with the space that is taken.

Objects are drawn on a patch with several times the resolution and shrunk by area averaging, which gives antialiased
edges and, thresholded at half coverage, the exact mask of what was painted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from dataset_tools.geometry import Box
from dataset_tools.synthetic.blueprints import Blueprint, Draw, Points, Rgb, shade, vary
from dataset_tools.synthetic.ground import Field, Noise, Texture

CELL = 4
"""Side in pixels of a cell of the map that tells where objects may go."""


class Placement(NamedTuple):
    """Where an object lies: its centre in pixels and the direction of its front in degrees (0 = right, 90 = down)."""

    x: float
    y: float
    angle: float

    def rotation(self) -> Points:
        """The matrix float64[2, 2] that turns the object's frame into the image's."""
        turn = math.radians(self.angle)
        return np.array(((math.cos(turn), -math.sin(turn)), (math.sin(turn), math.cos(turn))))

    def at(self, x: float, y: float, turn: float = 0.0) -> Placement:
        """A place given in this object's frame, turned by ``turn`` degrees relative to it."""
        dx, dy = self.rotation() @ (x, y)
        return Placement(self.x + float(dx), self.y + float(dy), self.angle + turn)


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene: canonical category, mask bool[H, W], colour word (None where colour does not matter)."""

    category: str
    mask: npt.NDArray[np.bool_] = field(repr=False)
    color: str | None

    @property
    def box(self) -> Box:
        """The mask's tightest box in pixels."""
        return Box.of_mask(self.mask)


class Canvas:
    """What has been painted so far.

    Attributes:
        image: uint8[H, W, 3], RGB, painted in place.
        objects: what was placed, in order.
        noise: the scene's noise fields.
        sun: unit vector (x, y) in the image from the ground towards the sun.
        taken: bool[H / 4, W / 4], True where nothing more may be placed.
        scale: size of the objects relative to their usual size in pixels.
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int, scale: float) -> None:
        self.rng = rng
        self.height, self.width, self.scale = height, width, scale
        self.noise = Noise(rng, height, width)
        self._grain = self.noise.fine() * np.float32(0.022) + self.noise.medium() * np.float32(0.014)
        self.image = np.zeros((height, width, 3), np.uint8)
        self.objects: list[SceneObject] = []
        self.taken = np.zeros((-(-height // CELL), -(-width // CELL)), bool)
        azimuth = rng.uniform(0, 2 * np.pi)
        self.sun = np.array((np.cos(azimuth), np.sin(azimuth)))

    def everywhere(self) -> npt.NDArray[np.bool_]:
        """A zone of the whole image: bool[H / 4, W / 4]."""
        return np.ones_like(self.taken)

    def zone(self, mask: Field, margin: int = 3) -> npt.NDArray[np.bool_]:
        """The cells at least ``margin`` cells inside of where ``mask`` float32[H, W] exceeds one half."""
        small = cv2.resize(mask, self.taken.shape[::-1], interpolation=cv2.INTER_AREA)
        kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
        # The image's border is no border of the zone: objects keep their own distance from it.
        return np.asarray(cv2.erode((small > 0.5).astype(np.uint8), kernel, borderValue=1), bool)

    def cover(self, texture: Texture, weight: Field | None = None) -> None:
        """Lay a ground texture over the image, everywhere or where ``weight`` float32[H, W] is above 0."""
        if weight is None:
            self.image[:] = np.clip(texture, 0, 255)
            return
        box = cv2.boundingRect((weight > 0.003).astype(np.uint8))
        area = np.s_[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]
        mixed = self.image[area] + (texture[area] - self.image[area]) * weight[area][..., None]
        self.image[area] = np.clip(mixed, 0, 255)

    def polygon_mask(self, points: Points, soft: float = 0.0) -> Field:
        """A polygon in image pixels as float32[H, W] in 0..1, blurred by ``soft`` pixels."""
        mask = np.zeros((self.height, self.width), np.uint8)
        cv2.fillPoly(mask, [np.rint(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        weight = mask.astype(np.float32) / np.float32(255)
        return cv2.GaussianBlur(weight, (0, 0), soft) if soft else weight

    def road(self, points: Points, width: float, marked: bool = True) -> None:
        """An asphalt road along a polyline in image pixels; its area is taken."""
        level = float(self.rng.uniform(88, 128))
        line = np.rint(points * 16).astype(np.int32)
        mask = np.zeros((self.height, self.width), np.uint8)
        for extra, tint in ((5, 1.22), (0, 1.0)):
            mask[:] = 0
            cv2.polylines(mask, [line], False, 255, max(1, round(width + extra)), cv2.LINE_AA, 4)
            box = _bounds(mask)
            if box is None:
                return
            area = np.s_[box[1] : box[3], box[0] : box[2]]
            tone = np.float32(level * tint) * (1 + 2 * self._grain[area])
            weight = mask[area].astype(np.float32)[..., None] / 255
            paint = tone[..., None] * np.array((1, 1, 1.02), np.float32)
            self.image[area] = self.image[area] * (1 - weight) + paint * weight
        self.taken |= cv2.resize(mask, self.taken.shape[::-1], interpolation=cv2.INTER_AREA) > 20
        if not marked:
            return
        chalk = (214, 212, 198)
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        along = np.concatenate(([0.0], np.cumsum(steps)))
        for start in np.arange(6, along[-1] - 10, 22.0):
            ends = [[np.interp(s, along, points[:, 0]), np.interp(s, along, points[:, 1])] for s in (start, start + 10)]
            p, q = (tuple(int(v * 16) for v in end) for end in ends)
            cv2.line(self.image, p, q, chalk, 1, cv2.LINE_AA, 4)

    def tree(self, x: float, y: float, radius: float, leaf: Rgb) -> None:
        """One tree: a shadow away from the sun and a few overlapping crowns."""
        reach = self.sun * -radius * 0.8
        spots = self.rng.normal(0, radius * 0.42, (5, 2))
        centres = np.rint((np.array((x, y)) + np.concatenate((reach + spots[:3], spots))) * 16).astype(int)
        for k, (cx, cy) in enumerate(centres):
            size = radius * (0.62 if k >= 3 else 0.72)
            toward = float(np.dot(spots[k - 3], self.sun)) / radius if k >= 3 else 0.0
            rgb = shade(leaf, 1.0 + 0.22 * toward + 0.05 * k) if k >= 3 else shade(leaf, 0.46)
            cv2.circle(self.image, (int(cx), int(cy)), max(16, int(size * 16)), rgb, -1, cv2.LINE_AA, 4)

    def trees(self, count: int, zone: npt.NDArray[np.bool_], radius: float = 9.0) -> None:
        """Scatter trees in clumps over the free cells of ``zone``."""
        leaf = vary(self.rng, ((58, 82, 48), (44, 70, 42), (74, 90, 52))[self.rng.integers(3)], 4)
        free = np.argwhere(zone & ~self.taken & (self.noise.coarse()[::CELL, ::CELL] > 0.1))
        for row, column in free[self.rng.permutation(len(free))[:count]] if len(free) else []:
            size = radius * float(self.rng.uniform(0.6, 1.35))
            x, y = (column + 0.5) * CELL, (row + 0.5) * CELL
            reach = int(size * 2 / CELL) + 1
            if not self.taken[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1].any():
                self.tree(x, y, size, vary(self.rng, leaf, 5))

    def fits(self, corners: Points, zone: npt.NDArray[np.bool_], margin: float) -> bool:
        """Whether a convex polygon in image pixels lies in the image and on free cells of ``zone``."""
        low, high = corners.min(axis=0), corners.max(axis=0)
        if low[0] < 3 or low[1] < 3 or high[0] > self.width - 3 or high[1] > self.height - 3:
            return False
        cells = self._cells(corners, margin)
        return bool(zone[cells].all() and not self.taken[cells].any())

    def _cells(self, corners: Points, margin: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        center = corners.mean(axis=0)
        span = np.maximum(np.abs(corners - center).max(axis=0), 1)
        grown = (center + (corners - center) * (1 + margin / span)) / CELL - 0.5
        origin = np.maximum(np.floor(grown.min(axis=0)).astype(int), 0)
        size = np.minimum(np.ceil(grown.max(axis=0)).astype(int) + 1, self.taken.shape[::-1]) - origin
        patch = np.zeros((max(int(size[1]), 1), max(int(size[0]), 1)), np.uint8)
        cv2.fillConvexPoly(patch, np.rint(grown - origin).astype(np.int32), 1)
        rows, columns = np.nonzero(patch)
        return rows + origin[1], columns + origin[0]

    def place(
        self,
        draw: Draw,
        length: float,
        zone: npt.NDArray[np.bool_],
        angles: tuple[float, ...] | None = None,
        margin: float = 8.0,
        tries: int = 30,
    ) -> Placement | None:
        """Draw an object at a random free place of ``zone``.

        Args:
            draw: a function of this package's blueprint modules.
            length: the object's size in pixels, before :attr:`scale`.
            zone: cells where it may lie.
            angles: directions in degrees to choose from (x to the right, y down); None allows any.
            margin: free distance in pixels around it.
            tries: places to try.

        Returns:
            Where it came to lie; None if no free place was found.
        """
        free = np.argwhere(zone & ~self.taken)
        if not len(free):
            return None
        for row, column in free[self.rng.integers(len(free), size=tries)]:
            angle = (
                float(self.rng.choice(angles)) + float(self.rng.normal(0, 1.5)) if angles else self.rng.uniform(0, 360)
            )
            placement = Placement(float(column) * CELL, float(row) * CELL, angle)
            if self.put(draw, length, placement, zone, margin):
                return placement
            length *= 0.985  # a crowded scene takes slightly smaller objects rather than none
        return None

    def put(
        self,
        draw: Draw,
        length: float,
        placement: Placement,
        zone: npt.NDArray[np.bool_] | None = None,
        margin: float = 2.0,
    ) -> bool:
        """Draw an object where it is told to; with a zone only if it fits there. Whether it was drawn.

        A blueprint without a category is scenery: it is painted and takes its space, but is no object of the scene.
        """
        rotation, center = placement.rotation(), np.array((placement.x, placement.y))
        blueprint = draw(self.rng, length * self.scale, self.sun @ rotation)
        x0, y0, x1, y1 = blueprint.extent()
        corners = np.array(((x0, y0), (x1, y0), (x1, y1), (x0, y1))) @ rotation.T + center
        if zone is not None and not self.fits(corners, zone, margin):
            return False
        mask = self._render(blueprint, rotation, center)
        self.taken[self._cells(corners, margin)] = True
        if blueprint.category and mask.sum() >= 12:
            self.objects.append(SceneObject(blueprint.category, mask, blueprint.color))
        return True

    def _render(self, blueprint: Blueprint, rotation: Points, center: Points) -> npt.NDArray[np.bool_]:
        """Paint the blueprint with its shadow; returns its mask bool[H, W]."""
        shapes = [part.points @ rotation.T + center for part in blueprint.parts]
        everything = np.concatenate(shapes)
        reach = self.sun * -blueprint.height
        low = np.floor(np.minimum(everything.min(0), everything.min(0) + reach)).astype(int) - 3
        high = np.ceil(np.maximum(everything.max(0), everything.max(0) + reach)).astype(int) + 4
        width, height = (int(v) for v in high - low)
        factor = 4 if width * height < 60_000 else 2
        color = np.zeros((height * factor, width * factor, 3), np.uint8)
        alpha = np.zeros((height * factor, width * factor), np.uint8)
        inside = np.zeros_like(alpha)
        for part, shape in zip(blueprint.parts, shapes, strict=True):
            # Area averaging takes pixel i of the fine grid as [i, i + 1) / factor, so centres lie half a fine pixel in.
            corners = [np.rint(((shape - low) * factor - 0.5) * 256).astype(np.int32)]
            if part.rgb is not None and part.opacity == 1.0:
                cv2.fillPoly(color, corners, part.rgb, cv2.LINE_8, 8)
                cv2.fillPoly(alpha, corners, 255, cv2.LINE_8, 8)
            elif part.rgb is not None:
                stroke = cv2.fillPoly(np.zeros_like(alpha), corners, 255, cv2.LINE_8, 8) > 0
                opacity = part.opacity
                mixed = color[stroke] * (1 - opacity) + np.asarray(part.rgb) * opacity
                color[stroke] = mixed.astype(np.uint8)
                alpha[stroke] = (alpha[stroke] * (1 - opacity) + 255 * opacity).astype(np.uint8)
            if part.in_mask:
                cv2.fillPoly(inside, corners, 255, cv2.LINE_8, 8)
        color, alpha, inside = (
            cv2.resize(a, (width, height), interpolation=cv2.INTER_AREA) for a in (color, alpha, inside)
        )
        left, top = max(0, int(low[0])), max(0, int(low[1]))
        right, bottom = min(self.width, int(high[0])), min(self.height, int(high[1]))
        mask = np.zeros((self.height, self.width), bool)
        if left >= right or top >= bottom:
            return mask
        view = np.s_[top:bottom, left:right]
        patch = np.s_[top - low[1] : bottom - low[1], left - low[0] : right - low[0]]
        ground = self.image[view].astype(np.float32)
        if blueprint.height > 0:
            ground *= 1 - np.float32(0.55) * self._shadow(np.minimum(alpha, inside), reach)[patch][..., None]
        weight = alpha[patch].astype(np.float32)[..., None] / 255
        grain = 1 + self._grain[view]
        ground *= 1 - weight
        ground += color[patch].astype(np.float32) * grain[..., None]
        self.image[view] = np.clip(ground, 0, 255)
        mask[view] = inside[patch] >= 128
        return mask

    @staticmethod
    def _shadow(inside: npt.NDArray[np.uint8], reach: Points) -> Field:
        """Coverage 0..1 of the shadow that a body of outline ``inside`` throws along ``reach`` pixels."""
        steps = max(2, int(np.abs(reach).max() / 2) + 1)
        total = np.zeros_like(inside)
        height, width = inside.shape
        for k in range(steps + 1):
            dx, dy = np.rint(reach * k / steps).astype(int)
            source = inside[max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
            target = total[max(0, dy) : height - max(0, -dy), max(0, dx) : width - max(0, -dx)]
            np.maximum(target, source, out=target)
        return np.asarray(cv2.GaussianBlur(total, (0, 0), 0.9), np.float32) / np.float32(255)

    def finish(self) -> npt.NDArray[np.uint8]:
        """The photograph: uneven light, lens blur, sensor noise and a colour cast; uint8[H, W, 3]."""
        rng = self.rng
        photo = cv2.GaussianBlur(self.image, (0, 0), float(rng.uniform(0.45, 0.85))).astype(np.float32)
        cast = rng.normal((1.0, 1.0, 1.0), 0.025) * rng.uniform(0.88, 1.08)
        haze = rng.uniform(0, 0.1)
        photo *= np.asarray(cast * (1 - haze), np.float32)
        photo *= (1 + np.float32(0.035) * self.noise.coarse())[..., None]
        grain = rng.standard_normal((self.height, self.width), dtype=np.float32)
        grain *= np.float32(rng.uniform(1.2, 3.2))
        grain += np.float32(150 * haze)
        photo += grain[..., None]
        np.clip(photo, 0, 255, out=photo)
        return np.asarray(photo, np.uint8)


def _bounds(mask: npt.NDArray[np.uint8]) -> tuple[int, int, int, int] | None:
    x, y, width, height = cv2.boundingRect(mask)
    return (x, y, x + width, y + height) if width and height else None

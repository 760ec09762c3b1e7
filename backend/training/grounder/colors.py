"""Colour and quality changes of training samples: sensors, seasons, haze, compression."""

from __future__ import annotations

import cv2
import numpy as np

from backend.pipeline.types import Image


def shift_colors(image: Image, rng: np.random.Generator) -> Image:
    """A changed copy of ``image`` uint8[H, W, 3] RGB; each kind of change has its own probability."""
    chance = rng.random(8)
    if chance[0] < 0.10:
        image = _channel_mix(image, rng)
    if chance[1] < 0.12:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    elif chance[1] < 0.5:
        gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        amount = float(rng.uniform(0.5, 1.5))
        image = cv2.addWeighted(image, amount, gray, 1 - amount, 0)
    if chance[2] < 0.8:
        image = _tone(image, rng)
    if chance[3] < 0.12:
        image = _light_gradient(image, rng)
    if chance[4] < 0.12:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.6)))
    elif chance[4] < 0.25:
        image = _resampled(image, float(rng.uniform(0.4, 0.8)))
    elif chance[4] < 0.32:
        image = cv2.addWeighted(image, 1.6, cv2.GaussianBlur(image, (0, 0), 1.5), -0.6, 0)
    if chance[5] < 0.15:
        noise = rng.normal(0, rng.uniform(2, 12), (*image.shape[:2], 1)).astype(np.float32)
        image = np.asarray(np.clip(image + noise, 0, 255), np.uint8)
    if chance[6] < 0.25:
        quality = int(rng.integers(25, 85))
        code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))
    return image


def _tone(image: Image, rng: np.random.Generator) -> Image:
    """Gain, offset and gamma, a little different per channel (colour casts); haze lifts the dark end."""
    values = np.arange(256, dtype=np.float32) / 255
    gamma = float(np.exp(rng.normal(0, 0.25)))
    gain, offset = float(np.exp(rng.normal(0, 0.18))), float(rng.normal(0, 0.06))
    haze = float(rng.uniform(0.1, 0.35)) if rng.random() < 0.15 else 0.0
    tables = np.empty((256, 3), np.float32)
    for channel in range(3):
        curve = (values**gamma - 0.45) * gain * np.exp(rng.normal(0, 0.07)) + 0.45 + offset + rng.normal(0, 0.02)
        tables[:, channel] = curve * (1 - haze) + haze
    table = np.clip(tables * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[:, None, :]))


def _channel_mix(image: Image, rng: np.random.Generator) -> Image:
    """Colour-infrared look (near infrared, red, green shown as RGB), its inverse, or a permutation of channels."""
    red, green, blue = cv2.split(image)
    kind = int(rng.integers(3))
    if kind == 0:
        # Plants reflect near infrared strongly; what is greener than red and blue is taken for plants.
        plants = cv2.subtract(cv2.addWeighted(green, 2.0, red, -0.5, 0), cv2.addWeighted(blue, 0.5, red, 0.2, 0))
        infrared = cv2.addWeighted(green, 0.5, plants, float(rng.uniform(0.5, 1.2)), float(rng.uniform(0, 40)))
        return np.asarray(cv2.merge([infrared, red, green]))
    if kind == 1:
        return np.asarray(cv2.merge([green, cv2.addWeighted(red, 0.5, green, 0.5, 0), blue]))
    return np.ascontiguousarray(image[..., rng.permutation(3)])


def _light_gradient(image: Image, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    corners = rng.uniform(0.6, 1.3, (2, 2)).astype(np.float32)
    light = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.clip(image * light[..., None], 0, 255), np.uint8)


def _resampled(image: Image, factor: float) -> Image:
    height, width = image.shape[:2]
    small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))

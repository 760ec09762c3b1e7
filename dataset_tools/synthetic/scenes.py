"""One synthetic scene: an image that looks like an overhead photograph, with the true mask of every object."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dataset_tools.errors import DatasetError
from dataset_tools.synthetic.canvas import Canvas, SceneObject
from dataset_tools.synthetic.themes import THEMES


@dataclass(frozen=True)
class Scene:
    """An image uint8[H, W, 3] RGB, its objects (nothing is left out), the seed and the kind of scene."""

    image: npt.NDArray[np.uint8] = field(repr=False)
    objects: tuple[SceneObject, ...]
    seed: int
    theme: str


def draw_scene(
    seed: int, width: int = 800, height: int = 600, theme: str | None = None, scale: float | None = None
) -> Scene:
    """Draw one scene; the same arguments give the same pixels.

    Args:
        seed: chooses everything that is not given.
        width, height: size in pixels, at least 128.
        theme: a key of ``THEMES``; None chooses by ``seed``.
        scale: size of all objects relative to their usual size in pixels; None chooses 0.75 to 1.3.

    Raises:
        DatasetError: an unknown theme, or a size below 128 pixels.
    """
    if theme is not None and theme not in THEMES:
        raise DatasetError(f"no theme {theme!r}; choose one of {', '.join(THEMES)}")
    if min(width, height) < 128:
        raise DatasetError(f"a scene of {width} x {height} pixels is too small for its objects; 128 is the least")
    rng = np.random.default_rng(seed)
    chosen = list(THEMES)[rng.integers(len(THEMES))]
    size = float(rng.uniform(0.75, 1.3)) * min(1.0, min(width, height) / 420)
    canvas = Canvas(rng, height, width, size if scale is None else scale)
    THEMES[theme or chosen](canvas)
    return Scene(canvas.finish(), tuple(canvas.objects), seed, theme or chosen)

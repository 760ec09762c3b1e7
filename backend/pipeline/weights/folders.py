"""Where weight files lie: those that are shipped, and those that a user placed or downloaded."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["SHIPPED_FOLDER", "weights_folder"]

SHIPPED_FOLDER = Path(__file__).resolve().parents[2] / "weights"
"""Weights that are part of this repository and its wheels."""


def weights_folder() -> Path:
    """Where weights that are not shipped lie: ``PSLG_WEIGHTS``, else ``pslg/weights`` in the user's cache folder."""
    if chosen := os.environ.get("PSLG_WEIGHTS"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "pslg" / "weights"

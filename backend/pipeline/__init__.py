"""PSLG-SAM, readable top to bottom: coarse localization, foreground point, mask, boundary. Knows no HTTP.

Importing this package imports nothing else: what only reads configs starts without OpenCV and torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backend.pipeline.config import PipelineConfig, load_config
    from backend.pipeline.loading import load_pipeline
    from backend.pipeline.pslg_sam import PslgSam

__all__ = ["PipelineConfig", "PslgSam", "load_config", "load_pipeline"]

_HOMES = {"PipelineConfig": "config", "load_config": "config", "PslgSam": "pslg_sam", "load_pipeline": "loading"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

"""Weight files: what a config needs, where it lies, what it is, and which version of the model it makes."""

from backend.pipeline.weights.folders import weights_folder
from backend.pipeline.weights.registry import (
    REGISTRY,
    WeightEntry,
    WeightFiles,
    how_to_get,
    locate,
    model_version,
    require,
    resolve,
)

__all__ = [
    "REGISTRY",
    "WeightEntry",
    "WeightFiles",
    "how_to_get",
    "locate",
    "model_version",
    "require",
    "resolve",
    "weights_folder",
]

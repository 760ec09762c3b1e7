"""A detector's file: weights as safetensors, sizes and calibration in its metadata."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from backend.pipeline.grounding.compact.network import Calibration, Detector, DetectorConfig
from backend.pipeline.weights.safetensors_bytes import serialized
from dataset_tools.atomic import write_bytes
from dataset_tools.categories import KINDS
from dataset_tools.errors import WeightsError

__all__ = ["load_detector", "save_adapted", "save_detector", "save_without"]

_FORMAT = "pslg-compact-grounder-1"


def save_detector(detector: Detector, calibration: Calibration, path: Path) -> None:
    """Write weights as fp16 safetensors, sizes and calibration in its metadata; the file is replaced atomically.

    Normalisation statistics stay fp32: variances can leave the range of fp16.
    """
    state = {
        name: (value if "running" in name else value.half()).contiguous()
        for name, value in detector.state_dict().items()
        if "num_batches" not in name
    }
    write_bytes(path, serialized(state, _metadata(detector, calibration)))


def save_adapted(base: Path, detector: Detector, calibration: Calibration, path: Path) -> None:
    """Write what ``base`` holds with the adapter of ``detector``; the file is replaced atomically.

    ``detector`` was loaded from ``base`` (so that it is fused, and cannot be written by ``save_detector``) and given
    an adapter.
    """
    _, state = _read(base)
    state = {name: value for name, value in state.items() if not name.startswith("adapter.")}
    state |= {
        name: (value if "running" in name else value.half()).contiguous()
        for name, value in detector.state_dict().items()
        if name.startswith("adapter.") and "num_batches" not in name
    }
    write_bytes(path, serialized(state, _metadata(detector, calibration)))


def save_without(base: Path, names: Collection[str], path: Path) -> None:
    """Write what ``base`` holds, its heads without channels for the categories ``names`` and kinds of them: nothing
    finds these any more, though the features were trained on them. The file is replaced atomically.

    Raises:
        WeightsError: ``base`` is no detector's file, or has an adapter.
    """
    metadata, state = _read(base)
    config = DetectorConfig.of(json.loads(metadata["detector"]))
    if config.adapter_width:
        raise WeightsError(f"{base} holds an adapter: give the weights that the project's training began with")
    gone = {*names, *(kind for kind, of in KINDS.items() if of in names)}
    outlined = [name for name in config.categories if name not in KINDS]
    for part, channels in (("heat.out", config.categories), ("semantic", outlined)):
        kept = [number for number, name in enumerate(channels) if name not in gone]
        for tensor in ("weight", "bias"):
            state[f"{part}.{tensor}"] = state[f"{part}.{tensor}"][kept].contiguous()
    left = replace(config, categories=tuple(name for name in config.categories if name not in gone))
    calibration = json.loads(metadata["calibration"])
    calibration["even"] = {name: value for name, value in calibration["even"].items() if name not in gone}
    metadata = {**metadata, "detector": json.dumps(asdict(left)), "calibration": json.dumps(calibration)}
    write_bytes(path, serialized(state, metadata))


def _metadata(detector: Detector, calibration: Calibration) -> dict[str, str]:
    return {
        "format": _FORMAT,
        "detector": json.dumps(asdict(detector.config)),
        "calibration": json.dumps(asdict(calibration)),
    }


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a detector's file; raises WeightsError for any other file."""
    if not path.is_file():
        raise WeightsError(f"no grounder weights at {path}; run `pslg train compact-grounder` or check the config")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except Exception as error:  # safetensors raises its own untyped error
        raise WeightsError(f"{path} is not a readable safetensors file ({error}); fetch or train it again") from error
    if metadata.get("format") != _FORMAT:
        raise WeightsError(f"{path} has format {metadata.get('format')!r}, the compact grounder needs {_FORMAT!r}")
    return metadata, state


def load_detector(path: Path) -> tuple[Detector, Calibration]:
    """The detector in evaluation mode (fp32, fused) and its calibration; raises WeightsError for any other file."""
    metadata, stored = _read(path)
    state = {name: value.float() for name, value in stored.items()}
    detector = Detector(DetectorConfig.of(json.loads(metadata["detector"])))
    missing, unexpected = detector.load_state_dict(state, strict=False)
    missing = [name for name in missing if "num_batches" not in name]
    if missing or unexpected:
        raise WeightsError(f"{path} does not fit its own sizes: missing {missing[:3]}, unexpected {unexpected[:3]}")
    detector.eval()
    detector.fuse()
    calibration = json.loads(metadata["calibration"])
    calibration["scales"] = tuple(calibration["scales"])
    return detector.to(memory_format=torch.channels_last), Calibration(**calibration)

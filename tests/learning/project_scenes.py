"""Labelled images with yellow squares, which no category names, and a tiny detector that has learnt nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from backend.pipeline.grounding.compact.detector_file import save_detector
from backend.pipeline.grounding.compact.network import Calibration, Detector, DetectorConfig
from backend.pipeline.segmentation.compact_sam import ARCHITECTURE, build_compact_sam
from backend.training.run import save_weights
from dataset_tools.labelled import LabelledExpression, LabelledImage, LabelledObject

LABEL = "solar panel"


def tiny_grounder(path: Path) -> Path:
    """Weights of a detector for ships and bridges; the file ``path``."""
    torch.manual_seed(3)
    config = DetectorConfig(("ship", "bridge"), widths=(8, 16, 16, 16, 16), depths=(1, 1, 1, 1), pyramid_width=16)
    save_detector(Detector(config).eval(), Calibration({"ship": 0.4, "bridge": 0.4}, scales=(128, 192)), path)
    return path


def panels(folder: Path, count: int, seed: int = 0) -> list[LabelledImage]:
    """``count`` images of 160 x 192 pixels, each with one labelled square and one expression about it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        pixels = rng.integers(60, 90, (160, 192, 3)).astype(np.uint8)
        side = int(rng.integers(28, 40))
        x, y = int(rng.integers(8, 184 - side)), int(rng.integers(8, 152 - side))
        mask = np.zeros((160, 192), np.bool_)
        mask[y : y + side, x : x + side] = True
        pixels[mask] = (230, 210, 30)
        path = folder / f"{seed}_{number}.png"
        Image.fromarray(pixels).save(path)
        found.append(
            LabelledImage(
                path,
                160,
                192,
                (LabelledObject.of("Solar_Panel", mask),),
                (LabelledExpression("all the solar panels", (0,)),),
                frozenset({LABEL}),
            )
        )
    return found


def tiny_config(folder: Path) -> Path:
    """A pipeline config of a tiny grounder and a tiny segmenter with random weights; its file."""
    tiny_grounder(folder / "grounder.safetensors")
    torch.manual_seed(7)
    sizes: dict[str, Any] = {"embed_dim": 32, "widths": [8, 8, 16, 16, 16], "depths": [1, 1, 1, 1], "mlp_dim": 32}
    sam = build_compact_sam(64, **sizes)
    metadata = {"architecture": ARCHITECTURE, "img_size": "64", "model": json.dumps(sizes)}
    save_weights(folder / "segmenter.safetensors", sam.state_dict(), torch.float16, metadata)
    values = {
        "name": "tiny",
        "grounder": {"kind": "compact", "weights": "./grounder.safetensors", "options": {"bfloat16": False}},
        "segmenter": {"kind": "compact-sam", "weights": "./segmenter.safetensors"},
        "foreground_points": {"enabled": False},
        "boundary": {"enabled": False},
        "device": "cpu",
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path

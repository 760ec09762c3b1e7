"""Projects with tasks on drawn scenes, made in the real Label Studio."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.labeling_configs import read_labeling_config
from dataset_tools.synthetic import Scene
from tests.end_to_end.conftest import Studio

LABELING_CONFIG = "rrsisd"


@dataclass(frozen=True)
class Project:
    """A project: its id, its labeling config, the image's address, and the task id of each expression."""

    id: int
    label_config: str
    image: str
    tasks: Mapping[str, int]


def create_project(
    studio: Studio, title: str, scene: Scene, *expressions: str, config: str = LABELING_CONFIG
) -> Project:
    """A project with one task per expression, all on ``scene``; ``config`` names a shipped labeling config."""
    client = studio.client
    label_config = read_labeling_config(config)
    project = client.create_project(title, label_config)
    image = client.upload_image(project, "scene.png", png(scene.image))
    ids = client.import_tasks(project, [{"image": image, "expression": expression} for expression in expressions])
    return Project(project, label_config, image, dict(zip(expressions, ids, strict=True)))


def png(image: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()

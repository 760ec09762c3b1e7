"""From a real Label Studio to a REFER root: annotations submitted there, fetched page by page, exported, read back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner
from PIL import Image

from dataset_tools import brush_rle, synthetic
from dataset_tools.cli import dataset
from dataset_tools.synthetic import Scene
from tests.conftest import REPOSITORY
from tests.dataset_tools.mini_refer import MiniRefer
from tests.end_to_end.conftest import Studio


def regions(scene: Scene) -> list[dict[str, Any]]:
    height, width = scene.image.shape[:2]
    item = scene.objects[0]
    return [
        {
            "id": "region0001", "from_name": "mask", "to_name": "image", "type": "brushlabels", "origin": "prediction",
            "original_width": width, "original_height": height, "image_rotation": 0,
            "value": {"format": "rle", "rle": brush_rle.encode(item.mask), "brushlabels": ["building"]},
            "meta": {"text": ["pslg model=compact-00000000 clicks=1 score=0.9"]},
        }
    ]  # fmt: skip


def test_project_becomes_a_refer_root(studio: Studio, personal_access_token: str, tmp_path: Path) -> None:
    config = (REPOSITORY / "configs" / "labeling" / "buildings.xml").read_text()
    project = studio.client.create_project("export", config)
    scenes = [synthetic.draw_scene(seed, 320, 240, "town") for seed in range(3)]
    data = []
    for number, scene in enumerate(scenes):
        buffer = io.BytesIO()
        Image.fromarray(scene.image).save(buffer, "PNG")
        url = studio.client.upload_image(project, f"scene{number}.png", buffer.getvalue())
        data.append({"image": url, "expression": f"the building number {number}"})
    tasks = studio.client.import_tasks(project, data)
    for task, scene in zip(tasks[:2], scenes, strict=False):  # the third stays without an annotation
        studio.client.create_annotation(task, regions(scene))
    out = tmp_path / "out"
    words = ["export", studio.url, str(out), "--project", str(project), "--cache", str(tmp_path / "cache")]
    result = CliRunner().invoke(dataset, [*words, "--api-key", personal_access_token])
    assert result.exit_code == 0, result.output
    found = MiniRefer(out).items("train")
    assert sorted(texts[0] for _, _, texts in found) == ["the building number 0", "the building number 1"]
    for image, target, texts in found:
        scene = scenes[int(texts[0][-1])]
        assert np.array_equal(image, scene.image)
        assert np.array_equal(target.astype(bool), scene.objects[0].mask)

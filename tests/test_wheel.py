"""The wheel must carry configs and weights: built here, installed in an environment of its own, used elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from dataset_tools import masks, metrics
from tests.conftest import REPOSITORY
from tests.end_to_end.scenes import airplane_scene, airplanes


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # The build backend stands in this environment, so that building needs no network.
    _run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(REPOSITORY)]
    )
    (built,) = folder.glob("*.whl")
    return built


def _run(command: list[str], cwd: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_carries_configs_weights_types_and_templates_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "backend/configs/compact.yaml",
        "backend/docs/operations.md",
        "backend/weights/compact_grounder/model.safetensors",
        "backend/weights/compact_segmenter/model.safetensors",
        "backend/py.typed",
        "dataset_tools/expressions/surfaces.npz",
        "dataset_tools/py.typed",
        "dataset_tools/templates/page.html",
    } <= names
    assert any(name.startswith("backend/configs/labeling/") and name.endswith(".xml") for name in names)
    assert {name.split("/")[0] for name in names} <= {"backend", "dataset_tools", "pslg_sam-0.1.0.dist-info"}


def test_the_installed_wheel_prelabels_an_image(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    site_packages = Path(
        sysconfig.get_path("purelib", "venv", {"base": str(environment), "platbase": str(environment)})
    )
    # Dependencies come from this environment: a plain path line, so that its editable installation of this
    # repository (a .pth file of its own) is not seen.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    _run([sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(site_packages), str(wheel)])
    scene = airplane_scene()
    Image.fromarray(scene.image).save(tmp_path / "scene.png")
    python = environment / "bin" / "python"
    found = _run([str(python), "-c", "import backend; print(backend.__file__)"], tmp_path).strip()
    assert Path(found).is_relative_to(site_packages)
    command = [str(python), "-m", "backend", "prelabel", "scene.png", "the airplane in the top of the image"]
    answer = json.loads(_run([*command, "--json", "--out", "overlay.png"], tmp_path))
    (prelabel,) = answer["prelabels"]
    mask = masks.from_coco(prelabel["mask"], *scene.image.shape[:2])
    assert metrics.iou(mask, airplanes(scene)[1]) > 0.5
    with Image.open(tmp_path / "overlay.png") as overlay:
        assert overlay.width >= 600

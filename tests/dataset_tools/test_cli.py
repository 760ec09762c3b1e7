"""``pslg dataset`` as a user types it: the documented commands, exit statuses, and no torch."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dataset_tools import brush_rle, synthetic
from dataset_tools.checks.findings import CODES
from dataset_tools.cli import dataset
from dataset_tools.errors import DatasetError
from dataset_tools.formats import FORMATS
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "datasets.md"


def pslg(*words: str, status: int = 0) -> Result:
    result = CliRunner().invoke(dataset, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def test_documented_commands_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^\$ pslg dataset (.+)$", PAGE.read_text(), re.MULTILINE)
    assert len(commands) >= 9
    for command in commands:
        pslg(*shlex.split(command))
    assert (tmp_path / "rrsism/rrsisd/refs(unc).p").is_file()
    assert "CC BY 4.0" in (tmp_path / "rrsism/README.md").read_text()
    assert "<script" not in (tmp_path / "report.html").read_text()
    assert "data:image/png;base64" in (tmp_path / "statistics/index.html").read_text()
    before = json.loads((tmp_path / "split/split.json").read_text())
    assert json.loads((tmp_path / "newer/split.json").read_text()) == before
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    region = tasks[0]["predictions"][0]["result"][0]
    assert brush_rle.decode(region["value"]["rle"], 320, 400).any()
    tiles = [json.loads(line) for line in (tmp_path / "tiles/tiles.jsonl").read_text().splitlines()]
    assert {tile["scene"] for tile in tiles} == {"00001"}
    assert len(tiles) == 4


def test_page_names_every_command_format_and_code() -> None:
    page = PAGE.read_text()
    assert all(f"pslg dataset {name}" in page for name in dataset.commands)
    assert all(f"`{name}`" in page for name in FORMATS)
    assert all(f"| `{code}` ({info.severity}) | {info.why} {info.fix} |" in page for code, info in CODES.items())


def test_starts_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['torchvision'] = None\n"
        "from backend.cli import main; main()"
    )
    for words in (["dataset", "--help"], ["dataset", "synth", str(tmp_path / "s"), "--count", "1", "--width", "200"]):
        done = subprocess.run([sys.executable, "-c", code, *words], cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "s" / "annotations.json").is_file()


def test_help_is_quick_because_it_imports_little() -> None:
    code = "import sys; import dataset_tools.cli; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    heavy = {"cv2", "numpy", "matplotlib", "torch", "label_studio_sdk", "pandas", "pyarrow"}
    assert not heavy & set(eval(done.stdout))  # noqa: S307 - a list of names that we printed


def export_file(folder: Path, count: int = 3) -> Path:
    tasks = []
    (folder / "uploads").mkdir()
    for number in range(count):
        scene = synthetic.draw_scene(number, 200, 200)
        Image.fromarray(scene.image).save(folder / "uploads" / f"{number}.png")
        item = scene.objects[0]
        result = {
            "id": "a", "type": "brushlabels", "from_name": "mask", "to_name": "image", "origin": "manual",
            "original_width": 200, "original_height": 200, "image_rotation": 0,
            "value": {"format": "rle", "rle": brush_rle.encode(item.mask), "brushlabels": [item.category]},
        }  # fmt: skip
        data = {"image": f"/data/upload/1/0123abcd-{number}.png", "expression": f"the {item.category}"}
        tasks.append({"id": number, "data": data, "annotations": [{"id": number, "result": [result]}]})
    (folder / "export.json").write_text(json.dumps(tasks))
    return folder / "export.json"


def test_label_studio_export_becomes_refer_and_says_what_it_left_out(tmp_path: Path) -> None:
    source = export_file(tmp_path)
    out = tmp_path / "out"
    pslg("export", str(source), str(out), "--images", str(tmp_path / "uploads"), "--split")
    assert len(list((out / "images/rrsisd/JPEGImages").iterdir())) == 3
    (tmp_path / "uploads/1.png").write_bytes(b"no image")
    result = pslg("export", str(source), str(tmp_path / "again"), "--images", str(tmp_path / "uploads"), status=2)
    assert "left out: 1.png" in result.output
    assert "2 images" in result.output
    assert [name for name, _ in json.loads((tmp_path / "again/dataset.json").read_text())["left_out"]] == ["1.png"]


def test_mistakes_are_explained(tmp_path: Path) -> None:
    source = export_file(tmp_path, 1)
    with pytest.raises(DatasetError, match="nothing was exported"):
        pslg("export", str(source), str(tmp_path / "x"))
    with pytest.raises(DatasetError, match="does not exist; give a dataset folder"):
        pslg("stats", str(tmp_path / "nothing"))
    with pytest.raises(DatasetError, match="three numbers"):
        pslg("split", str(source), str(tmp_path / "y"), "--shares", "1,2")
    with pytest.raises(DatasetError, match="pass --project and --api-key"):
        pslg("export", "http://localhost:1", str(tmp_path / "z"))
    with pytest.raises(DatasetError, match="is not empty"):
        pslg("synth", str(tmp_path))
    image = str(tmp_path / "uploads/0.png")
    result = pslg("tile", image, "--out", str(tmp_path / "t"), "--side", "10", "--overlap", "10", status=2)
    assert "the overlap (10)" in result.output
    assert not (tmp_path / "x").exists()


def test_validate_exit_status_and_json(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "scenes", [synthetic.draw_scene(1, 200, 200)], split=(1, 0, 0))
    assert json.loads(pslg("validate", str(tmp_path / "scenes"), "--json").stdout)["errors"] == 0
    Image.fromarray(np.zeros((200, 200), np.uint8)).save(tmp_path / "scenes/images/00001.png")
    found = json.loads(pslg("validate", str(tmp_path / "scenes"), "--json", status=2).stdout)
    assert "image-mode" in {finding["code"] for finding in found["findings"]}
    pslg("validate", str(tmp_path / "scenes"), "--fix", str(tmp_path / "fixed"), status=2)
    pslg("validate", str(tmp_path / "fixed"))

"""label-studio-sdk is an extra: everything but the demo starts and works without it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

REPOSITORY = Path(__file__).parents[1]
BLOCKED = """
import sys
for name in ("label_studio_sdk", "pandas", "nltk", "lxml"):
    sys.modules[name] = None
"""


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code, *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


def pslg(*words: str) -> subprocess.CompletedProcess[str]:
    return run("from backend.cli import main; main()", *words)


def test_help_and_the_server_start() -> None:
    for words in (["--help"], ["serve", "--help"], ["demo", "--help"], ["dataset", "--help"]):
        done = pslg(*words)
        assert done.returncode == 0, done.stderr
    code = """
import tempfile
from pathlib import Path
from backend.server.app import create_app
from backend.settings import Settings
with tempfile.TemporaryDirectory() as folder:
    app = create_app(
        Settings(state_dir=Path(folder), label_studio_url="http://localhost:8080", label_studio_api_key="t")
    )
    assert app.test_client().get("/health").status_code in (200, 503)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_an_image_is_prelabelled(tmp_path: Path) -> None:
    Image.new("RGB", (96, 96), (60, 90, 60)).save(tmp_path / "scene.png")
    done = pslg("prelabel", str(tmp_path / "scene.png"), "the building", "--json")
    assert done.returncode in (0, 3), done.stderr  # a mask, or the answer that there is none
    assert json.loads(done.stdout)


def test_the_demo_names_the_extra() -> None:
    done = pslg("demo", "--headless")
    assert done.returncode != 0
    assert "pip install 'pslg-sam[demo]'" in done.stderr
    assert "Traceback" not in done.stderr

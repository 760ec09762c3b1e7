"""`make` takes PyTorch from where this machine is served best, and says which; on a local index with tiny wheels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = [
    pytest.mark.skipif(shutil.which("make") is None, reason="needs make"),
    pytest.mark.skipif(sys.platform != "linux", reason="only PyPI's builds for Linux carry CUDA"),
]


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line.startswith(("torch==", "torchvision==")))


def put_wheel(index: Path, name: str, version: str) -> None:
    """A wheel with nothing in it, where an index has it."""
    folder = index / name
    folder.mkdir(parents=True)
    stem = f"{name}-{version}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "")
        wheel.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """The address of an index that has the wheels of constraints.txt, as CPU builds."""
    for name, version in pins().items():
        put_wheel(tmp_path / "index", name, f"{version}+cpu")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "index"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def make(target: str, tmp_path: Path, *variables: str, gpu: bool = False) -> subprocess.CompletedProcess[str]:
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    smi = tools / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\n{'echo GPU 0: NVIDIA A10' if gpu else 'exit 9'}\n")
    smi.chmod(0o755)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "TORCH_", "MAKE"))}
    environ |= {"PATH": f"{tools}:{os.environ['PATH']}", "PIP_CONFIG_FILE": os.devnull, "no_proxy": "127.0.0.1"}
    return subprocess.run(
        ["make", "-s", target, f"PYTHON={sys.executable}", f"VENV={tmp_path / 'venv'}", *variables],
        cwd=REPOSITORY,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_gpu_the_cpu_wheels_are_installed(tmp_path: Path, index: str) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    result = make("torch", tmp_path, f"TORCH_CPU_INDEX={index}")
    assert result.returncode == 0, result.stderr
    assert f"PyTorch comes from {index}: this machine has no NVIDIA GPU." in result.stderr
    packages = (tmp_path / "venv" / "lib").glob("python*/site-packages/torch*.dist-info")
    assert sorted(path.name for path in packages) == [
        f"{name}-{version}+cpu.dist-info" for name, version in sorted(pins().items())
    ]


def test_with_a_gpu_it_is_pypi(tmp_path: Path, index: str) -> None:
    result = make("torch-index", tmp_path, f"TORCH_CPU_INDEX={index}", gpu=True)
    assert (result.returncode, result.stdout) == (0, "")
    assert "has an NVIDIA GPU" in result.stderr


def test_an_index_that_does_not_answer_or_lacks_the_version_is_passed_over(tmp_path: Path, index: str) -> None:
    dead = make("torch-index", tmp_path, "TORCH_CPU_INDEX=http://127.0.0.1:9")
    assert (dead.returncode, dead.stdout) == (0, "")
    assert "http://127.0.0.1:9 does not answer" in dead.stderr
    assert "PyTorch comes from PyPI" in dead.stderr
    (wheel,) = (tmp_path / "index" / "torch").iterdir()
    wheel.rename(wheel.with_name("torch-1.0-py3-none-any.whl"))
    old = make("torch-index", tmp_path, f"TORCH_CPU_INDEX={index}")
    assert (old.returncode, old.stdout) == (0, "")
    assert f"{index} has no torch {pins()['torch']}." in old.stderr


@pytest.mark.parametrize(("given", "named"), [("http://example.org/wheels", "http://example.org/wheels"), ("", "PyPI")])
def test_an_explicit_index_wins(tmp_path: Path, index: str, given: str, named: str) -> None:
    result = make("torch-index", tmp_path, f"TORCH_CPU_INDEX={index}", f"TORCH_INDEX_URL={given}", gpu=True)
    assert result.stdout.strip() == given
    assert f"PyTorch comes from {named}, as TORCH_INDEX_URL says." in result.stderr

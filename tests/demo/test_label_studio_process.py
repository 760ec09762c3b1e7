"""Where Label Studio is looked for, and what it is started with: no calls out, no settings of the caller's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backend.demo.label_studio_process import LabelStudioProcess, find_program
from dataset_tools.errors import LabelStudioError, PslgError


def _program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{body}\n")
    path.chmod(0o755)
    return path


def test_the_option_wins_over_the_variable_and_the_variable_over_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, variable, option = (
        _program(tmp_path / name, "") for name in (".venv-label-studio/bin/label-studio", "v", "o")
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PSLG_LABEL_STUDIO", raising=False)
    assert find_program() == folder
    monkeypatch.setenv("PSLG_LABEL_STUDIO", str(variable))
    assert find_program() == variable
    assert find_program(option) == option


def test_a_missing_program_is_explained(tmp_path: Path) -> None:
    with pytest.raises(LabelStudioError, match=r"nothing\. Install it with `make label-studio`"):
        find_program(tmp_path / "nothing")


def test_it_neither_phones_out_nor_inherits_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_HOST", "https://labels.example.org")
    monkeypatch.setenv("LABEL_STUDIO_BASE_DATA_DIR", "/somewhere/else")
    program = _program(
        tmp_path / "label-studio",
        "import os, sys\nfor name, value in os.environ.items(): print(f'{name}={value}')\nprint(sys.argv[1:])",
    )
    with LabelStudioProcess(program, tmp_path / "data", port=8765) as process, pytest.raises(PslgError):
        process.start()
    lines = (tmp_path / "data" / "label-studio.log").read_text().splitlines()
    assert {"SENTRY_DSN=", "FRONTEND_SENTRY_DSN=", "COLLECT_ANALYTICS=false", "LATEST_VERSION_CHECK=false"} <= set(
        lines
    )
    assert f"LABEL_STUDIO_BASE_DATA_DIR={tmp_path / 'data'}" in lines
    assert not any(line.startswith("LABEL_STUDIO_HOST=") for line in lines)
    assert lines[-1] == "['start', '--no-browser', '--internal-host', '127.0.0.1', '--port', '8765']"

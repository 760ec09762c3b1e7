"""One tree of errors: what the project raises on purpose ends in a line on the terminal, whatever part raises it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from backend import cli
from dataset_tools import errors

ROOT = Path(errors.__file__).parents[1]


def test_every_error_of_the_project_has_the_one_base_and_one_definition() -> None:
    defined: dict[str, list[str]] = {}
    for package in ("backend", "dataset_tools"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                    defined.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
                    bases = [ast.unparse(base) for base in node.bases]
                    assert bases == ["Exception" if node.name == "PslgError" else "PslgError"], (path, node.name)
    assert [name for name, places in defined.items() if len(places) > 1] == []


@pytest.mark.parametrize("what", [["dataset", "stats"], ["evaluate-clicks", "--data"]])
def test_a_damaged_dataset_ends_in_a_line(
    what: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations.json").write_text("{")
    monkeypatch.setattr(sys, "argv", ["pslg", *what, str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("pslg: ")
    assert "annotations.json" in message

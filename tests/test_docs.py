"""The documentation must mention every command and every setting, and must not point at what is not there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from backend.cli import pslg
from backend.labeling_configs import labeling_config_names
from backend.pipeline.config import config_names
from backend.server.app import create_app
from backend.server.metrics import Metrics
from backend.server.service import LabelingService
from backend.settings import NOT_SETTINGS, Settings
from tests.conftest import REPOSITORY

PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]
SOURCES = [
    path for top in ("backend", "dataset_tools", "benchmarks") for path in sorted((REPOSITORY / top).rglob("*.py"))
]
PAGES_BY_NAME = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
TEXT = "\n".join(PAGES_BY_NAME.values())


def _commands(group: click.Group, prefix: str) -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}"


def test_every_command_is_mentioned() -> None:
    commands = list(_commands(pslg, "pslg"))
    assert [name for name in commands if not re.search(rf"{re.escape(name)}\b", TEXT)] == []


def test_no_command_is_promised_that_does_not_exist() -> None:
    code = re.findall(r"`([^`\n]+)`|^(?:    |\$ )?(pslg [^\n]*)$", TEXT, re.M)
    words = [found for pair in code for text in pair for found in re.findall(r"\bpslg ([a-z][a-z -]*)", text)]
    commands = [name.split()[1:] for name in _commands(pslg, "pslg")]
    # "pslg dataset" alone names the group.
    unknown = [text for text in words if not any(all(map(str.__eq__, text.split(), name)) for name in commands)]
    assert unknown == []


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_mentioned(name: str) -> None:
    assert f"PSLG_{name.upper()}" in TEXT


@pytest.mark.parametrize("name", sorted(NOT_SETTINGS))
def test_every_variable_that_is_no_setting_is_mentioned_once(name: str) -> None:
    assert len(re.findall(rf"`{name}\b", PAGES_BY_NAME["settings.md"])) == 1


def test_every_mentioned_setting_exists() -> None:
    known = {f"PSLG_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"PSLG_[A-Z_]+[A-Z]", TEXT)) <= known | set(NOT_SETTINGS)


def test_every_config_is_mentioned() -> None:
    missing = [name for name in [*config_names(), *labeling_config_names()] if f"`{name}`" not in TEXT]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_of_this_repository_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_is_linked_from_the_readme(page: Path) -> None:
    assert page.name == "README.md" or f"]({page.relative_to(REPOSITORY)})" in PAGES_BY_NAME["README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_modules_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = re.findall(r"\b((?:backend|benchmarks|configs|dataset_tools|docs|tests)(?:/[\w.*-]+)+)", text)
    missing = [path for path in paths if "NAME" not in path and not any(REPOSITORY.glob(path.rstrip(".")))]
    dotted = re.findall(r"\b((?:backend|benchmarks|dataset_tools)(?:\.[A-Za-z_]+)+)\b", text)
    missing += [name for name in dotted if not _is_there(name)]
    assert missing == []


def _is_there(dotted: str) -> bool:
    """Whether ``backend.x.y`` is a module, a file, or a name that the module ``backend.x`` defines or imports."""
    place = REPOSITORY / dotted.replace(".", "/")
    home, _, name = dotted.rpartition(".")
    if (
        place.is_dir()
        or place.with_suffix(".py").is_file()
        or (REPOSITORY / home.replace(".", "/")).with_suffix(f".{name}").exists()
    ):
        return True
    folder = REPOSITORY / home.replace(".", "/")
    source = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    return source.is_file() and bool(re.search(rf"\b{name}\b", source.read_text(encoding="utf-8")))


def test_every_room_is_in_the_picture() -> None:
    text = PAGES_BY_NAME["architecture.md"]
    rooms = {
        path.parent
        for path in SOURCES
        if path.name == "__init__.py" and path.parts[len(REPOSITORY.parts)] != "benchmarks"
    }
    assert [str(room.relative_to(REPOSITORY)) for room in rooms if not re.search(rf"\b{room.name}\b", text)] == []


def test_every_route_and_metric_is_described(tmp_path: Path) -> None:
    text = PAGES_BY_NAME["protocol.md"]
    app = create_app(Settings(state_dir=tmp_path), LabelingService(Settings(state_dir=tmp_path)))
    routes = {rule.rule for rule in app.url_map.iter_rules() if rule.endpoint != "static"}
    metrics = {family.name for family in Metrics().registry.collect()}
    assert [name for name in sorted(routes | metrics) if not re.search(rf"{re.escape(name)}(?!\w)", text)] == []


def test_the_config_in_the_docs_is_the_shipped_one() -> None:
    shipped = (REPOSITORY / "configs" / "compact.yaml").read_text(encoding="utf-8")
    shown = "".join(f"    {line}\n" for line in shipped.splitlines())
    assert shown in PAGES_BY_NAME["pipeline.md"], (
        "copy configs/compact.yaml into docs/pipeline.md, four blanks before each line"
    )


def test_docstrings_point_at_pages_that_are_there() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                assert not re.search(r"\b(METHOD|PROTOCOL)\b", text), (
                    f"{path} cites a page that is not in the repository"
                )
                for page in re.findall(r"\b[\w/]+\.md\b", text):
                    assert any(REPOSITORY.glob(page)) or "/" not in page, f"{path}: {page}"


def test_pictures_are_small() -> None:
    large = {path.name: path.stat().st_size for path in (REPOSITORY / "docs").rglob("*.png")}
    assert {name: size for name, size in large.items() if size > 400_000} == {}


def test_what_the_dockerfile_copies_is_there() -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (.+)$", (REPOSITORY / "Dockerfile").read_text(), re.M):
        *sources, _ = line.split()
        for source in sources:
            assert (REPOSITORY / source).exists(), source
            assert f"!{source}" in ignored, f"{source} is copied, but .dockerignore leaves it out"


def test_the_dockerfile_installs_the_torch_of_the_constraints() -> None:
    constraints = (REPOSITORY / "constraints.txt").read_text().splitlines()
    for file in ("Dockerfile", "Makefile"):
        pins = re.findall(r"\b((?:torch|torchvision)==[\d.]+)", (REPOSITORY / file).read_text())
        assert set(pins) == {line for line in constraints if line.startswith(("torch==", "torchvision=="))}


def test_tests_that_a_page_names_exist() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", PAGES_BY_NAME["inputs.md"])
    assert named
    assert [name for name in named if f"def {name}(" not in tests] == []

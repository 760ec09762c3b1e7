"""The documentation must mention every command and every setting, and must not point at what is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from backend.cli import pslg
from backend.labeling_configs import labeling_config_names
from backend.pipeline.config import config_names
from backend.settings import Settings
from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


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


def test_every_mentioned_setting_exists() -> None:
    known = {f"PSLG_{name.upper()}" for name in Settings.model_fields}
    for_tests = {
        "PSLG_WEIGHTS",
        "PSLG_LABEL_STUDIO",
        "PSLG_LABEL_STUDIO_ML",
        "PSLG_CHROMIUM",
        "PSLG_DATA",
        "PSLG_REQUIRE",
    }
    assert set(re.findall(r"PSLG_[A-Z_]+[A-Z]", TEXT)) <= known | for_tests


def test_every_config_is_mentioned() -> None:
    missing = [name for name in [*config_names(), *labeling_config_names()] if f"`{name}`" not in TEXT]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_of_this_repository_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


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

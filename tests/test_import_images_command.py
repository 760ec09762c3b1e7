from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from backend.cli import pslg
from tests.server.conftest import Site, other_site, site

__all__ = ["other_site", "site"]


def run(site: Site, *arguments: str) -> Result:
    environment = {"LABEL_STUDIO_URL": site.url, "LABEL_STUDIO_API_KEY": "0" * 40}
    return CliRunner().invoke(pslg, ["import-images", *arguments], env=environment)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    return tmp_path


def test_nothing_is_made_before_the_expressions_are_read(site: Site, folder: Path) -> None:
    (folder / "words.csv").write_text("a.png,the ship\n")
    done = run(site, str(folder), "--expressions", str(folder / "words.csv"), "--new", "Photos")
    assert "must name the columns" in str(done.exception)
    assert site.seen == []


def test_a_title_that_is_taken_is_refused_with_the_way_on(site: Site, folder: Path) -> None:
    site.put("/api/projects/?page=1&page_size=100", json.dumps({"results": [{"id": 5, "title": "Photos"}]}).encode())
    done = run(site, str(folder), "--new", "Photos")
    assert done.exit_code == 1
    assert "--project 5" in str(done.exception)


def test_a_config_that_reads_the_image_otherwise_is_refused(site: Site, folder: Path) -> None:
    config = '<View><Image name="image" value="https://images/$name"/></View>'
    site.put("/api/projects/5/", json.dumps({"id": 5, "label_config": config}).encode())
    done = run(site, str(folder), "--project", "5")
    assert "reads its image from 'https://images/$name'" in str(done.exception)


@pytest.mark.parametrize("arguments", [(), ("--project", "1", "--new", "x"), ("--new", "x", "--local-files-as", "/f")])
def test_options_that_do_not_go_together(site: Site, folder: Path, arguments: tuple[str, ...]) -> None:
    assert run(site, str(folder), *arguments).exit_code == 2


def test_without_a_label_studio_it_says_what_to_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABEL_STUDIO_URL", raising=False)
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    done = CliRunner().invoke(pslg, ["import-images", str(folder), "--new", "x"])
    assert "needs LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY" in str(done.exception)

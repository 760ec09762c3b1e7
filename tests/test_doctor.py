from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backend.cli import pslg
from backend.labeling_configs import read_labeling_config
from backend.pipeline.config import config_names
from tests.dataset_tools.label_studio.test_client import LEGACY
from tests.server.conftest import Reply, Site, make_site


@pytest.fixture
def site() -> Iterator[Site]:
    yield from make_site()


def run(tmp_path: Path, *options: str, **environ: str | None) -> Result:
    names = (
        "PSLG_CONFIG",
        "LABEL_STUDIO_URL",
        "LABEL_STUDIO_HOST",
        "LABEL_STUDIO_API_KEY",
        "LABEL_STUDIO_ACCESS_TOKEN",
    )
    env: dict[str, str | None] = {**dict.fromkeys(names), "PSLG_STATE_DIR": str(tmp_path), **environ}
    return CliRunner(env=env).invoke(pslg, ["doctor", *options], catch_exceptions=False)


def test_models_and_labels_are_listed(tmp_path: Path) -> None:
    result = run(tmp_path, "--labeling-config", "rrsisd", "--labeling-config", "minimal")
    assert result.exit_code == 0, result.output
    assert "models: compact-" in result.output
    assert "'stadium'" in result.output  # a label that the compact grounder cannot find
    assert "labels that the model finds: object" in result.output
    assert "LABEL_STUDIO_URL is not set" in result.output
    assert re.search(r"which config: compact needs nothing: it finds \d+ of \d+ labels", result.output)
    assert re.search(r"which config: for .*stadium.* take ", result.output)


def test_every_config_is_ready_or_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    result = run(tmp_path, PSLG_WEIGHTS=str(tmp_path / "weights"))
    assert result.exit_code == 0, result.output
    lines = {line.split()[2].rstrip(":"): line for line in result.output.splitlines() if line[8:].startswith("config ")}
    assert lines.keys() == set(config_names())
    assert re.search(r"compact: ready; \S+ s for an expression \(measured\)", lines["compact"])
    paper = lines["lqvg_sam_vit_h"]
    for part in (
        "not ready",
        "no lqvg (place it there by hand",
        "roberta_base_tokenizer",
        "download sam_vit_h",
        "s per image",
    ):
        assert part in paper
    assert "GFLOP/s" in result.output
    assert "accept the SAM License" in lines["sam3"]
    assert "licence of weights: SAM License" in lines["sam3"]
    assert "VLM_URL is not set" in lines["vlm_compact"]
    assert "which config: compact needs nothing (" in result.output
    seconds = {name: float(line.split("about ")[1].split()[0]) for name, line in lines.items() if "about " in line}
    assert seconds["sam2_hiera_tiny"] <= seconds["sam_vit_b"] <= seconds["sam_vit_h"]


def test_problems_end_with_status_1(tmp_path: Path) -> None:
    bad = tmp_path / "bad.xml"
    bad.write_text('<View><Image name="image" value="$image"/></View>')
    result = run(tmp_path, "--config", "no-such", "--labeling-config", str(bad), "--labeling-config", "nowhere.xml")
    assert result.exit_code == 1
    for part in ("no pipeline config named 'no-such'", "no usable control", "no labeling config 'nowhere.xml'"):
        assert part in result.output


def test_label_studio_its_token_and_its_projects_are_checked(tmp_path: Path, site: Site) -> None:
    site.put("/api/current-user/whoami", b'{"email": "a@b.co"}')
    project = {"id": 7, "title": "ships", "label_config": read_labeling_config("buildings")}
    projects = {"next": None, "results": [project, {"id": 8, "title": "not connected"}]}
    site.put("/api/projects/?page=1&page_size=100", json.dumps(projects).encode())
    backend = {"url": "http://backend:9090", "is_interactive": False, "error_message": "timed out"}
    site.put("/api/ml?project=7", json.dumps([backend]).encode())
    site.put("/api/ml?project=8", b"[]")
    site.put("/api/webhooks/?project=7", b"[]")
    result = run(tmp_path, LABEL_STUDIO_URL=site.url, LABEL_STUDIO_API_KEY=LEGACY)
    assert result.exit_code == 1
    for part in (
        "legacy token of a@b.co",
        "project 7 (ships): backend http://backend:9090: timed out",
        "not set to interactive",
        "no webhook for http://backend:9090/webhook: its host has no dot",
        "project 7 (ships): labels that the model finds: building",
    ):
        assert part in result.output
    assert "not connected" not in result.output
    assert LEGACY not in result.output


def test_a_refused_token_is_a_problem(tmp_path: Path, site: Site) -> None:
    site.replies["/api/current-user/whoami"] = Reply(
        b'{"detail": "legacy token authentication has been disabled"}', 401
    )
    result = run(tmp_path, LABEL_STUDIO_URL=site.url, LABEL_STUDIO_API_KEY=LEGACY)
    assert result.exit_code == 1
    assert "personal access token" in result.output


def test_the_backend_is_called(tmp_path: Path, site: Site) -> None:
    site.put("/health", b'{"status": "UP"}')
    result = run(tmp_path, "--backend-url", site.url)
    assert result.exit_code == 1
    assert "GET /health: {" in result.output
    assert "POST /setup: status 404" in result.output

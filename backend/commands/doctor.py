"""``pslg doctor``: what is missing or will not work, each with what to change."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import click

from backend.errors import ConfigError, PslgError, UnavailableError
from backend.settings import Settings

if TYPE_CHECKING:
    from backend.server.label_studio import LabelStudio
    from backend.server.labeling_config import LabelingConfig

LOAD_TIMEOUT = 600.0


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Literal["ok", "note", "problem"]
    text: str


@click.command()
@click.option("--config", help="Pipeline config to check. [default: compact]")
@click.option(
    "--labeling-config", multiple=True, help="Labeling config to check: a shipped name or a file. Repeatable."
)
@click.option("--backend-url", help="URL under which Label Studio is to reach the backend; it is called.")
@click.option("--label-studio-url", help="Where Label Studio is, with http:// or https://.")
def doctor(labeling_config: tuple[str, ...], backend_url: str | None, **options: Any) -> None:
    """Check settings, weights, Label Studio's address and token, the connected projects and labeling configs.

    Exit status 1 if there is a problem.
    """
    problems = 0
    for finding in findings(labeling_config, backend_url, options):
        colour = {"ok": "green", "note": "yellow", "problem": "red"}[finding.level]
        click.echo(f"{click.style(finding.level.ljust(8), fg=colour)}{finding.text}")
        problems += finding.level == "problem"
    if problems:
        click.echo(f"{problems} problem(s)")
        sys.exit(1)


def findings(labeling_configs: Collection[str], backend_url: str | None, options: dict[str, Any]) -> Iterator[Finding]:
    """Everything that was checked, in the order in which one would repair it."""
    try:
        settings = Settings.load(**options)
    except ConfigError as error:
        yield Finding("problem", str(error))
        return
    yield Finding("ok", f"settings; state in {settings.state_dir}")
    known: Collection[str] | None = ()
    try:
        version, known = _model(settings)
        finds = "any category" if known is None else ", ".join(sorted(known))
        yield Finding("ok", f"models: {version}; finds: {finds}")
    except PslgError as error:
        yield Finding("problem", f"models of config {settings.config!r}: {error}")
    for name in labeling_configs:
        yield from _labeling_config(name, known)
    yield from _label_studio(settings, known)
    if backend_url is not None:
        yield from _backend(backend_url)


def _model(settings: Settings) -> tuple[str, Collection[str] | None]:
    from backend.pipeline import load_pipeline

    pipeline = load_pipeline(settings.config)
    return pipeline.model_version, pipeline.grounder.known_categories


def _labeling_config(name: str, known: Collection[str] | None) -> Iterator[Finding]:
    from backend.commands.warm import read_config
    from backend.server.labeling_config import parse_labeling_config

    try:
        config = parse_labeling_config(read_config(name))
    except PslgError as error:
        yield Finding("problem", f"labeling config {name!r}: {error}")
        return
    yield from _config_findings(f"labeling config {name!r}", config, known)


def _config_findings(what: str, config: LabelingConfig, known: Collection[str] | None) -> Iterator[Finding]:
    for problem in config.problems(known):
        level: Literal["note", "problem"] = "problem" if problem.startswith("no usable control") else "note"
        yield Finding(level, f"{what}: {problem}")
    anything = known is None or config.takes_any_category
    found = [label.stored for label in config.labels if anything or label.categories.intersection(known or ())]
    yield Finding("ok", f"{what}: labels that the model finds: {', '.join(found) or 'none'}")


def _label_studio(settings: Settings, known: Collection[str] | None) -> Iterator[Finding]:
    from backend.server.label_studio import LabelStudio

    if settings.label_studio_url is None:
        yield Finding("note", "LABEL_STUDIO_URL is not set: images in Label Studio (/data/...) cannot be fetched")
        return
    label_studio = LabelStudio.from_settings(settings)
    if label_studio is None:
        yield Finding("problem", "LABEL_STUDIO_API_KEY is not set: a personal access token or a legacy token is needed")
        return
    try:
        user = label_studio.whoami()
        yield Finding("ok", f"Label Studio at {label_studio.url}: {label_studio.kind} token of {user.get('email')}")
        yield from _projects(label_studio, known)
    except PslgError as error:
        yield Finding("problem", str(error))
        host = urlsplit(label_studio.url).hostname
        if Path("/.dockerenv").exists() and host in ("localhost", "127.0.0.1"):
            hint = "this is a container, and that is the container itself; use host.docker.internal or a service's name"
            yield Finding("note", f"LABEL_STUDIO_URL names {host}: {hint}")


def _projects(label_studio: LabelStudio, known: Collection[str] | None) -> Iterator[Finding]:
    from backend.commands.serve import is_dotless
    from backend.server.labeling_config import parse_labeling_config

    for project in label_studio.projects():
        what = f"project {project['id']} ({project.get('title')})"
        backends = label_studio.call("GET", f"/api/ml?project={project['id']}") or []
        if not backends:
            continue
        hooks = [hook.get("url") for hook in label_studio.call("GET", f"/api/webhooks/?project={project['id']}") or []]
        for backend in backends:
            url = str(backend.get("url"))
            if backend.get("error_message"):
                yield Finding("problem", f"{what}: backend {url}: {backend['error_message']}")
            if not backend.get("is_interactive"):
                yield Finding("note", f"{what}: backend {url} is not set to interactive: no smart tools")
            if f"{url.rstrip('/')}/webhook" not in hooks:
                why = ": its host has no dot" if is_dotless(urlsplit(url).hostname or "") else ""
                yield Finding("note", f"{what}: no webhook for {url}/webhook{why}; annotations are not announced")
        try:
            config = parse_labeling_config(str(project.get("label_config")))
        except PslgError as error:
            yield Finding("problem", f"{what}: {error}")
            continue
        yield from _config_findings(what, config, known)


def _backend(url: str) -> Iterator[Finding]:
    import requests

    calls: tuple[tuple[str, Callable[[], requests.Response]], ...] = (
        ("GET /health", lambda: requests.get(f"{url.rstrip('/')}/health", timeout=1)),
        ("POST /setup", lambda: requests.post(f"{url.rstrip('/')}/setup", json={"project": "doctor"}, timeout=3)),
    )
    for name, call in calls:
        try:
            response = call()
            if not response.ok:
                raise UnavailableError(f"status {response.status_code}")
            yield Finding("ok", f"backend at {url}: {name}: {response.text[:200]}")
        except (requests.RequestException, PslgError) as error:
            yield Finding("problem", f"backend at {url}: {name}: {error}")

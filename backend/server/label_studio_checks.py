"""What `pslg doctor` finds over the network: the token, clocks, projects with a connected backend, the backend."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import requests

from backend.server.access import Access
from backend.server.connection import Webhook, backend_webhooks
from backend.server.editor.labeling_config import LabelingConfig, parse_labeling_config
from backend.server.local_checks import Check
from backend.settings import Settings, is_dotless
from dataset_tools.errors import PslgError, UnavailableError

if TYPE_CHECKING:
    from dataset_tools.label_studio.client import LabelStudio

__all__ = ["backend_checks", "config_checks", "label_studio_checks"]

_APART = 30.0
"""Seconds by which the clocks of two machines may differ before it is said."""


def label_studio_checks(settings: Settings, known: Collection[str] | None) -> Iterator[Check]:
    """Everything that Label Studio's API says; nothing without its address and token.

    Args:
        settings: address, token, and what the server wants of webhooks.
        known: the categories that the models find; None for any.
    """
    label_studio = settings.label_studio()
    if label_studio is None:
        return
    try:
        user = label_studio.whoami()
        yield Check("ok", f"Label Studio at {label_studio.url}: {label_studio.kind} token of {user.get('email')}")
        yield from _clocks(label_studio)
        yield from _projects(label_studio, Access(settings), known)
    except PslgError as error:
        yield Check("problem", str(error))
        host = urlsplit(label_studio.url).hostname
        if Path("/.dockerenv").exists() and host in ("localhost", "127.0.0.1"):
            hint = "this is a container, and that is the container itself; use host.docker.internal or a service's name"
            yield Check("note", f"LABEL_STUDIO_URL names {host}: {hint}")


def _clocks(label_studio: LabelStudio) -> Iterator[Check]:
    ahead = label_studio.clock_ahead()
    if ahead is not None and abs(ahead) > _APART:
        yield Check(
            "problem",
            f"the clocks are apart: Label Studio's is {abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} this"
            " machine's; set both by NTP (what is dated a day ahead is set aside, times in reports are wrong)",
        )


def _projects(label_studio: LabelStudio, access: Access, known: Collection[str] | None) -> Iterator[Check]:
    for project in label_studio.projects():
        what = f"project {project['id']} ({project.get('title')})"
        backends = label_studio.backends(project["id"])
        if not backends:
            continue
        hooks = dict(backend_webhooks(label_studio, project["id"]))
        for backend in backends:
            url = str(backend.get("url"))
            yield from _connection(what, url, backend)
            yield from _webhook(what, url, hooks.get(url.rstrip("/")), access)
            yield from _start_training(what, url, backend, access)
        yield from _score_column(what, project, backends)
        try:
            config = parse_labeling_config(str(project.get("label_config")))
        except PslgError as error:
            yield Check("problem", f"{what}: {error}")
            continue
        yield from config_checks(what, config, known)


def _connection(what: str, url: str, backend: Mapping[str, Any]) -> Iterator[Check]:
    """Label Studio has asked the backend before it answers, so that this is how things are now."""
    state = backend.get("state", "CO")
    if state == "DI":
        reason = backend.get("error_message") or "it does not answer /health"
        yield Check(
            "problem",
            f"{what}: backend {url} is down, or not to be reached from Label Studio's machine: {reason} (curl"
            f" {url.rstrip('/')}/health there)",
        )
    elif backend.get("error_message"):
        yield Check("problem", f"{what}: backend {url}: {backend['error_message']}")
    if not backend.get("is_interactive"):
        yield Check("note", f"{what}: backend {url} is not set to interactive: no smart tools")


def _webhook(what: str, url: str, hook: Webhook | None, access: Access) -> Iterator[Check]:
    if hook is None:
        why = ": its host has no dot" if is_dotless(urlsplit(url).hostname or "") else ""
        yield Check("note", f"{what}: no webhook for {url}/webhook{why}; annotations are not announced")
        return
    if not hook.active:
        yield Check("problem", f"{what}: the webhook {hook.url} is switched off; annotations are not announced")
    wanted = access.webhook_headers()
    if wanted and hook.headers is not None and not hook.sends(wanted):
        yield Check(
            "problem",
            f"{what}: the webhook {hook.url} does not send {', '.join(wanted)} as these settings want it: its events"
            " are refused (Settings > Webhooks; a running server sets it when the project is opened)",
        )


def _start_training(what: str, url: str, backend: Mapping[str, Any], access: Access) -> Iterator[Check]:
    if access.takes_training and not access.is_open and backend.get("auth_method", "NONE") != "BASIC_AUTH":
        yield Check(
            "problem", f"{what}: backend {url} is connected without Basic credentials, which these settings want"
        )


def _score_column(what: str, project: Mapping[str, Any], backends: Collection[Mapping[str, Any]]) -> Iterator[Check]:
    """The Data Manager averages the scores of predictions whose version has the name of the project's model."""
    shown = project.get("model_version")
    versions = sorted({str(row["model_version"]) for row in backends if row.get("model_version")})
    if shown and versions and shown not in versions:
        yield Check(
            "note",
            f"{what}: the column Prediction score is empty, or an older version's: it shows predictions of {shown!r},"
            f" the backend's are of {', '.join(versions)}: a running server that may call Label Studio names the"
            f" connection so (PSLG_NAME_CONNECTION), and so does `pslg rank {project['id']} --write`; by hand:"
            " Settings > Model >"
            " the backend's title",
        )


def config_checks(what: str, config: LabelingConfig, known: Collection[str] | None) -> Iterator[Check]:
    """What a labeling config lacks, and which of its labels the models find."""
    for problem in config.problems(known):
        level: Literal["note", "problem"] = "problem" if problem.startswith("no usable control") else "note"
        yield Check(level, f"{what}: {problem}")
    anything = known is None or config.takes_any_category
    found = [label.stored for label in config.labels if anything or label.categories.intersection(known or ())]
    yield Check("ok", f"{what}: labels that the model finds: {', '.join(found) or 'none'}")


def backend_checks(url: str, settings: Settings) -> Iterator[Check]:
    """The backend as Label Studio asks it, with the credentials of these settings."""
    with requests.Session() as session:
        session.trust_env = False  # Label Studio's machine has another proxy and another .netrc
        session.verify = str(settings.ca_bundle) if settings.ca_bundle is not None else True
        if settings.basic_auth_user is not None and settings.basic_auth_password is not None:
            session.auth = (settings.basic_auth_user, settings.basic_auth_password.get_secret_value())
        elif settings.client_key is not None:
            session.headers["Authorization"] = f"Bearer {settings.client_key.get_secret_value()}"
        sent = (
            "those of these settings were sent" if session.auth or settings.client_key else "these settings have none"
        )
        calls: tuple[tuple[str, Callable[[], requests.Response]], ...] = (
            ("GET /health", lambda: session.get(f"{url.rstrip('/')}/health", timeout=1)),
            ("POST /setup", lambda: session.post(f"{url.rstrip('/')}/setup", json={"project": "doctor"}, timeout=3)),
        )
        for name, call in calls:
            try:
                response = call()
                if response.status_code == requests.codes.unauthorized:
                    raise UnavailableError(
                        f"status 401: it, or a proxy before it, wants other credentials; {sent} (PSLG_BASIC_AUTH_USER,"
                        " PSLG_BASIC_AUTH_PASSWORD, and the same in Connect Model)"
                    )
                if not response.ok:
                    raise UnavailableError(f"status {response.status_code}: {response.text[:200]}")
                yield Check("ok", f"backend at {url}: {name}: {response.text[:200]}")
            except (requests.RequestException, PslgError) as error:
                yield Check("problem", f"backend at {url}: {name}: {error}")

"""The page at ``/``: which models answer which project, what was asked last, what is to be mended. Plain HTML.

It shows numbers, names and versions: no image, no expression, no token, no address of an image.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from backend.server.doc_pages import doc_pages
from backend.server.local_checks import local_checks
from dataset_tools import html_page
from dataset_tools.html_page import Markup

if TYPE_CHECKING:
    from prometheus_client import Counter

    from backend.server.service import LabelingService

__all__ = ["status_page"]

_KEPT = 30


def status_page(service: LabelingService) -> str:
    """The whole page for a service."""
    settings = service.settings
    began = datetime.fromtimestamp(service.last_requests.began, UTC)
    subtitle = (
        f"release {_release()}, config {settings.config}, model {service.models.version(None)}, process {os.getpid()}"
        f" since {began:%Y-%m-%d %H:%M} UTC"
    )
    if settings.workers > 1:
        subtitle += f"; one of {settings.workers} workers: requests and counts are this one's own"
    sections = [
        ("What to fix", _to_fix(service)),
        ("Projects", _projects(service)),
        ("Last requests for predictions", _requests(service)),
        ("Expressions without an answer, by reason", _counts(service.metrics.notes, "reason")),
        ("Waiting", _waiting(service)),
        ("Embedding cache", _embeddings(service)),
        ("Trainings", _trainings(service)),
        ("To read", _to_read()),
    ]
    return html_page.page("PSLG-SAM for Label Studio", subtitle, sections)


def _release() -> str:
    try:
        return version("pslg-sam")
    except PackageNotFoundError:
        return "of a source tree"


def _to_fix(service: LabelingService) -> Markup:
    found = [("server", problem)] if (problem := service.problem) else []
    checks = local_checks(service.settings, service.embeddings.bytes_on_disk)
    found += [(check.level, check.text) for check in checks if check.level != "ok"]
    for project in service.store.projects():
        problems = service.config_problems(project.label_config, project.id) if project.label_config else ()
        found += [(f"project {project.id}, labeling config", text) for text in problems]
    text = "Nothing that the server sees by itself. pslg doctor also tries the connection in both directions."
    return _table(("where", "what"), found, text)


def _projects(service: LabelingService) -> Markup:
    rows = [
        (project.id, project.title or "", service.models.version(project.id)) for project in service.store.projects()
    ]
    return _table(("project", "title", "answered by"), rows, "No webhook has named a project yet.")


def _requests(service: LabelingService) -> Markup:
    rows = [
        (
            f"{datetime.fromtimestamp(row.at, UTC):%H:%M:%S}",
            "" if row.project is None else row.project,
            row.kind,
            row.tasks,
            row.outcome,
            f"{row.seconds:.2f} s",
        )
        for row in service.last_requests.newest_first()
    ]
    return _table(("UTC", "project", "what", "tasks", "outcome", "took"), rows, "None yet.")


def _counts(counter: Counter, label: str) -> Markup:
    found: list[tuple[str, int]] = [
        (str(sample.labels[label]), int(sample.value))
        for metric in counter.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    ]
    found.sort(key=lambda row: -row[1])
    return _table((label, "number"), found, "None since the process began.")


def _waiting(service: LabelingService) -> Markup:
    rows = [("clicks", service.clicks_waiting), ("expressions", service.prelabeler.expressions.waiting)]
    return html_page.table(("what", "number"), rows)


def _embeddings(service: LabelingService) -> Markup:
    store, settings = service.embeddings, service.settings
    rows = [
        ("disk", f"{store.bytes_on_disk / 1e6:,.0f} MB", f"{settings.embedding_disk / 1e6:,.0f} MB"),
        ("memory", f"{store.bytes_in_memory / 1e6:,.0f} MB", f"{settings.embedding_memory / 1e6:,.0f} MB"),
    ]
    used = html_page.table(("where", "holds", "at most"), rows)
    return used + Markup("<p></p>") + _counts(service.metrics.embeddings, "result")


def _trainings(service: LabelingService) -> Markup:
    rows = [
        (job.id, job.project, job.state, f"{job.progress:.0%}", job.version or "", job.message or "")
        for job in sorted(service.jobs.jobs(), key=lambda job: -job.id)[:_KEPT]
    ]
    return _table(("job", "project", "state", "done", "version", "message"), rows, "None yet.")


def _to_read() -> Markup:
    link = Markup('<li><a href="docs/{}">{}</a></li>')
    pages = Markup("").join(link.format(name, title) for name, title in doc_pages().items())
    metrics = Markup('<li><a href="metrics">figures for monitoring</a> (Prometheus)</li>')
    return Markup("<ul>{}{}</ul>").format(pages, metrics)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], nothing: str) -> Markup:
    found = list(rows)
    return html_page.table(head, found) if found else Markup('<p class="dim">{}</p>').format(nothing)

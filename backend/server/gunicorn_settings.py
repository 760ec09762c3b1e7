"""How gunicorn runs the server: what ``pslg serve`` sets, and what ``backend.server.gunicorn_config`` says."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from backend.server.whole_requests import WholeRequestWorker
from backend.settings import Settings

__all__ = ["gunicorn_settings"]


def gunicorn_settings(settings: Settings) -> dict[str, Any]:
    """Names and values of gunicorn's settings; makes the folder in which several workers count together."""
    if settings.workers > 1:
        _share_metrics(settings.state.metrics)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return {
        "bind": f"{host}:{settings.port}",
        "workers": settings.workers,
        "threads": settings.threads,
        "worker_class": type("Worker", (WholeRequestWorker,), {"body_bytes": settings.body_bytes}),
        "timeout": 0,  # a thread that computes for long does not mean a stuck worker
        "graceful_timeout": 5,
        "control_socket_disable": True,  # it would be one file in the home folder for all servers
        "loglevel": settings.log_level.lower(),
        "child_exit": _forget_metrics,
    }


def _share_metrics(folder: Path) -> None:
    """Let all workers count into one folder, so that /metrics of any of them answers for all."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except OSError:  # a state folder that cannot be written, which the server says
        folder = Path(tempfile.mkdtemp(prefix="pslg-metrics-"))
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def _forget_metrics(_: Any, worker: Any) -> None:
    """Gauges of a worker that ended no longer count."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]

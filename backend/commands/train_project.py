"""``pslg train project``: train on a project's annotations, now and here, or as the server's runner of a queued job."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backend.settings import Settings
from dataset_tools.errors import ConfigError

if TYPE_CHECKING:
    from backend.database import Database
    from backend.learning.retraining.runner import TrainingRunner
    from backend.learning.versions.jobs import Job, TrainingJobs

_PATIENCE = 3.0  # seconds: a server that looks whether somebody trains holds the lock for a moment


@click.command("project")
@click.argument("project", type=int, required=False)
@click.option("--job", "number", type=int, help="Run this queued job; the server starts trainings with it.")
@click.option("--like", metavar="VERSION", help="Make a version again: the same images, options and seed.")
@click.option("--stop", is_flag=True, help="Stop the project's jobs instead.")
@click.option("--config", help="Base config. [default: compact]")
@click.option("--state-dir", type=click.Path(path_type=Path), help="State folder of the server.")
@click.option("--label-studio-url", help="Where Label Studio is, with http:// or https://.")
def project(project: int | None, number: int | None, like: str | None, stop: bool, **options: Any) -> None:
    """Train on the accepted masks of Label Studio's PROJECT; the new version serves if the promotion gate lets it.

    One training runs at a time; one that was killed goes on where it was. A running server switches by itself.
    """
    if (project is None) == (number is None) or (project is None and (stop or like)):
        raise click.UsageError("give either PROJECT or --job")
    from backend.database import Database
    from backend.learning.retraining.replay import check_replay
    from backend.learning.versions.jobs import TrainingJobs

    settings = Settings.load(**options)
    database = Database.of_state(settings.state_dir)
    jobs = TrainingJobs(database)
    try:
        if stop and project is not None:
            click.echo("\n".join(f"job {job.id} stopped" for job in jobs.stop(project)) or "no job to stop")
            return
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        if number is None:  # a queued job fails with the reason instead
            check_replay(settings.train_replay)
        with _turn(settings, jobs):
            job = _job(jobs, project, number, like)
            if job is not None:
                _run(settings, database, jobs, job)
    finally:
        database.close()


@contextmanager
def _turn(settings: Settings, jobs: TrainingJobs) -> Iterator[None]:
    """Hold the lock of the state folder; raises ConfigError while somebody else trains."""
    from backend.state import process_lock

    until = time.monotonic() + _PATIENCE
    while True:
        with process_lock(settings.state.training_lock) as mine:
            if mine:
                yield
                return
        if time.monotonic() > until:
            running = [job for job in jobs.jobs() if job.state == "running"]
            who = "".join(f": job {job.id} of project {job.project}, process {job.pid}" for job in running)
            raise ConfigError(f"another training runs on {settings.state_dir}{who}; wait, or stop it with --stop")
        time.sleep(0.1)


def _job(jobs: TrainingJobs, project: int | None, number: int | None, like: str | None) -> Job | None:
    if project is not None:
        return jobs.add(project, like)
    try:
        job = jobs.job(number or 0)
    except KeyError:
        raise ConfigError(f"there is no training job {number}; see pslg models list") from None
    return None if job.finished else job  # another server was faster


def _run(settings: Settings, database: Database, jobs: TrainingJobs, job: Job) -> None:
    os.nice(settings.train_nice)
    import cv2
    import torch

    torch.set_num_threads(settings.train_threads)
    cv2.setNumThreads(settings.train_threads)
    manifest = _runner(settings, database, jobs).run(job)
    if manifest is None:
        ended = jobs.job(job.id)
        click.echo(f"job {ended.id} {ended.state}: {ended.message}", err=True)
        sys.exit(0 if ended.state in ("stopped", "waits") else 1)
    verb = "serves" if manifest.accepted else "was made, but does not serve,"
    click.echo(f"{manifest.version} {verb} project {manifest.project}: {manifest.reason}")


def _runner(settings: Settings, database: Database, jobs: TrainingJobs) -> TrainingRunner:
    from backend.learning.annotations.labelled import ImageFile
    from backend.learning.annotations.store import AnnotationStore
    from backend.learning.annotations.sync import sync_project
    from backend.learning.retraining.runner import TrainingRunner
    from backend.learning.versions.registry import ModelVersions
    from backend.server.images import TaskImages

    store = AnnotationStore(database)
    studio = settings.label_studio()
    images = TaskImages(settings, studio, database)

    def fetch(url: str, task: int) -> ImageFile:
        image, path = images.keep(url, task, settings.state.images)
        return ImageFile(image.identity, path, *image.size)

    def sync(project: int) -> None:
        if studio is not None:
            sync_project(store, studio, project, settings.state_dir)

    versions = ModelVersions(database, settings.state_dir)
    return TrainingRunner(settings, store, jobs, versions, fetch, sync)

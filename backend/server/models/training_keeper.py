"""Sees to it that wanted training jobs run, each in a process of its own that outlives the server.

Of all processes on one state folder one is the keeper; when it ends, another takes over. It folds new events, queues
jobs, and starts ``pslg train project --job N`` while no other process trains. A runner that was killed is started again
and goes on from its checkpoints.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

from backend.learning.annotations.store import AnnotationStore
from backend.learning.versions.jobs import MAX_ATTEMPTS, Job, TrainingJobs
from backend.settings import PREFIX, Settings
from backend.state import process_lock

__all__ = ["TrainingKeeper"]

logger = logging.getLogger(__name__)
_INTERVAL = 5.0  # seconds between two looks, when no webhook comes
_SETTLE = 0.2  # seconds after a webhook, so that a burst of them is folded at once
_LONGEST_PAUSE = 300.0  # seconds before a runner that failed again and again is started once more
_LOG_BYTES = 10_000_000
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class TrainingKeeper:
    """The keeper of one process; does nothing until ``start``. ``learn`` is called whenever events were folded."""

    def __init__(
        self,
        settings: Settings,
        store: AnnotationStore,
        jobs: TrainingJobs,
        learn: Callable[[], object] = lambda: None,
    ) -> None:
        self._learn = learn
        self._settings = settings
        self._store = store
        self._jobs = jobs
        self._woken = threading.Event()
        self._closed = threading.Event()
        self._runner: subprocess.Popen[bytes] | None = None
        self._failures = 0
        self._not_before = 0.0
        self._seen: tuple[int, str, int] | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look after the jobs, in the background."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="training-keeper", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """A webhook has come."""
        self._woken.set()

    def close(self) -> None:
        """Stop looking after jobs; a job that runs goes on."""
        self._closed.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(10)

    def _run(self) -> None:
        while not self._closed.is_set():
            # The folder may be gone or the disk full: tried again, and said once in a while.
            with self._logged(), process_lock(self._settings.state.keeper_lock) as mine:
                while mine and not self._closed.is_set():
                    with self._logged():
                        self._turn()
                    if self._woken.wait(_INTERVAL):
                        self._woken.clear()
                        self._closed.wait(_SETTLE)
            self._closed.wait(_INTERVAL)

    @contextlib.contextmanager
    def _logged(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            logger.exception("the training keeper failed and goes on")

    def _turn(self) -> None:
        self._store.refresh()
        with self._logged():
            self._learn()
        if self._settings.train_every:
            for project in self._jobs.want_after(self._settings.train_every):
                logger.info("project %d: %d more accepted masks, training queued", project, self._settings.train_every)
        self._reap()
        job = self._jobs.next()
        self._log(job)
        if job is None or self._runner is not None or time.monotonic() < self._not_before:
            return
        with process_lock(self._settings.state.training_lock) as free:
            pass
        if not free:
            return
        if job.attempts >= MAX_ATTEMPTS:
            self._jobs.fail(job.id, f"died {job.attempts} times without getting any further; {self._log_hint}")
            logger.error("training job %d of project %d given up; %s", job.id, job.project, self._log_hint)
            return
        self._spawn(job)

    def _spawn(self, job: Job) -> None:
        log = self._settings.state.training_log
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(self._settings.state.older_training_log)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        inherited.pop("PROMETHEUS_MULTIPROC_DIR", None)
        threads = dict.fromkeys(_THREAD_VARIABLES, str(self._settings.train_threads))
        with log.open("ab") as output:
            # A session of its own: neither Ctrl-C on the server nor the end of the server ends the training.
            self._runner = subprocess.Popen(
                [sys.executable, "-m", "backend", "train", "project", "--job", str(job.id)],
                env={**inherited, **self._settings.environment(), **threads},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        verb = "goes on" if job.state == "running" else "starts"
        logger.info(
            "training job %d of project %d %s (process %d, log %s)", job.id, job.project, verb, self._runner.pid, log
        )

    def _reap(self) -> None:
        if self._runner is None or (status := self._runner.poll()) is None:
            return
        self._runner = None
        self._failures = 0 if status == 0 else self._failures + 1
        if status != 0:
            self._not_before = time.monotonic() + min(_LONGEST_PAUSE, _INTERVAL * 2 ** (self._failures - 1))
            logger.warning("the training process ended with status %d; %s", status, self._log_hint)

    def _log(self, job: Job | None) -> None:
        """One line in the server's log whenever the running job is 10 % further, and when it has ended."""
        if self._seen is not None and (job is None or job.id != self._seen[0]):
            ended = self._jobs.job(self._seen[0])
            logger.info("training job %d of project %d %s: %s", ended.id, ended.project, ended.state, ended.message)
        seen = None if job is None else (job.id, job.state, int(job.progress * 10))
        if job is not None and job.state == "running" and seen != self._seen:
            logger.info(
                "training job %d of project %d: %.0f %%, %s", job.id, job.project, 100 * job.progress, job.message
            )
        self._seen = seen

    @property
    def _log_hint(self) -> str:
        return f"{self._settings.state.training_log} has the reason"

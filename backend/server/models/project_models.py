"""Which pipeline answers a project: the base config's, or the version that was promoted for it, without a restart.

What serves is looked up for every request (one row of SQLite). A version that is new is loaded in the background; until
it is there the one before goes on answering, and ``/setup`` goes on naming that one, so that the name in ``/setup`` and
the name in predictions change together. A request keeps the pipeline that it began with.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path

from backend.bounded_cache import BoundedCache
from backend.learning.annotations.exemplars import ExemplarStore
from backend.learning.versions.registry import ModelVersions
from backend.pipeline import PslgSam
from backend.pipeline.grounding.exemplars import LIKE
from dataset_tools.errors import PslgError, UnavailableError

__all__ = ["UNAVAILABLE", "Model", "ProjectModels"]

logger = logging.getLogger(__name__)
LOAD_TIMEOUT = 600.0
"""Seconds that a command waits for models, at most; large ones come from slow disks."""
_RETRY_BASE_AFTER = 15.0  # seconds between attempts while weights are missing
_RETRY_AFTER = 60.0  # seconds before a version that could not be loaded is tried again
_TAUGHT = 8  # projects whose pipelines with lessons are held; they share the networks
_WAIT = 60.0  # seconds that a request waits for a version, where there is nothing else to answer with


UNAVAILABLE = "-unavailable"
"""What a version ends in while there is none."""


class Model:
    """Holds the pipeline once it is loaded; a failed load is tried again when somebody asks.

    Args:
        config: name or path of the pipeline config, for ``<config>-unavailable``.
        load: makes the pipeline.
        threads: threads of the numerical libraries.
    """

    def __init__(self, config: str, load: Callable[[], PslgSam], threads: int = 1) -> None:
        self._name = Path(config).stem
        self._load = load
        self._threads = threads
        self._pipeline: PslgSam | None = None
        self._problem = "the models are being loaded"
        self._loading = False
        self._failed_at = 0.0
        self._lock = threading.Lock()
        self._done = threading.Event()

    @property
    def version(self) -> str:
        """The pipeline's model version, ``<config>-unavailable`` without one."""
        return self.unavailable if self._pipeline is None else self._pipeline.model_version

    @property
    def unavailable(self) -> str:
        """What ``/setup`` answers while there is nothing to predict with."""
        return f"{self._name}{UNAVAILABLE}"

    @property
    def ready(self) -> bool:
        """Whether the pipeline is loaded."""
        return self._pipeline is not None

    @property
    def problem(self) -> str | None:
        """Why there is no pipeline, None if there is one."""
        return None if self.ready else self._problem

    def start(self) -> None:
        """Begin to load in the background, unless loaded, loading, or failed a moment ago."""
        with self._lock:
            waiting = self._failed_at and time.monotonic() - self._failed_at < _RETRY_BASE_AFTER
            if self.ready or self._loading or waiting:
                return
            self._loading = True
            self._done.clear()
        threading.Thread(target=self._run, name="model-loader", daemon=True).start()

    def wait(self, seconds: float = LOAD_TIMEOUT) -> bool:
        """Wait until the load under way ends; whether the pipeline is there."""
        self._done.wait(seconds)
        return self.ready

    def pipeline(self) -> PslgSam:
        """The pipeline. The thread that asks computes with as many threads of the libraries as every other one.

        Raises:
            UnavailableError: it is not loaded; says why, and what to do.
        """
        if self._pipeline is None:
            self.start()
            raise UnavailableError(f"{self.version}: {self._problem}")
        import torch

        # torch's number reaches threads that begin later; one that has computed before keeps its own, and sums in
        # another order end in other last digits.
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        return self._pipeline

    def _run(self) -> None:
        started = time.monotonic()
        try:
            import cv2
            import torch

            torch.set_num_threads(self._threads)
            cv2.setNumThreads(self._threads)
            pipeline = self._load()
            self._threads = torch.get_num_threads()  # a config may name its own number
        except Exception as error:
            # Whatever a loader raises must end up in the answers and the log, not in a dead thread.
            self._problem = str(error) if isinstance(error, PslgError) else f"{type(error).__name__}: {error}"
            self._failed_at = time.monotonic()
            logger.error("the models cannot be loaded: %s", self._problem, exc_info=not isinstance(error, PslgError))
        else:
            self._pipeline = pipeline
            logger.info("%s loaded in %.1f s", pipeline.model_version, time.monotonic() - started)
        finally:
            self._loading = False
            self._done.set()


class ProjectModels:
    """The pipelines of one process. Thread-safe.

    Args:
        base: the base config's pipeline, for every project without a promoted version.
        versions: what was promoted.
        config: name of the base config; versions of another one do not serve.
        load: makes the pipeline of a version's config file.
        capacity: promoted versions held in memory; the one that was not used for longest goes first.
        exemplars: lessons of accepted objects, which a project's pipeline is lent: candidates of a new category before
            any training.
    """

    def __init__(
        self,
        base: Model,
        versions: ModelVersions,
        config: str,
        load: Callable[[Path], PslgSam],
        capacity: int,
        exemplars: ExemplarStore,
    ) -> None:
        self._exemplars = exemplars
        self._taught: BoundedCache[tuple[int, str], PslgSam] = BoundedCache(_TAUGHT)
        self._teaching = threading.Lock()
        self._base = base
        self._versions = versions
        self._config = config
        self._load = load
        self._capacity = capacity
        self._held: OrderedDict[str, PslgSam] = OrderedDict()
        self._loading: dict[str, Future[PslgSam]] = {}
        self._failed_at: dict[str, float] = {}
        self._serving: dict[int, str | None] = {}  # project -> version it was answered with last, None: the base
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to load what was promoted before this process began."""
        active = self._versions.all_active(self._config)
        with self._lock:
            for project, version in sorted(active.items())[-self._capacity :]:
                self._begin(project, version)

    @property
    def problem(self) -> str | None:
        """Why not every project is answered by what was promoted for it yet, None if it is."""
        with self._lock:
            loading = sorted(self._loading)
        return self._base.problem or (f"being loaded: {', '.join(loading)}" if loading else None)

    def version(self, project: int | None) -> str:
        """The model version that answers a project now, ``<config>-unavailable`` while it is loaded; never waits."""
        pipeline = self.loaded(project)
        return self._base.unavailable if pipeline is None else pipeline.model_version

    def loaded(self, project: int | None) -> PslgSam | None:
        """The pipeline that answers a project now, None while it is loaded; never waits."""
        pipeline = self._find(project)[0] if self._base.ready else None
        return None if pipeline is None else self._with_lessons(project, pipeline)

    def pipeline(self, project: int | None) -> PslgSam:
        """The pipeline that answers a project; the caller keeps it to the end of its request.

        Raises:
            UnavailableError: it is not loaded (yet); says why, and what to do.
        """
        base = self._base.pipeline()
        until = time.monotonic() + _WAIT
        while True:
            pipeline, loading = self._find(project)
            if pipeline is not None:
                return self._with_lessons(project, pipeline)
            if loading is None:
                return self._with_lessons(project, base)
            try:
                loading.exception(max(0.0, until - time.monotonic()))
            except FutureTimeoutError:
                raise UnavailableError(f"the model version of project {project} is being loaded") from None

    def answers(self, project: int | None, version: str) -> bool:
        """Whether the trained ``version`` answers the project now, with whatever lessons."""
        pipeline = self._find(project)[0] if self._base.ready else None
        return pipeline is not None and pipeline.model_version == version

    def serves(self, project: int | None, version: str) -> bool:
        """Whether ``version`` answers the project now, and nothing else was promoted for it (and is being loaded)."""
        return (self._wanted(project) or self._base.version) == version and self.answers(project, version)

    def versions(self) -> list[str]:
        """Model versions in memory, the base config's first."""
        with self._lock:
            held = list(reversed(self._held))
        return [*([self._base.version] if self._base.ready else []), *held]

    def _with_lessons(self, project: int | None, pipeline: PslgSam) -> PslgSam:
        """``pipeline`` with what the project's lessons show; itself where they show nothing that it does not know."""
        try:
            state = None if project is None else self._exemplars.state(project)
        except sqlite3.Error as error:
            logger.warning("the lessons of project %s cannot be read: %s; answered without", project, error)
            state = None
        if project is None or not state:
            return pipeline
        key = (project, f"{pipeline.model_version}{LIKE}{state}")
        with self._teaching:
            held = self._taught.get(key)
            if held is None:
                taught = self._exemplars.taught(project)
                held = pipeline.with_exemplars(taught.lessons, key[1])
                self._taught.put(key, held, 1)
                if held is not pipeline:
                    known = pipeline.grounder.known_categories or ()
                    names = ", ".join(f"{n!r} ({c} objects)" for n, c in taught.objects.items() if n not in known)
                    logger.info("project %d: more like its accepted objects is found: %s", project, names)
        return held

    def _wanted(self, project: int | None) -> str | None:
        """The version promoted for a project; the one that it had last where that cannot be read."""
        if project is None:
            return None
        try:
            return self._versions.active(project, self._config)
        except sqlite3.Error as error:
            with self._lock:
                last = self._serving.get(project)
            logger.warning("what serves project %d cannot be read: %s; as before", project, error)
            return last

    def _find(self, project: int | None) -> tuple[PslgSam | None, Future[PslgSam] | None]:
        """What answers the project now, else the load to wait for. The base is ready when this is called."""
        wanted = self._wanted(project)
        with self._lock:
            if project is None or wanted is None:
                if project is not None:
                    if self._serving.get(project) is not None:
                        logger.info(
                            "project %d is answered by %s now, no longer by %s",
                            project,
                            self._base.version,
                            self._serving[project],
                        )
                    self._serving[project] = None
                return self._base.pipeline(), None
            if wanted in self._held:
                self._held.move_to_end(wanted)
                if self._serving.get(project, "") != wanted:
                    logger.info("project %d is answered by %s now", project, wanted)
                self._serving[project] = wanted
                return self._held[wanted], None
            loading = self._begin(project, wanted)
            if project in self._serving or loading is None:
                before = self._serving.get(project)
                if before is None:
                    return self._base.pipeline(), None
                if before in self._held:
                    return self._held[before], None
                if loading is None:
                    return self._base.pipeline(), None
            return None, loading

    def _begin(self, project: int, version: str) -> Future[PslgSam] | None:
        """Load in the background, unless that failed a while ago; with the lock held."""
        failed_at = self._failed_at.get(version)
        if failed_at is not None and time.monotonic() - failed_at < _RETRY_AFTER:
            return None
        if version not in self._loading:
            future = self._loading[version] = Future()
            arguments = (project, version, future)
            threading.Thread(target=self._run, args=arguments, name=f"load-{version}", daemon=True).start()
        return self._loading[version]

    def _run(self, project: int, version: str, future: Future[PslgSam]) -> None:
        started = time.monotonic()
        try:
            self._versions.verify(version, project)
            pipeline = self._load(self._versions.config_path(version))
            if pipeline.model_version != version:
                raise UnavailableError(f"its folder holds {pipeline.model_version}")
        except Exception as error:
            # Whatever a loader raises must end up in the log and leave the version before in place.
            with self._lock:
                self._failed_at[version] = time.monotonic()
                del self._loading[version]
            reason = str(error) if isinstance(error, PslgError) else f"{type(error).__name__}: {error}"
            logger.error(
                "%s cannot be loaded, project %d stays with what answered it before: %s; go back with `pslg models"
                " rollback %d`",
                version,
                project,
                reason,
                project,
                exc_info=not isinstance(error, PslgError),
            )
            future.set_exception(error)
            return
        with self._lock:
            self._failed_at.pop(version, None)
            del self._loading[version]
            self._held[version] = pipeline
            while len(self._held) > self._capacity:
                self._held.popitem(last=False)
        logger.info("%s loaded in %.1f s", version, time.monotonic() - started)
        future.set_result(pipeline)

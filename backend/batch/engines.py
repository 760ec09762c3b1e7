"""Where tasks are computed: ``local`` in this process, ``ray`` on the machines of a Ray cluster (or of this one).

An engine takes numbered tasks and yields each number with its prediction, or with the text of its failure, in the order
in which they are done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, NamedTuple

from backend.batch.predictor import TaskPredictor
from backend.server.protocol import Prediction
from backend.settings import Settings
from dataset_tools.errors import ConfigError, PslgError

__all__ = ["ENGINES", "Engine", "TaskAnswer", "local_engine", "ray_engine"]

TRIES = 10
"""How often a task is tried again whose worker died; one that brings down every worker fails then, by name."""


class TaskAnswer(NamedTuple):
    """What became of a task: a prediction and what is to be said of it, or why there is none."""

    number: int
    prediction: Prediction | None
    failure: str | None
    note: str = ""


class Engine(NamedTuple):
    """A running engine: the model version of its predictions, and ``compute`` of tasks by their numbers."""

    version: str
    compute: Callable[[Mapping[int, dict[str, Any]]], Iterator[TaskAnswer]]


@contextmanager
def local_engine(settings: Settings, labeling_config: str, workers: int | None) -> Iterator[Engine]:
    """Threads of this process, which share one set of models.

    Raises:
        ConfigError: the models cannot be loaded, or ``workers`` was given.
    """
    if workers is not None:
        raise ConfigError("--workers is for --engine ray; the local engine computes one image at a time")
    predictor = TaskPredictor(settings, labeling_config)

    def compute(rows: Mapping[int, dict[str, Any]]) -> Iterator[TaskAnswer]:
        with ThreadPoolExecutor(settings.prelabel_fetchers) as pool:
            running = {pool.submit(predictor.predict, row): number for number, row in rows.items()}
            for future in as_completed(running):
                try:
                    prediction, note = future.result()
                    yield TaskAnswer(running[future], prediction, None, note)
                except PslgError as error:
                    yield TaskAnswer(running[future], None, str(error))

    try:
        yield Engine(predictor.version, compute)
    finally:
        predictor.close()


class _Actor:
    """A predictor on some machine of the cluster; its errors travel as text."""

    def __init__(self, settings: Settings, labeling_config: str) -> None:
        self._predictor = TaskPredictor(settings, labeling_config)

    def version(self) -> str:
        return self._predictor.version

    def predict(self, number: int, row: dict[str, Any]) -> TaskAnswer:
        try:
            prediction, note = self._predictor.predict(row)
            return TaskAnswer(number, prediction, None, note)
        except PslgError as error:
            return TaskAnswer(number, None, str(error))


@contextmanager
def ray_engine(settings: Settings, labeling_config: str, workers: int | None) -> Iterator[Engine]:
    """Actors of a Ray cluster, each with its own models and its machine's own state folder.

    The cluster is the one of ``RAY_ADDRESS``, or else one of this machine alone, which ends with the engine.

    Args:
        settings: of every actor; weights and folders are looked up on the actor's machine.
        labeling_config: Label Studio's XML.
        workers: actors; None: one per GPU of the cluster, without GPUs as many as its CPUs have threads for.

    Raises:
        ConfigError: Ray is not installed, or the actors cannot load the models.
    """
    ray = _ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    started = not ray.is_initialized()
    if started:
        ray.init(address=os.environ.get("RAY_ADDRESS", "local"), log_to_driver=False, logging_level="warning")
    actors: list[Any] = []
    try:
        threads = settings.model_threads or 1
        gpus = int(ray.cluster_resources().get("GPU", 0))
        count = workers or gpus or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        actor = ray.remote(_Actor).options(
            num_cpus=0 if workers else threads,  # a number asked for is started, also on fewer CPUs
            num_gpus=min(1.0, gpus / count),
            max_concurrency=settings.prelabel_fetchers,
            max_restarts=-1,  # a machine that comes and goes may do so for as long as the run takes
            max_task_retries=TRIES,
        )
        own = settings.model_copy(update={"model_threads": threads})
        actors = [actor.remote(own, labeling_config) for _ in range(count)]
        try:
            versions = set(ray.get([one.version.remote() for one in actors]))
        except ray.exceptions.RayError as error:
            raise ConfigError(f"the actors cannot load the models: {_reason(error)}") from error
        if len(versions) > 1:
            raise ConfigError(f"the machines hold different weights: {', '.join(sorted(versions))}")
        yield Engine(versions.pop(), lambda rows: _spread(ray, actors, rows, settings.prelabel_fetchers))
    finally:
        for one in actors:
            ray.kill(one)
        if started:
            ray.shutdown()


def _spread(ray: Any, actors: list[Any], rows: Mapping[int, dict[str, Any]], each: int) -> Iterator[TaskAnswer]:
    """Give every actor ``each`` tasks at a time, so that images are fetched while others are computed."""
    waiting = iter(rows.items())
    running: dict[Any, tuple[int, Any]] = {}

    def give(actor: Any) -> None:
        for number, row in waiting:
            running[actor.predict.remote(number, row)] = (number, actor)
            return

    for actor in actors * each:
        give(actor)
    while running:
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        number, actor = running.pop(done)
        try:
            answer = ray.get(done)
        except ray.exceptions.RayError as error:
            answer = TaskAnswer(number, None, _reason(error))
        give(actor)
        yield answer


def _reason(error: Exception) -> str:
    """The last line of a remote error, which names it; what precedes is the remote machine's traceback."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, PslgError):
        return str(cause)
    return next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__).strip()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs the package ray: pip install 'pslg-sam[ray]' on every machine") from error
    return ray


ENGINES = {"local": local_engine, "ray": ray_engine}

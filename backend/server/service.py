"""The labeling service: pre-labels tasks, refines clicks, takes events. No HTTP in it."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, get_args

from backend.database import Database
from backend.learning.annotations.events import ACTIONS
from backend.learning.annotations.exemplars import ExemplarStore
from backend.learning.annotations.labelled import ImageFile
from backend.learning.annotations.project_nouns import ProjectNouns
from backend.learning.annotations.store import AnnotationStore
from backend.learning.versions.jobs import TrainingJobs
from backend.learning.versions.registry import ModelVersions
from backend.memory import MemoryTrimmer, use_few_arenas
from backend.pipeline import PslgSam, load_pipeline
from backend.pipeline.segmentation.embedding_store import Count, EmbeddingStore
from backend.server.access import Access
from backend.server.answers.clicks import ClickQueue, Clicks
from backend.server.answers.expression_answers import Serving
from backend.server.answers.prelabel_cache import PrelabelCache
from backend.server.answers.prelabeling import Prelabeler
from backend.server.connection import ConnectionSetup
from backend.server.editor.labeling_config import NO_OUTPUT, LabelingConfig, parse_labeling_config
from backend.server.images import TaskImages
from backend.server.metrics import LastRequests, Metrics
from backend.server.models.project_models import Model, ProjectModels
from backend.server.models.training_keeper import TrainingKeeper
from backend.server.protocol import PredictRequest, SetupRequest, Slot
from backend.settings import Settings
from backend.work import work
from dataset_tools.errors import ProtocolError, PslgError, UnavailableError
from dataset_tools.label_studio.notes import answered

__all__ = ["LabelingService"]

logger = logging.getLogger(__name__)
P = ParamSpec("P")


class LabelingService:
    """Everything the backend does for Label Studio. Thread-safe; one per process.

    Args:
        settings: what to serve, where to keep things, how to reach Label Studio.
        load: makes the pipeline; by default that of ``settings.config``.
        load_version: makes the pipeline of a promoted version from its config file.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], PslgSam] | None = None,
        load_version: Callable[[Path], PslgSam] = load_pipeline,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.last_requests = LastRequests()
        self.model = Model(
            settings.config, self._watched(load or partial(load_pipeline, settings.config)), settings.threads_of_models
        )
        self._database = Database.of_state(settings.state_dir, can_wait=True)
        self.store = AnnotationStore(self._database)
        self.events = self.store.events
        self.nouns = ProjectNouns(self.store)
        self.jobs = TrainingJobs(self._database)
        name = Path(settings.config).stem
        registry = ModelVersions(self._database, settings.state_dir)
        self.cache = PrelabelCache(self._database, settings.prelabel_rows, settings.max_objects, settings.candidates)
        self.label_studio = settings.label_studio()
        self.images = TaskImages(settings, self.label_studio, self._database)
        self._exemplars = ExemplarStore(self._database, self.store)
        self.training = TrainingKeeper(settings, self.store, self.jobs, self._learn)
        self.models = ProjectModels(
            self.model, registry, name, self._watched(load_version), settings.version_memory, self._exemplars
        )
        self.embeddings = EmbeddingStore(
            settings.state.embeddings,
            settings.embedding_disk,
            settings.embedding_memory,
            count={what: self.metrics.embeddings.labels(what).inc for what in get_args(Count)},
        )
        self.prelabeler = Prelabeler(
            settings, self.images, self.embeddings, self.cache, self.label_studio, self.metrics
        )
        self.connection = ConnectionSetup(
            self.label_studio, Access(settings).webhook_headers(), named=settings.name_connection
        )
        self.clicks = Clicks(settings, self.images, self.embeddings, self.prelabeler, self.metrics)
        self._queue = ClickQueue(settings.click_queue, most=settings.most_clicks)
        self._batches = threading.BoundedSemaphore(settings.batch_limit)
        self._explained: dict[str, str] = {}
        self._trimming = MemoryTrimmer()

    def _learn(self, only: int | None = None) -> None:
        """Lessons of the accepted objects of ``only`` one project or of all, once the model is loaded."""
        if self.model.ready:
            self._exemplars.learn(self.model.pipeline(), self._keep_image, only)

    def _keep_image(self, url: str, task: int) -> ImageFile:
        image, path = self.images.keep(url, task, self.settings.state.images)
        return ImageFile(image.identity, path, *image.size)

    def _watched(self, load: Callable[P, PslgSam]) -> Callable[P, PslgSam]:
        """``load``, with what the pipeline counts shown in the metrics."""

        def loaded(*args: P.args, **kwargs: P.kwargs) -> PslgSam:
            pipeline = load(*args, **kwargs)
            pipeline.count_memory_fallbacks(self.metrics.memory_fallbacks.inc)
            pipeline.count_model_calls(self.metrics.observe_model_call)
            return pipeline

        return loaded

    def start(self) -> None:
        """Begin to load the models in the background."""
        use_few_arenas()
        self._trimming.start()
        self.model.start()
        self.models.start()

    def catch_up(self, project: int | None) -> None:
        """Fold what webhooks and ``pslg sync`` brought and make lessons of a project's, as a running server does on its
        own; the models are loaded. What cannot be had is said in the log.
        """
        self.store.refresh()
        if project is None:
            return
        try:
            self._learn(project)
        except PslgError as error:
            logger.warning("project %d: the lessons of its accepted objects are not up to date: %s", project, error)

    def close(self) -> None:
        """Cancel waiting work and close the files; a training that runs goes on."""
        self._trimming.close()
        self.training.close()
        self.prelabeler.close()
        self._database.close()

    def setup(self, request: SetupRequest) -> str:
        """The model version now; problems of the labeling config are logged once per project and config."""
        self.model.start()  # weights may have been put in place since the last attempt
        project = request.project or "unknown"
        config = hashlib.sha256(request.labeling_config.encode()).hexdigest()  # configs may be long
        if self._explained.get(project) != config and request.labeling_config:
            if len(self._explained) > 1000:
                self._explained.clear()
            self._explained[project] = config
            for problem in self.config_problems(request.labeling_config, request.project_id):
                logger.warning("project %s, labeling config: %s", project, problem)
        return self.models.version(request.project_id)

    def config_problems(self, xml: str, project: int | None = None) -> tuple[str, ...]:
        """What will not work with a labeling config, each with what to change."""
        try:
            config = parse_labeling_config(xml)
        except ProtocolError as error:
            return (str(error),)
        pipeline = self.models.loaded(project)
        return config.problems(None if pipeline is None else pipeline.grounder.known_categories)

    @property
    def problem(self) -> str | None:
        """What is not as it should be: models that are not there (yet), a disk that cannot be written; else None."""
        return "; ".join(filter(None, (self.models.problem, self._database.trouble))) or None

    def labeling_config(self, xml: str, project: int | None) -> LabelingConfig:
        """A project's labeling config, with the nouns that its annotators use; without a project as it is.

        Raises:
            ProtocolError: it cannot be read.
        """
        config = parse_labeling_config(xml)
        nouns = None
        if project is not None:
            with self._database.spared("a project's nouns (reading)"):
                nouns = self.nouns.of(project)
        return config.with_nouns(nouns) if nouns else config

    def versions(self) -> list[str]:
        """The model versions in use, then those whose answers are still kept."""
        return list(dict.fromkeys([*self.models.versions(), *self.cache.versions()]))

    @property
    def clicks_waiting(self) -> int:
        """Interactive requests that wait or are being answered."""
        return len(self._queue)

    def predict(self, request: PredictRequest) -> list[Slot]:
        """Answer a batch (one slot per task) or an interactive request (one prediction).

        Raises:
            ProtocolError: the labeling config cannot carry a mask, or an interactive request has no task.
            UnavailableError: no models, or too many requests at once.
        """
        began = time.monotonic()
        kind = request.kind
        outcome = "refused"
        try:
            with work(project=request.project_id, kind=kind):
                slots = self._predict(request)
            objects = sum(len(answered(slot["result"])) for slot in slots if isinstance(slot, dict))
            missing = sum(isinstance(slot, list) for slot in slots)
            outcome = f"{objects} objects" + (f", {missing} tasks not computed" if missing else "")
            return slots
        except PslgError as error:
            outcome = type(error).__name__.removesuffix("Error").lower()
            raise
        finally:
            seconds = time.monotonic() - began
            self.last_requests.add(request.project_id, kind, len(request.tasks), outcome, seconds)
            fields = {"project": request.project_id, "kind": kind, "tasks": len(request.tasks), "seconds": seconds}
            logger.info("%d tasks: %s in %.3f s", len(request.tasks), outcome, seconds, extra=fields)

    def _predict(self, request: PredictRequest) -> list[Slot]:
        words = request.context is None or _has_text(request.context.result)
        config = self.labeling_config(request.label_config, request.project_id if words else None)
        if not config.outputs:
            raise ProtocolError(NO_OUTPUT)
        if request.context is None:
            return self._batch(request, config)
        if not request.tasks:
            raise ProtocolError("an interactive request needs a task")
        return [self.clicks.answer(self.models.pipeline(request.project_id), request, config, self._queue)]

    def record_event(self, body: dict[str, Any]) -> int:
        """Store a webhook durably; returns its number.

        Raises:
            ProtocolError: it has no action.
            UnavailableError: it cannot be stored (the disk is full, say); Label Studio does not send it again.
        """
        try:
            number = self.events.append(body)
        except sqlite3.Error as error:
            raise UnavailableError(
                f"a webhook ({body.get('action')}) cannot be stored in {self._database.path}: {error}; free disk space,"
                " then fetch what was missed with `pslg sync`"
            ) from error
        self.metrics.events.labels(body["action"] if body["action"] in ACTIONS else "other").inc()
        self.training.wake()
        return number

    def render_metrics(self) -> bytes:
        """Metrics in Prometheus' text format."""
        self.metrics.model_ready.set(self.model.ready)
        with self._database.spared("training jobs (reading)"):
            self.metrics.show_training(self.jobs.jobs())
        self.metrics.embedding_bytes.labels("memory").set(self.embeddings.bytes_in_memory)
        self.metrics.embedding_bytes.labels("disk").set(self.embeddings.bytes_on_disk)
        return self.metrics.render()

    def _batch(self, request: PredictRequest, config: LabelingConfig) -> list[Slot]:
        pipeline = self.models.pipeline(request.project_id)
        if not self._batches.acquire(blocking=False):
            raise UnavailableError(
                f"{self.settings.batch_limit} batches are being answered already (PSLG_BATCH_LIMIT); ask again later"
            )
        try:
            project, version = request.project_id, pipeline.trained_version
            serving = Serving(
                answers=partial(self.models.answers, project, version),
                stays=partial(self.models.serves, project, version),
                scope=project,
            )
            return self.prelabeler.batch(pipeline, request.tasks, config, serving)
        finally:
            self._batches.release()


def _has_text(items: Sequence[Any]) -> bool:
    """Whether an editor's request brings typed words: only those are read with the project's nouns."""
    return any(isinstance(item, dict) and item.get("type") == "textarea" for item in items)

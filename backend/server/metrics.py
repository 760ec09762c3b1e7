"""What a server process counts (all of them where PROMETHEUS_MULTIPROC_DIR is set), and its last requests."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter as Counted
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from backend.learning.versions.jobs import Job
from dataset_tools.label_studio.notes import Note

__all__ = ["AnsweredRequest", "LastRequests", "Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 100)

_BYTES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000)
_LAST = 30


class Metrics:
    """Counters of one service; each service has its own registry, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "pslg_requests", "Requests by endpoint and status", ["endpoint", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "pslg_request_seconds", "Time to answer", ["endpoint"], buckets=_SECONDS, registry=self.registry
        )
        self.prelabels = Counter(
            "pslg_prelabels", "Tasks by outcome: answered, abstained, failed, late", ["outcome"], registry=self.registry
        )
        self.notes = Counter(
            "pslg_abstentions", "Expressions without an answer, by reason", ["reason"], registry=self.registry
        )
        self.prelabel_cache = Counter(
            "pslg_prelabel_cache", "Expressions looked up among the computed ones", ["result"], registry=self.registry
        )
        self.pushed = Counter(
            "pslg_predictions_pushed", "Late predictions pushed to Label Studio", ["result"], registry=self.registry
        )
        self.clicks = Counter(
            "pslg_clicks",
            "Interactive requests by outcome: answered, empty, superseded, refused, failed",
            ["outcome"],
            registry=self.registry,
        )
        self.stages = Histogram(
            "pslg_stage_seconds",
            "Seconds of clicks and expressions by stage (backend.work)",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.brush_bytes = Histogram(
            "pslg_brush_code_bytes", "Bytes of JSON of a brush region", buckets=_BYTES, registry=self.registry
        )
        self.embeddings = Counter(
            "pslg_embeddings",
            "Embeddings by what happened: memory, disk, computed, corrupt, evicted-memory, evicted-disk",
            ["result"],
            registry=self.registry,
        )
        self.embedding_bytes = Gauge(
            "pslg_embedding_bytes",
            "Bytes of embeddings held",
            ["where"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.memory_fallbacks = Counter(
            "pslg_gpu_memory_fallbacks",
            "Embeddings made on the CPU, the GPU being out of memory",
            registry=self.registry,
        )
        self.model_calls = Counter(
            "pslg_language_model_calls",
            "Questions to a language model by outcome: answered, throttled, failed, timeout, refused",
            ["outcome"],
            registry=self.registry,
        )
        self.model_tokens = Counter(
            "pslg_language_model_tokens",
            "Tokens that the language model counted: prompt, completion",
            ["kind"],
            registry=self.registry,
        )
        self.model_seconds = Counter(
            "pslg_language_model_seconds", "Time spent waiting for a language model", registry=self.registry
        )
        self.events = Counter("pslg_events", "Webhooks stored, by action", ["action"], registry=self.registry)
        self.training_jobs = Gauge(
            "pslg_training_jobs",
            "Training jobs by state",
            ["state"],
            registry=self.registry,
            multiprocess_mode="livemostrecent",
        )
        self.training_progress = Gauge(
            "pslg_training_progress",
            "Share that is done of the job that runs",
            registry=self.registry,
            multiprocess_mode="livemostrecent",
        )
        self.model_ready = Gauge(
            "pslg_model_ready", "1 when the models are loaded", registry=self.registry, multiprocess_mode="livemin"
        )

    def count_notes(self, notes: Sequence[Note]) -> None:
        """Count expressions that were not answered."""
        for note in notes:
            self.notes.labels(note.reason).inc()

    def count_stages(self, stages: Mapping[str, float]) -> None:
        """Count a piece of work that took so many seconds by stage."""
        for stage, seconds in stages.items():
            self.stages.labels(stage).observe(seconds)

    def observe_model_call(
        self, outcome: str, seconds: float, prompt_tokens: int = 0, completion_tokens: int = 0
    ) -> None:
        """Count one question to a language model."""
        self.model_calls.labels(outcome).inc()
        self.model_tokens.labels("prompt").inc(prompt_tokens)
        self.model_tokens.labels("completion").inc(completion_tokens)
        self.model_seconds.inc(seconds)

    def show_training(self, jobs: Sequence[Job]) -> None:
        """Set what is said of training jobs."""
        states = Counted(job.state for job in jobs)
        for state in ("queued", "running", "done", "waits", "failed", "stopped"):
            self.training_jobs.labels(state).set(states[state])
        self.training_progress.set(next((job.progress for job in jobs if job.state == "running"), 0.0))

    def render(self) -> bytes:
        """The text format of Prometheus."""
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            return generate_latest(registry)
        return generate_latest(self.registry)


@dataclass(frozen=True)
class AnsweredRequest:
    """A request for predictions: when it came (seconds since the epoch), what it was, what became of it."""

    at: float
    project: int | None
    kind: str
    tasks: int
    outcome: str
    seconds: float


class LastRequests:
    """The last requests for predictions of this process, for the page at ``/``. Thread-safe."""

    def __init__(self) -> None:
        self._rows: deque[AnsweredRequest] = deque(maxlen=_LAST)
        self._lock = threading.Lock()
        self.began = time.time()

    def add(self, project: int | None, kind: str, tasks: int, outcome: str, seconds: float) -> None:
        """Keep what became of a request that took ``seconds``."""
        with self._lock:
            self._rows.append(AnsweredRequest(time.time(), project, kind, tasks, outcome, seconds))

    def newest_first(self) -> list[AnsweredRequest]:
        """The kept requests."""
        with self._lock:
            return list(reversed(self._rows))

"""The pipeline of a server: loaded in the background, so that no request waits for it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from backend.pipeline import PslgSam
from dataset_tools.errors import PslgError, UnavailableError

__all__ = ["Model"]

logger = logging.getLogger(__name__)
LOAD_TIMEOUT = 600.0
"""Seconds that a command waits for models, at most; large ones come from slow disks."""
_RETRY_AFTER = 15.0  # seconds between attempts while weights are missing


class Model:
    """Holds the pipeline once it is loaded; a failed load is tried again when somebody asks.

    Args:
        config: name or path of the pipeline config, for ``<config>-unavailable``.
        load: makes the pipeline.
        threads: threads of the numerical libraries, None for half of the cores.
    """

    def __init__(self, config: str, load: Callable[[], PslgSam], threads: int | None = None) -> None:
        self._name = Path(config).stem
        self._load = load
        self._threads = threads or max(1, (os.cpu_count() or 2) // 2)
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
        return f"{self._name}-unavailable"

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
            waiting = self._failed_at and time.monotonic() - self._failed_at < _RETRY_AFTER
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
        """The pipeline.

        Raises:
            UnavailableError: it is not loaded; says why, and what to do.
        """
        if self._pipeline is None:
            self.start()
            raise UnavailableError(f"{self.version}: {self._problem}")
        return self._pipeline

    def _run(self) -> None:
        started = time.monotonic()
        try:
            import cv2
            import torch

            torch.set_num_threads(self._threads)
            cv2.setNumThreads(self._threads)
            pipeline = self._load()
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

"""Lends a project's pipeline the lessons of its accepted objects: candidates of a new category before any training."""

from __future__ import annotations

import logging
import sqlite3
import threading

from backend.bounded_cache import BoundedCache
from backend.learning.annotations.exemplars import ExemplarStore
from backend.learning.annotations.labelled import FetchImage
from backend.learning.annotations.store import AnnotationStore
from backend.pipeline import PslgSam
from backend.pipeline.grounding.exemplars import LIKE
from backend.server.models.project_models import Model

__all__ = ["ExemplarModels"]

logger = logging.getLogger(__name__)
_HELD = 8


class ExemplarModels:
    """Thread-safe.

    Args:
        base: the base config's pipeline, whose grounder makes the lessons.
        exemplars: what is kept of them.
        store: of the annotations.
        fetch: gets the file of a task's image.
    """

    def __init__(self, base: Model, exemplars: ExemplarStore, store: AnnotationStore, fetch: FetchImage) -> None:
        self._base = base
        self._exemplars = exemplars
        self._store = store
        self._fetch = fetch
        self._held: BoundedCache[tuple[int, str], PslgSam] = BoundedCache(_HELD)
        self._lock = threading.Lock()

    def refresh(self, only: int | None = None) -> None:
        """Make the lessons of what changed since the last time, of all projects or of ``only`` one; nothing while the
        model is being loaded.
        """
        if not self._base.ready:
            return
        pipeline = self._base.pipeline()
        matcher = pipeline.exemplar_matcher()
        known = pipeline.grounder.known_categories
        if matcher is None or known is None:
            return
        for project in self._store.projects():
            if only not in (None, project.id):
                continue
            self._exemplars.refresh(project.id, matcher, known, self._fetch)

    def extended(self, project: int | None, pipeline: PslgSam) -> PslgSam:
        """``pipeline`` with what the project's lessons show; itself where they show nothing that it does not know."""
        try:
            state = None if project is None else self._exemplars.state(project)
        except sqlite3.Error as error:
            logger.warning("the lessons of project %s cannot be read: %s; answered without", project, error)
            state = None
        if project is None or not state:
            return pipeline
        key = (project, f"{pipeline.model_version}{LIKE}{state}")
        with self._lock:
            held = self._held.get(key)
            if held is None:
                taught = self._exemplars.taught(project)
                held = pipeline.with_exemplars(taught.lessons, key[1])
                self._held.put(key, held, 1)
                if held is not pipeline:
                    known = pipeline.grounder.known_categories or ()
                    names = ", ".join(f"{n!r} ({c} objects)" for n, c in taught.objects.items() if n not in known)
                    logger.info("project %d: more like its accepted objects is found: %s", project, names)
        return held

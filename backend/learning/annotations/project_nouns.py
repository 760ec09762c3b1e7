"""The nouns that each project's accepted answers teach, as they are now; for the server, ``warm`` and training."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from backend.learning.annotations.store import AnnotationRow, AnnotationStore
from dataset_tools.errors import PslgError
from dataset_tools.label_studio.accepted_words import accepted_words, taught
from dataset_tools.label_studio.exports import task_expressions
from dataset_tools.label_studio.import_rules import ImportRules
from dataset_tools.label_studio.learnt_nouns import meanings

__all__ = ["ProjectNouns"]

logger = logging.getLogger(__name__)
_RULES = ImportRules()
_NONE: Mapping[str, str] = MappingProxyType({})


class ProjectNouns:
    """Noun -> category for each project.

    Thread-safe. Of a project that was asked for before only changed tasks are read."""

    def __init__(self, store: AnnotationStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._states: dict[int, tuple[int, ...]] = {}
        self._tasks: dict[int, dict[int, tuple[str, list[tuple[str, str]]]]] = {}
        self._nouns: dict[int, Mapping[str, str]] = {}

    def of(self, project: int | None) -> Mapping[str, str]:
        """The project's nouns by what is folded of its annotations; none without a project."""
        if project is None:
            return _NONE
        state = self._store.state(project)
        with self._lock:
            if self._states.get(project) != state:
                self._learn(project)
                self._states[project] = state
            return self._nouns[project]

    def _learn(self, project: int) -> None:
        before, tasks = self._tasks.get(project, {}), {}
        for task, signature in self._store.signatures(project).items():
            known = before.get(task)
            if known is None or known[0] != signature:
                known = signature, _pairs(self._store.of_task(project, task))
            tasks[task] = known
        accepted = [pair for _, pairs in tasks.values() for pair in pairs]
        found = taught(accepted) if accepted else {}
        for noun in found.keys() - self._nouns.get(project, {}).keys():
            logger.info("project %d: %r is read as %r now", project, noun, found[noun].category)
        self._tasks[project], self._nouns[project] = tasks, MappingProxyType(meanings(found))


def _pairs(rows: Sequence[AnnotationRow]) -> list[tuple[str, str]]:
    """(expression, category) of what was accepted in one task, each once."""
    pairs: dict[tuple[str, str], None] = {}
    for row in rows:
        try:
            if not row.skipped:
                texts = task_expressions({"data": row.data}, _RULES)
                pairs |= dict.fromkeys(accepted_words(row.regions, row.body["result"], texts))
        except (PslgError, KeyError, TypeError, ValueError) as error:
            logger.debug("annotation %d teaches no words: %s", row.id, error)
    return list(pairs)

"""What a project's accepted objects teach at once, without a training: lessons about categories that no model knows.

A task's lessons are made when its annotations change and depend on nothing else; a deleted annotation takes its lessons
with it. What they find serves until a training has learnt the category (``GrounderWithExemplars``).
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from backend.database import Database
from backend.learning.annotations.labelled import FetchImage, own_categories, task_images
from backend.learning.annotations.project_nouns import ProjectNouns
from backend.learning.annotations.store import AnnotationStore
from backend.pipeline import PslgSam
from backend.pipeline.grounding.exemplars import (
    MOST_OBJECTS,
    ExemplarMatcher,
    Lesson,
    Lessons,
    digest,
    lesson_of,
    taught_categories,
)
from dataset_tools.geometry import Box
from dataset_tools.label_studio.import_rules import Problem
from dataset_tools.labelled import LabelledImage

__all__ = ["ExemplarStore", "Taught"]

logger = logging.getLogger(__name__)
MOST_LESSONS = 60
"""Newest tasks of a category whose lessons count."""
_REJECTED = 0.3
"""IoU with every accepted object below which a candidate was rejected, where all objects are outlined."""


@dataclass(frozen=True)
class Taught:
    """The lessons of a project, and what changes when they do; ``objects`` accepted, by category."""

    lessons: Lessons
    objects: dict[str, int]


class ExemplarStore:
    """The lessons of all projects of one database. Safe for threads and processes."""

    def __init__(self, database: Database, store: AnnotationStore) -> None:
        self._database = database
        self._store = store
        self._nouns = ProjectNouns(store)

    def learn(self, pipeline: PslgSam, fetch: FetchImage, only: int | None = None) -> None:
        """Make the lessons of what changed since the last time, of all projects or of ``only`` one.

        Args:
            pipeline: the base config's, whose grounder makes the lessons; of one that cannot there are none.
            fetch: gets the file of a task's image.
            only: a project's id.
        """
        matcher, known = pipeline.exemplar_matcher(), pipeline.grounder.known_categories
        if matcher is None or known is None:
            return
        for project in self._store.projects():
            if only in (None, project.id):
                self.refresh(project.id, matcher, known, fetch)

    def refresh(self, project: int, matcher: ExemplarMatcher, known: Collection[str], fetch: FetchImage) -> int:
        """Make the lessons of tasks whose annotations changed; how many tasks that were.

        Args:
            project: the project's id.
            matcher: makes them.
            known: categories that the base model knows: no lesson is needed.
            fetch: gets the file of an image.
        """
        now = {task: f"{matcher.encoder} {text}" for task, text in self._store.signatures(project).items()}
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT task, signature FROM exemplar_tasks WHERE project = ?", (project,))
            before = dict(rows.fetchall())
        changed = sorted(task for task in now.keys() | before.keys() if now.get(task) != before.get(task))
        for task in changed:
            started = time.process_time()
            lessons = list(self._of_task(project, task, matcher, known, fetch)) if task in now else []
            with self._database.transaction(immediate=True) as connection:
                for table in ("exemplars", "exemplar_tasks"):
                    connection.execute(f"DELETE FROM {table} WHERE project = ? AND task = ?", (project, task))  # noqa: S608  # nosec B608 # two constants
                connection.executemany("INSERT INTO exemplars VALUES (?, ?, ?, ?, ?, ?, ?)", lessons)
                if task in now:
                    connection.execute("INSERT INTO exemplar_tasks VALUES (?, ?, ?)", (project, task, now[task]))
            if lessons:
                names = ", ".join(sorted({f"{row[3]!r} ({row[4]} objects)" for row in lessons}))
                seconds = time.process_time() - started
                logger.info("project %d, task %d shows %s; learnt in %.2f CPU s", project, task, names, seconds)
        return len(changed)

    def state(self, project: int) -> str:
        """8 hex digits that change with the project's lessons; empty without any object."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT task, category, digest, objects FROM exemplars WHERE project = ?"
                " ORDER BY task, image, category",
                (project,),
            ).fetchall()
        if not any(row[3] for row in rows):
            return ""
        return digest({f"{task} {name} {made}": () for task, name, made, _ in rows})

    def taught(self, project: int) -> Taught:
        """The lessons of every category of which an object was accepted."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT category, objects, lesson FROM exemplars WHERE project = ? ORDER BY task DESC", (project,)
            ).fetchall()
        lessons: dict[str, list[Lesson]] = {}
        objects: dict[str, int] = {}
        for category, count, body in rows:
            objects[category] = objects.get(category, 0) + count
            if len(lessons.setdefault(category, [])) < MOST_LESSONS:
                lessons[category].append(_unpacked(body))
        return Taught({name: taught for name, taught in lessons.items() if objects[name]}, objects)

    def _of_task(
        self, project: int, task: int, matcher: ExemplarMatcher, known: Collection[str], fetch: FetchImage
    ) -> Iterator[tuple[int, int, str, str, int, str, bytes]]:
        """Rows of the table."""
        rows = self._store.of_task(project, task)
        taught = self.taught(project).lessons
        own = own_categories(rows) | taught.keys()
        problems: list[Problem] = []
        for image in task_images(rows, fetch, problems, own, self._nouns.of(project)):
            categories = taught_categories(image, known, own)
            pixels = image.pixels() if categories else None
            for category in categories:
                assert pixels is not None  # noqa: S101 - some category is taught
                rejected: list[Box] = []
                if category in image.complete and taught.get(category):
                    candidates = matcher.find(pixels, {category: taught[category]}, key=image.key)
                    rejected = _rejected([one.box for one in candidates], image, category)
                lesson = lesson_of(matcher, image, pixels, category, rejected)
                count = sum(item.category == category for item in image.objects)
                yield project, task, image.key, category, count, digest({category: [lesson]}), _packed(lesson)
        for problem in problems:
            logger.warning("project %d, task %s shows nothing: %s", project, problem.task, problem.message)


def _rejected(candidates: list[Box], image: LabelledImage, category: str) -> list[Box]:
    """The candidates that were offered (or would have been) and that nobody accepted."""
    accepted = [item.box for item in image.objects if item.category == category]
    return [box for box in candidates if all(box.iou(one) < _REJECTED for one in accepted)][:MOST_OBJECTS]


def _packed(lesson: Lesson) -> bytes:
    file = io.BytesIO()
    np.savez(file, **lesson)  # type: ignore[arg-type]
    return file.getvalue()


def _unpacked(body: bytes) -> Lesson:
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        return dict(arrays)

"""What a task asks for: its image, its expressions, and the label that an object found for it gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.pipeline.types import Prelabel
from backend.server.editor.labeling_config import LabelingConfig
from backend.server.protocol import Task
from dataset_tools import categories
from dataset_tools.errors import ImageError

__all__ = ["TaskQuery", "default_category", "label_of", "read_task"]


@dataclass(frozen=True)
class TaskQuery:
    """What a task asks for.

    Attributes:
        task_id: Label Studio's id, for messages and pushing.
        url: the image as the task's data has it.
        expressions: one or more; an empty text is answered by an abstention.
        category: the task's own ``category`` field, None without one.
    """

    task_id: int | str | None
    url: str
    expressions: tuple[str, ...]
    category: str | None


def read_task(task: Task, config: LabelingConfig, expressions: Sequence[str] | None = None) -> TaskQuery:
    """Image, expressions and category of a task.

    Args:
        task: as Label Studio sends it.
        config: says under which data keys to look.
        expressions: to be used in place of the task's own (a text prompt).

    Raises:
        ImageError: the image's data key is missing or holds no text.
    """
    url = task.data.get(config.image_key)
    if not isinstance(url, str) or not url.strip():
        keys = ", ".join(map(repr, task.data)) or "none"
        raise ImageError(f"the task has no image under the data key {config.image_key!r} (keys: {keys})")
    if expressions is None:
        value = task.data.get(config.expression_key)
        given = value if isinstance(value, list) else [value]
        expressions = [item for item in given if isinstance(item, str)] or [""]
    category = task.data.get("category")
    return TaskQuery(task.id, url.strip(), tuple(expressions), category if isinstance(category, str) else None)


def default_category(query: TaskQuery, config: LabelingConfig) -> str | None:
    """Canonical category for an expression that names none: the task's own, else that of the only label."""
    if query.category is not None:
        return categories.canonical(query.category)
    if len(config.labels) == 1:
        return next(iter(sorted(config.labels[0].categories)), None)
    return None


def label_of(item: Prelabel, query: TaskQuery, config: LabelingConfig) -> str | None:
    """The stored label for an object; None when the config has none that fits, never a wrong one."""
    only = config.labels[0].stored if len(config.labels) == 1 else None
    if config.takes_any_category:
        return only
    category = item.category or query.category
    if category is None:
        return only
    return config.label_for(category)

"""What a task and its annotator ask for: image, expressions and category; clicks, boxes and texts in pixels.

Items are told apart by ``type`` and ``from_name``, never by their place: whole-image controls (Choices, ...) may come
first. All coordinates arrive in percent of the original image.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.pipeline.types import Prompts
from backend.server.editor.labeling_config import LabelingConfig
from backend.server.protocol import Task
from dataset_tools import brush_rle, categories
from dataset_tools.categories import category_name
from dataset_tools.errors import DatasetError, ImageError, MaskError
from dataset_tools.expressions.more_like import more_like
from dataset_tools.expressions.parser import parse
from dataset_tools.geometry import Box, Point
from dataset_tools.label_studio.images import filled, value_at
from dataset_tools.label_studio.notes import asked
from dataset_tools.label_studio.shapes import brush_code, rectangle_corners

__all__ = [
    "EditorPrompts",
    "MoreLike",
    "ObjectPrompt",
    "TaskQuery",
    "answered_fields",
    "default_category",
    "newest_draft",
    "read_prompts",
    "read_task",
]

_STROKE_POINTS = 3
Drawn = tuple[Box, npt.NDArray[np.float64]]


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
        ImageError: the image's data key is missing or holds no text, or it cannot be told which of its images is meant.
    """
    url = filled(config.image_value, task.data)
    if isinstance(url, list):
        number = 0 if config.item is None and len(url) == 1 else config.item
        if number is None or not 0 <= number < len(url):
            raise ImageError(
                f"the task has {len(url)} images under {config.image_key!r}, and it cannot be told which one is meant;"
                " clicks say so, expressions do not"
            )
        url = url[number]
    if not isinstance(url, str) or not url.strip():
        keys = ", ".join(map(repr, task.data)) or "none"
        raise ImageError(f"the task has no image under the data key {config.image_key!r} (keys: {keys})")
    if expressions is None:
        value = value_at(task.data, config.expression_key)
        given = value if isinstance(value, list) else [value]
        expressions = [item for item in given if isinstance(item, str)] or [""]
    category = task.data.get("category")
    return TaskQuery(task.id, url.strip(), tuple(expressions), category if isinstance(category, str) else None)


def default_category(query: TaskQuery, config: LabelingConfig, expression: str) -> str | None:
    """Category of what is found where neither the words' canonical nouns nor the grounder name one.

    The label of the project that the words name ("solar panel", or a noun that its annotators use), else the task's own
    category, else that of the only label.
    """
    own = config.own_categories
    asked = config.asked(expression)
    named = parse(asked, own).category if own or asked != expression else None
    if named in own or (named is not None and asked != expression):
        return named
    if query.category is not None:
        name = category_name(query.category)
        return name if name in own else categories.canonical(query.category)
    if len(config.labels) == 1:
        name = category_name(config.labels[0].names[0])
        return name if name in own else next(iter(sorted(config.labels[0].categories)), None)
    return None


@dataclass(frozen=True)
class Click:
    """A click in pixels; ``positive`` is False for an alt-click."""

    point: Point
    positive: bool


@dataclass(frozen=True)
class ObjectPrompt:
    """The prompts for one object.

    Attributes:
        label: stored text of the label that was chosen for it.
        clicks: in the order in which they were made.
        box: drawn around it, axis-aligned, None without one.
        drawn: float64[4, 2], the corners (x, y) of that box as it was drawn: it may be turned.
    """

    label: str
    clicks: tuple[Click, ...] = ()
    box: Box | None = None
    drawn: npt.NDArray[np.float64] | None = field(default=None, compare=False)

    @property
    def prompts(self) -> Prompts:
        """The same for a segmenter."""
        points = np.array([click.point for click in self.clicks], np.float32).reshape(-1, 2)
        return Prompts(points, np.array([click.positive for click in self.clicks], np.int64), self.box)


@dataclass(frozen=True)
class MoreLike:
    """A wish for more objects like a region.

    Attributes:
        text: as typed, or the label that was clicked with.
        noun: what the objects are called, "" if nobody says.
        region: id of the region, where it was typed for that one.
        point: lies on the region, where it was clicked.
    """

    text: str
    noun: str
    region: str | None = None
    point: Point | None = None

    def label(self, config: LabelingConfig) -> str | None:
        """The stored label that the noun names; None if it names none."""
        category = parse(config.asked(self.noun), config.own_categories).category or category_name(self.noun)
        return config.label_for(category)


@dataclass(frozen=True)
class EditorPrompts:
    """Everything that one interactive request asks for; ``more`` if its newest text is "more like this", or a click has
    a label that says so.
    """

    objects: tuple[ObjectPrompt, ...]
    texts: tuple[str, ...]
    more: MoreLike | None = None


def read_prompts(
    result: Sequence[Any], task: Task, config: LabelingConfig, image_size: tuple[int, int]
) -> EditorPrompts:
    """Group the context's items into objects and texts.

    Clicks of one label belong to one object, except that those inside a drawn box belong to the box's object. A box
    that was drawn before the clicks is not in the context; it is looked up in the newest draft, and only boxes of smart
    tools count there. A missing sign is taken from the draft's click of the same id, else it is positive.

    Args:
        result: ``params.context.result``.
        task: carries the drafts.
        config: says which controls are prompts.
        image_size: (height, width) in pixels.

    Raises:
        ImageError: they were made on a turned view of the image.
    """
    items = [item for item in result if isinstance(item, dict) and isinstance(item.get("value"), dict)]
    turned = [item for item in items if item.get("type") != "textarea" and item.get("image_rotation")]
    if turned:
        raise ImageError(
            f"its prompts were made on the image turned by {turned[0]['image_rotation']} degrees, where it cannot be"
            " told which pixels are meant; turn the image back and click again"
        )
    signs = _draft_signs(task.drafts)
    objects: dict[tuple[str, int], ObjectPrompt] = {}
    for number, item in enumerate(items):
        label, drawn = _label(item), _box(item, image_size)
        if label is not None and drawn is not None:
            objects[(label, number)] = ObjectPrompt(label, (), *drawn)
    for item in items:
        label = _label(item)
        for click in _clicks(item, signs, image_size) if label is not None else ():
            key = _object_of(objects, label or "", click.point)
            known = objects.get(key, ObjectPrompt(label or ""))
            objects[key] = replace(known, clicks=(*known.clicks, click))
    for key, found in objects.items():
        if found.box is None and (drafted := _drafted_box(found, task, config, image_size)) is not None:
            objects[key] = replace(found, box=drafted[0], drawn=drafted[1])
    typed = list(_texts(items, config))
    wishes = {
        key: MoreLike(found.label, noun, point=_place(found))
        for key, found in objects.items()
        if "more" in found.label.casefold() and (noun := more_like(found.label)) is not None
    }
    # The editor sends all texts of a sitting; the newest is what is asked for now.
    more = next(iter(wishes.values()), _more_like(*typed[-1]) if typed else None)
    return EditorPrompts(
        tuple(found for key, found in objects.items() if key not in wishes),
        () if more is not None else tuple(text for _, text in typed if more_like(text) is None),
        more,
    )


def _place(found: ObjectPrompt) -> Point | None:
    """Where the object was pointed at last."""
    if found.clicks:
        return found.clicks[-1].point
    return None if found.box is None else found.box.center


def _more_like(identity: str, text: str) -> MoreLike | None:
    noun = more_like(text)
    return None if noun is None else MoreLike(text, noun, region=identity)


def newest_draft(drafts: Sequence[Any]) -> dict[str, Any] | None:
    """The draft saved last, None without one."""
    usable = [draft for draft in drafts if isinstance(draft, dict) and isinstance(draft.get("result"), list)]
    return max(usable, key=lambda draft: str(draft.get("updated_at") or ""), default=None)


def _object_of(objects: dict[tuple[str, int], ObjectPrompt], label: str, point: Point) -> tuple[str, int]:
    """The smallest box of this label around the click, else the label's group without a box."""
    around = [
        (found.box.area, key)
        for key, found in objects.items()
        if key[0] == label and found.box is not None and found.box.contains(point)
    ]
    return min(around)[1] if around else (label, -1)


def _label(item: dict[str, Any]) -> str | None:
    labels = item["value"].get(str(item.get("type"))) or item["value"].get("labels")
    return labels[0] if isinstance(labels, list) and labels and isinstance(labels[0], str) else None


def _numbers(value: dict[str, Any], *names: str) -> list[float] | None:
    numbers = [value.get(name) for name in names]
    if all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        return [float(n) for n in numbers]  # type: ignore[arg-type]
    return None


def _clicks(item: dict[str, Any], signs: dict[str, bool], image_size: tuple[int, int]) -> list[Click]:
    if item.get("type") == "brushlabels":
        return [Click(point, True) for point in _stroke_points(item, image_size)]
    position = _numbers(item["value"], "x", "y")
    if item.get("type") != "keypointlabels" or position is None:
        return []
    sign = item.get("is_positive")
    # Other callers of the API than the editor write 0 and 1.
    sign = bool(sign) if isinstance(sign, int) else signs.get(str(item.get("id")), True)
    height, width = image_size
    x = min(max(position[0] / 100 * width, 0.0), width - 1.0)
    y = min(max(position[1] / 100 * height, 0.0), height - 1.0)
    return [Click(Point(x, y), sign)]


def _box(item: dict[str, Any], image_size: tuple[int, int]) -> Drawn | None:
    """The axis-aligned box around a rectangle that may be turned about its upper left corner, and its corners."""
    sides = _numbers(item["value"], "x", "y", "width", "height")
    if item.get("type") != "rectanglelabels" or sides is None:
        return None
    height, width = image_size
    value = {**item["value"], "rotation": (_numbers(item["value"], "rotation") or [0.0])[0]}
    corners = rectangle_corners(value, height, width)
    box = Box(*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()).clip(width, height)
    return (box, corners) if box.area >= 1 else None


def _stroke_points(item: dict[str, Any], image_size: tuple[int, int]) -> list[Point]:
    """Points spread over a smart brush stroke: the stroke's first pixel, then always the pixel farthest from all."""
    try:
        stroke = brush_rle.decode(brush_code(item["value"]), *image_size)
    except (DatasetError, MaskError, TypeError):
        return []
    pixels = np.argwhere(stroke)[:, ::-1].astype(np.float32)
    if not len(pixels):
        return []
    # The pixel nearest to the stroke's centre is the least likely to lie on its rim.
    chosen = [int(np.square(pixels - pixels.mean(axis=0)).sum(axis=1).argmin())]
    distance = np.full(len(pixels), np.inf)
    while len(chosen) < min(_STROKE_POINTS, len(pixels)):
        distance = np.minimum(distance, np.square(pixels - pixels[chosen[-1]]).sum(axis=1))
        chosen.append(int(distance.argmax()))
    return [Point(float(pixels[i, 0]), float(pixels[i, 1])) for i in chosen]


def _draft_signs(drafts: Sequence[Any]) -> dict[str, bool]:
    """Sign by click id; where drafts disagree, the one saved last."""
    usable = [draft for draft in drafts if isinstance(draft, dict) and isinstance(draft.get("result"), list)]
    return {
        str(item.get("id")): bool(item["is_positive"])
        for draft in sorted(usable, key=lambda draft: str(draft.get("updated_at") or ""))
        for item in draft["result"]
        if isinstance(item, dict) and isinstance(item.get("is_positive"), int)
    }


def _drafted_box(found: ObjectPrompt, task: Task, config: LabelingConfig, image_size: tuple[int, int]) -> Drawn | None:
    """The smallest box of a smart tool in the newest draft that has the label and holds the object's first click."""
    draft = newest_draft(task.drafts)
    tools = {control.name for control in config.controls if control.tag == "RectangleLabels" and control.smart}
    boxes = []
    for item in draft["result"] if draft is not None else ():
        if (
            isinstance(item, dict)
            and isinstance(item.get("value"), dict)
            and item.get("from_name") in tools
            and config.shows(item)
        ):
            drawn = _box(item, image_size)
            if drawn is not None and _label(item) == found.label and drawn[0].contains(found.clicks[0].point):
                boxes.append(drawn)
    return min(boxes, key=lambda drawn: drawn[0].area, default=None)


def answered_fields(
    result: Sequence[Any], config: LabelingConfig, asked_for: Collection[str], refused: Collection[str]
) -> list[dict[str, Any]]:
    """The text fields of ``params.context.result`` as the editor shall go on with them.

    The editor puts such an answer in the field's place at once, whatever becomes of the suggestions beside it. It is
    marked with the expressions that were ``asked_for``: one that no region carries in the end was rejected. Those that
    were ``refused`` leave the field where the labeling config has a note that says why, so that no annotation keeps as
    an expression what has no answer.
    """
    changed = []
    for item in _text_items(result, config):
        parts = _parts(item)
        marks = [asked(part) for part in dict.fromkeys(parts) if part in asked_for and part not in refused]
        kept = [part for part in parts if part not in refused or not config.has_note]
        if marks or len(kept) < len(parts):
            value = {**item["value"], "text": kept}
            names = ("id", "from_name", "to_name", "type", "item_index")
            meta = {"meta": {"text": ["\n".join(marks)]}} if marks else {}
            changed.append({**{name: item[name] for name in names if name in item}, "value": value, **meta})
    return changed


def _texts(items: Iterable[dict[str, Any]], config: LabelingConfig) -> Iterable[tuple[str, str]]:
    """Result id and text of the expressions typed.

    Where a config has several text fields, only one called ``prompt`` is an expression.
    """
    return ((str(item.get("id")), part) for item in _text_items(items, config) for part in _parts(item) if part.strip())


def _text_items(items: Iterable[Any], config: LabelingConfig) -> Iterator[dict[str, Any]]:
    fields = {"prompt"} if "prompt" in config.text_controls else set(config.text_controls)
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("value"), dict):
            continue
        if item.get("type") == "textarea" and item.get("from_name") in fields:
            yield item


def _parts(item: dict[str, Any]) -> list[str]:
    text = item["value"].get("text")
    return [part for part in (text if isinstance(text, list) else [text]) if isinstance(part, str)]

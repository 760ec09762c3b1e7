"""A language model's answer -> boxes, read strictly: what is not such an answer is refused, never guessed at.

Understood are, bare or in one fenced block, a JSON list of objects with ``bbox_2d`` or ``box`` and, if the model likes,
``label`` and ``score``; one such object alone; an empty list, or the word none. What a model thinks aloud before
(``<think>``) is passed over, and ``<answer>`` marks are taken off.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from dataset_tools.errors import PslgError
from dataset_tools.geometry import Box

__all__ = ["AnswerError", "Coordinates", "Frame", "PointedBox", "read_answer"]

Coordinates = Literal["pixels", "thousandths"]
"""Absolute pixels of the image as the model saw it (Qwen2.5-VL), or 0 to 1000 along each side (Qwen3-VL)."""

_BOX_KEYS = ("bbox_2d", "box")
_SAME_OBJECT = 0.9
"""IoU from which two boxes are one answer given twice."""
_SLACK = 0.02
"""So far beyond the image, as a share of its side, a box may reach before it is no box in this image."""
_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_FENCED = re.compile(r"```(?:json)?\s*\n?(.*?)```", re.DOTALL)


class AnswerError(PslgError):
    """The model's words are no boxes; the message says what is wrong with them."""


@dataclass(frozen=True)
class Frame:
    """What the numbers of an answer mean.

    Attributes:
        coordinates: which numbers.
        seen: (width, height) of the image as the model saw it; for ``pixels``.
        image: (width, height) of the original image.
    """

    coordinates: Coordinates
    seen: tuple[int, int]
    image: tuple[int, int]

    def to_image(self, numbers: tuple[float, float, float, float]) -> Box:
        """The box in pixels of the original image, clipped to it.

        Raises:
            AnswerError: it is empty or not in the image.
        """
        sides = self.seen if self.coordinates == "pixels" else (1000, 1000)
        x0, y0, x1, y1 = (value / sides[axis % 2] for axis, value in enumerate(numbers))
        if min(x0, y0) < -_SLACK or max(x1, y1) > 1 + _SLACK:
            raise AnswerError(
                f"the box {list(numbers)} is not within {sides[0]} x {sides[1]} ({self.coordinates}); if this model"
                f" counts otherwise, set coordinates to {'thousandths' if self.coordinates == 'pixels' else 'pixels'}"
            )
        width, height = self.image
        box = Box(x0 * width, y0 * height, x1 * width, y1 * height).clip(width, height)
        if x1 <= x0 or y1 <= y0 or box.area <= 0:
            raise AnswerError(f"the box {list(numbers)} is empty; corners are wanted as x1, y1, x2, y2")
        return box


@dataclass(frozen=True)
class PointedBox:
    """One box of an answer.

    Attributes:
        box: in pixels of the original image.
        label: what the model calls it, "" if it does not say.
        score: how sure it is, in [0, 1], None if it does not say.
    """

    box: Box
    label: str
    score: float | None


def read_answer(text: str, frame: Frame) -> list[PointedBox]:
    """The boxes of an answer in its order, each object once; empty if the model says that there is none.

    Raises:
        AnswerError: it is not such an answer.
    """
    body = _body(text)
    if body.strip("\"'`.! ").casefold() == "none":
        return []
    try:
        values = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"not JSON ({error}): {_quoted(text)}") from error
    entries = [values] if isinstance(values, dict) else values
    if not isinstance(entries, list):
        raise AnswerError(f"a list of boxes was wanted: {_quoted(text)}")
    found: list[PointedBox] = []
    for entry in entries:
        one = _read(entry, frame)
        if not any(one.box.iou(other.box) >= _SAME_OBJECT for other in found):
            found.append(one)
    return found


def _body(text: str) -> str:
    spoken = _THOUGHTS.sub("", text)
    marked = _ANSWER.findall(spoken)
    if len(marked) == 1:
        spoken = marked[0]
    fenced = _FENCED.findall(spoken)
    if len(fenced) > 1:
        raise AnswerError(f"{len(fenced)} fenced blocks where one answer was wanted: {_quoted(text)}")
    return (fenced[0] if fenced else spoken).strip()


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _read(entry: Any, frame: Frame) -> PointedBox:
    if not isinstance(entry, dict):
        raise AnswerError(f"an object with bbox_2d was wanted, got {_quoted(json.dumps(entry))}")
    given = [entry[key] for key in _BOX_KEYS if key in entry]
    if len(given) != 1:
        raise AnswerError(f"an object needs one of {' and '.join(_BOX_KEYS)}: {_quoted(json.dumps(entry))}")
    numbers = given[0]
    if not (isinstance(numbers, list) and len(numbers) == 4 and all(map(_is_number, numbers))):
        raise AnswerError(f"a box is four numbers, got {_quoted(json.dumps(numbers))}")
    label, score = entry.get("label", ""), entry.get("score")
    if not isinstance(label, str):
        raise AnswerError(f"a label is a word, got {_quoted(json.dumps(label))}")
    if score is not None and not (_is_number(score) and 0 <= score <= 1):
        raise AnswerError(f"a score lies in 0 to 1, got {_quoted(json.dumps(score))}")
    return PointedBox(frame.to_image(tuple(map(float, numbers))), label, score)  # type: ignore[arg-type]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _quoted(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 160 else f"{text[:160]}...")

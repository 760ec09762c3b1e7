"""Computed pre-labels on disk, by image hash, expression, default category, model version and the project's own nouns.

What is kept is the pipeline's answer, not Label Studio regions: those are made anew (fresh ids, the project's own
labels) whenever it is served.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from backend.database import Database
from backend.pipeline.pslg_sam import OFFERING
from backend.pipeline.types import Abstention, Box, Point, Prelabel, Prelabels
from dataset_tools import masks

__all__ = ["PrelabelCache", "PrelabelQuestion"]


@dataclass(frozen=True)
class PrelabelQuestion:
    """What a pipeline is asked about an image: all that its answer depends on beside the image's content.

    Attributes:
        expression: in the words in which it is asked.
        default_category: canonical name for what neither the words nor the grounder name.
        model_version: of the pipeline that answers.
        labels: the project's own nouns, with which the expression is read.
    """

    expression: str
    default_category: str | None
    model_version: str
    labels: frozenset[str] = frozenset()

    def key(self, image: str) -> str:
        """Names the answer for the image with hash ``image``: 64 hexadecimal digits.

        A label that is added later may be what the words name; one that cannot stand in them, in whatever number,
        changes nothing of what is kept.
        """
        text = self.expression.casefold()
        named = sorted(label for label in self.labels if label.casefold()[:-1] in text)
        parts = [image, self.expression, self.default_category, self.model_version, *([named] if named else [])]
        return hashlib.sha256(orjson.dumps(parts)).hexdigest()


class PrelabelCache:
    """At most ``max_rows`` answers; the oldest go first.

    Args:
        most: objects of an answer; one that was cut by another bound, or has more objects, counts as not computed.
        candidates: objects offered where several may be meant; so does an answer to such words under another bound.
    """

    def __init__(self, database: Database, max_rows: int, most: int, candidates: int = 0) -> None:
        self.most = most
        self.candidates = candidates
        self._database = database
        self._max_rows = max_rows

    def get(self, image: str, question: PrelabelQuestion) -> Prelabels | None:
        """The answer for the image with hash ``image``, None if it was not computed yet."""
        key = question.key(image)
        row = None
        with self._database.spared("kept pre-labels (reading)"), self._database.transaction() as connection:
            row = connection.execute("SELECT body FROM prelabels WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        bound, offered, answer = _from_json(row[0], question.expression)
        if answer.abstained is not None and answer.abstained.code in OFFERING and offered != self.candidates:
            return None
        return None if len(answer) > self.most or (answer.left_out and bound != self.most) else answer

    def put(self, image: str, question: PrelabelQuestion, answer: Prelabels) -> None:
        """Keep the answer for the image with hash ``image``."""
        row = (question.key(image), question.model_version, time.time(), _to_json(answer, self.most, self.candidates))
        with self._database.spared("kept pre-labels"), self._database.transaction() as connection:
            cursor = connection.execute(
                "INSERT OR REPLACE INTO prelabels (key, model_version, computed_at, body) VALUES (?, ?, ?, ?)", row
            )
            # Ids only grow, so this keeps the newest max_rows without counting the table.
            connection.execute("DELETE FROM prelabels WHERE id <= ?", ((cursor.lastrowid or 0) - self._max_rows,))

    def versions(self) -> list[str]:
        """Model versions that answers are kept of, newest first."""
        rows: list[tuple[str]] = []
        with self._database.spared("kept pre-labels (reading)"), self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT model_version FROM prelabels GROUP BY model_version ORDER BY max(id) DESC"
            ).fetchall()
        return [str(row[0]) for row in rows]


def _to_json(answer: Prelabels, most: int, candidates: int) -> bytes:
    abstained = answer.abstained
    return orjson.dumps(
        {
            "items": _items_to_json(answer.items),
            "candidates": _items_to_json(answer.candidates),
            "offered": candidates,
            "left_out": answer.left_out,
            "most": most,
            "abstained": None if abstained is None else [abstained.code, abstained.message],
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def _items_to_json(items: Sequence[Prelabel]) -> list[dict[str, Any]]:
    codes = [masks.to_coco_rle(item.mask) for item in items]
    return [
        {
            "mask": code,
            "box": list(item.box),
            "point": None if item.point is None else list(item.point),
            "category": item.category,
            "score": item.score,
            "scores": dict(item.scores),
        }
        for item, code in zip(items, codes, strict=True)
    ]


def _item_from_json(item: dict[str, Any], expression: str) -> Prelabel:
    return Prelabel(
        mask=masks.from_coco(item["mask"], *item["mask"]["size"]),
        box=Box(*item["box"]),
        point=None if item["point"] is None else Point(*item["point"]),
        category=item["category"],
        score=item["score"],
        scores=item["scores"],
        expression=expression,
    )


def _from_json(body: bytes, expression: str) -> tuple[int | None, int, Prelabels]:
    """Bounds of objects and candidates that the answer was computed under (earlier releases had none), the answer."""
    value = orjson.loads(body)
    abstained = None if value["abstained"] is None else Abstention(*value["abstained"])
    answer = Prelabels(
        tuple(_item_from_json(item, expression) for item in value["items"]),
        abstained,
        int(value.get("left_out", 0)),
        tuple(_item_from_json(item, expression) for item in value.get("candidates", ())),
    )
    return value.get("most"), int(value.get("offered", 0)), answer

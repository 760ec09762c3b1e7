"""Which expressions of a dataset become the demo's tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dataset_tools.labelled import Question


def sample_questions(questions: Sequence[Question], count: int) -> list[Question]:
    """``count`` questions (or all, when there are fewer), the same ones every time.

    One kind after the other has its turn, so that rare kinds ("all", "absent") are in; within a kind, the category and
    the image used least so far come first.
    """
    waiting: dict[str, list[Question]] = {}
    for question in questions:
        waiting.setdefault(question.kind, []).append(question)
    chosen: list[Question] = []
    images: Counter[str] = Counter()
    categories: Counter[str] = Counter()
    while waiting and len(chosen) < count:
        for kind in sorted(waiting):
            if len(chosen) == count:
                break
            following = min(
                waiting[kind],
                key=lambda item: (categories[item.label], images[item.image.name], item.expression.number),
            )
            waiting[kind].remove(following)
            if not waiting[kind]:
                del waiting[kind]
            images[following.image.name] += 1
            categories[following.label] += 1
            chosen.append(following)
    return sorted(chosen, key=lambda item: item.expression.number)

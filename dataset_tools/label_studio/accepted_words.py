"""What annotators called what they accepted: the words of every accepted object, and the nouns that they teach."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from dataset_tools.categories import CATEGORIES, category_name
from dataset_tools.errors import DatasetError, PslgError
from dataset_tools.expressions.lexicon import says_nothing
from dataset_tools.label_studio.annotations import annotations_of, words_of
from dataset_tools.label_studio.exports import task_expressions
from dataset_tools.label_studio.import_rules import ImportRules
from dataset_tools.label_studio.learnt_nouns import LearntNoun, learnt_nouns, meanings
from dataset_tools.label_studio.regions import RegionInfo, is_accepted, read_info

__all__ = ["NounsOfTasks", "accepted_words", "taught"]


def accepted_words(
    regions: Sequence[RegionInfo], results: Sequence[Mapping[str, Any]], texts: Sequence[str]
) -> list[tuple[str, str]]:
    """(expression, category) of the accepted regions of an annotation, each once.

    Args:
        regions: its accepted regions.
        results: its results.
        texts: the expressions in the task's data; which of them a region answers: ``annotations.words_of``.
    """
    named = {category_name(region.label) for region in regions if region.label}
    found = words_of(regions, results, texts, {name for name in named if not says_nothing(name)})
    pairs = (
        (text, category_name(region.label))
        for region, text in zip(regions, found, strict=True)
        if text is not None and region.label
    )
    return list(dict.fromkeys(pair for pair in pairs if not says_nothing(pair[1])))


def taught(accepted: Sequence[tuple[str, str]]) -> dict[str, LearntNoun]:
    """The nouns that pairs of :func:`accepted_words` teach."""
    return learnt_nouns(accepted, {category for _, category in accepted} - CATEGORIES.keys())


class NounsOfTasks(Mapping[str, str]):
    """Noun -> category, as the annotations of tasks teach; the tasks are read when that is first asked.

    Args:
        tasks: starts over at every call.
        rules: where the words are.
    """

    def __init__(self, tasks: Callable[[], Iterable[Mapping[str, Any]]], rules: ImportRules) -> None:
        self._tasks = tasks
        self._rules = rules

    @cached_property
    def _nouns(self) -> dict[str, str]:
        try:
            return meanings(taught(_accepted(self._tasks(), self._rules)))
        except DatasetError:  # whoever reads the tasks says so
            return {}

    def __getitem__(self, noun: str) -> str:
        return self._nouns[noun]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nouns)

    def __len__(self) -> int:
        return len(self._nouns)


def _accepted(tasks: Iterable[Mapping[str, Any]], rules: ImportRules) -> list[tuple[str, str]]:
    """(expression, category) in all tasks; what cannot be read teaches nothing. No mask is decoded."""
    accepted: list[tuple[str, str]] = []
    for task in tasks:
        pairs: dict[tuple[str, str], None] = {}  # several annotators of one task say it once
        try:
            texts = task_expressions(task, rules)
            for annotation in annotations_of(task):
                results = annotation["result"]
                regions = [read_info(result, annotation) for result in results if is_accepted(result)]
                pairs |= dict.fromkeys(accepted_words(regions, results, texts))
        except (PslgError, KeyError, TypeError, ValueError):
            continue  # the export says of such a task why it is left out
        accepted += pairs
    return accepted

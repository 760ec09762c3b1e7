"""What is kept of an answer, and for which question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backend.database import Database
from backend.pipeline.types import Abstention, Prelabels
from backend.server.answers.prelabel_cache import PrelabelCache, PrelabelQuestion

UNKNOWN = Prelabels((), Abstention("unknown-word", "no model knows 'solar panel'"))


@pytest.fixture
def cache(tmp_path: Path) -> PrelabelCache:
    return PrelabelCache(Database(tmp_path / "state.sqlite3"), max_rows=10, most=100)


def test_a_label_that_the_words_name_asks_the_question_anew(cache: PrelabelCache) -> None:
    question = PrelabelQuestion("the ship near the Solar Panels", None, "compact-1", frozenset({"greenhouse"}))
    cache.put("a" * 64, question, UNKNOWN)
    assert cache.get("a" * 64, question) is not None
    assert cache.get("a" * 64, replace(question, labels=frozenset({"solar panel", "greenhouse"}))) is None


def test_other_labels_change_nothing_of_what_is_kept(cache: PrelabelCache) -> None:
    question = PrelabelQuestion("the ship", None, "compact-1")
    cache.put("a" * 64, question, UNKNOWN)
    kept = cache.get("a" * 64, replace(question, labels=frozenset({"solar panel", "greenhouse"})))
    assert kept is not None
    assert kept.abstained == UNKNOWN.abstained

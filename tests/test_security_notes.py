"""Findings of bandit are let pass one by one, each with its number and a reason beside it."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY


def test_every_finding_that_is_let_pass_has_a_reason() -> None:
    bare = [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}"
        for top in ("backend", "dataset_tools", "benchmarks")
        for path in sorted((REPOSITORY / top).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "nosec" in line and not re.search(r"# nosec B\d{3} # \S.{5,}$", line)
    ]
    assert bare == []

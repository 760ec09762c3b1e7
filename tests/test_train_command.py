"""``pslg train``: what every kind of training needs is asked for, not guessed."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from backend.cli import pslg


@pytest.mark.parametrize("kind", ["compact-grounder", "compact-segmenter", "lqvg", "sam-decoder"])
def test_training_asks_for_its_data(kind: str) -> None:
    result = CliRunner().invoke(pslg, ["train", kind])
    assert result.exit_code == 2
    assert "Missing option '--data'" in result.output or "Missing option '--config'" in result.output
    shown = CliRunner().invoke(pslg, ["train", kind, "--help"]).output
    assert "../" not in shown

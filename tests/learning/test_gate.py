"""The promotion gate: which images measure, and what is promoted."""

from __future__ import annotations

from backend.learning.gate import is_held_out


def test_the_held_out_share_is_frozen_per_project_and_grows_with_the_share() -> None:
    keys = [f"{number:064x}" for number in range(2000)]
    few = {key for key in keys if is_held_out(7, key, 0.2)}
    many = {key for key in keys if is_held_out(7, key, 0.5)}
    assert few < many
    assert 0.17 < len(few) / len(keys) < 0.23
    assert few == {key for key in keys if is_held_out("7", key, 0.2)}
    assert few != {key for key in keys if is_held_out(8, key, 0.2)}
    assert not any(is_held_out(7, key, 0.0) for key in keys)

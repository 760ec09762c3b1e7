"""How far a training is: by its steps, or by the clock."""

from __future__ import annotations

import time

import pytest

from backend.training.schedule import Schedule, learning_rate


def test_by_steps_it_is_the_plain_rate() -> None:
    schedule = Schedule(100)
    assert [schedule.rate(step, 1.0, 10, 0.4) for step in range(100)] == [
        learning_rate(step, 100, 1.0, 10, 0.4) for step in range(100)
    ]
    assert not schedule.is_over(99)
    assert schedule.is_over(100)


def test_by_the_clock_the_rate_comes_down_in_the_last_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    schedule = Schedule(None, minutes=1.0, first=500, _began=began)
    rates = []
    for second in range(60):
        monkeypatch.setattr(time, "monotonic", lambda now=began + second: now)
        rates.append(schedule.rate(500 + 7 * second, 1.0, 14, 0.5))
        assert not schedule.is_over(501 + 7 * second)
    assert rates[:2] == pytest.approx([1 / 14, 8 / 14])  # warm-up counts steps of this part of the training
    assert rates[2:30] == [1.0] * 28
    assert rates[31:] == sorted(rates[31:], reverse=True)
    assert rates[-1] < 0.01
    monkeypatch.setattr(time, "monotonic", lambda: began + 60)
    assert schedule.is_over(921)


def test_it_wants_one_end() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        Schedule(None)
    with pytest.raises(ValueError, match="give one of them"):
        Schedule(10, minutes=2.0)

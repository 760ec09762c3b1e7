"""How far a training is, and the learning rate that goes with it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

__all__ = ["Schedule", "learning_rate"]


@dataclass(frozen=True)
class Schedule:
    """The end of a training: a number of steps, or a time from now on (a machine lent for minutes).

    Attributes:
        steps: of the whole training, earlier parts of a resumed one included; None: ``minutes`` decide.
        minutes: of this part of the training.
        first: step that this part begins with.
    """

    steps: int | None
    minutes: float | None = None
    first: int = 0
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("a training ends after steps or after minutes: give one of them")

    def progress(self, step: int) -> float:
        """Share in [0, 1] of the training that is done before ``step``."""
        if self.minutes is not None:
            return min(1.0, (time.monotonic() - self._began) / (60 * self.minutes))
        return min(1.0, step / self.steps) if self.steps else 1.0

    def is_over(self, done: int) -> bool:
        """Whether nothing comes after ``done`` steps."""
        return self.progress(done) >= 1.0

    def rate(self, step: int, peak: float, warmup: int, decay_share: float) -> float:
        """:func:`learning_rate` of ``step``; by the clock, as if the steps went on as fast as so far."""
        if self.steps is not None:
            return learning_rate(step, self.steps, peak, warmup, decay_share)
        done = step - self.first
        if done < warmup:
            return peak * (done + 1) / warmup
        return learning_rate(done, max(1, round(done / max(self.progress(step), 1e-9))), peak, warmup, decay_share)


def learning_rate(step: int, steps: int, peak: float, warmup: int, decay_share: float) -> float:
    """Linear warm-up, a plateau, then a cosine to zero over the last ``decay_share`` of ``steps``.

    A run that must end early is resumed with fewer steps: on the plateau nothing depends on their number.
    """
    start = steps * (1 - decay_share)
    if step < warmup:
        return peak * (step + 1) / warmup
    if step < start:
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - start) / max(1.0, steps - start))))

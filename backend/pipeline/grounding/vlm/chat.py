"""A conversation with a language model that sees one image: what its two homes (a service, this process) share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from backend.pipeline.types import Image

__all__ = ["Chat", "Observe", "Outcome", "Reply", "unobserved"]

Outcome = Literal["answered", "throttled", "failed", "timeout", "refused"]
"""How a call ended: ``throttled`` is status 429, ``failed`` 5xx or no connection, ``refused`` any other status."""


class Observe(Protocol):
    """Takes what one question has cost."""

    def __call__(
        self, outcome: Outcome, seconds: float, prompt_tokens: int = 0, completion_tokens: int = 0, /
    ) -> object:
        """``seconds`` waited; tokens as the model counts them, 0 where it does not say."""


def unobserved(outcome: Outcome, seconds: float, prompt_tokens: int = 0, completion_tokens: int = 0, /) -> None:
    """Nobody counts."""


@dataclass(frozen=True)
class Reply:
    """What the model said.

    Attributes:
        text: its words.
        seen: (width, height) in pixels of the image as the model saw it.
        complete: False if it was cut off at the most tokens that it may use.
    """

    text: str
    seen: tuple[int, int]
    complete: bool = True


class Chat(Protocol):
    """A model to talk to.

    Attributes:
        observe: called with the cost of every call, failed ones too.
        elsewhere: whether it runs in another process.
    """

    observe: Observe
    elsewhere: bool

    def ask(self, image: Image, turns: Sequence[str], until: float) -> Reply:
        """The model's next words about ``image`` uint8[H, W, 3] RGB.

        Args:
            image: what is talked about.
            turns: what was said so far, the user's and the model's words by turns, the user's first and last.
            until: time of ``time.monotonic`` at which to give up.

        Raises:
            UnavailableError: it cannot be reached in time, or refuses.
        """

"""What the relation program leaves open is put to a language model: which of these numbered boxes is meant?

It is asked only where the program abstains with candidates (``ambiguous``, ``unknown-word``), and is believed only
where it names one of them; then the score is multiplied by a factor that says so. Else the program's abstention stands.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from pydantic import SecretStr

from backend.pipeline.grounding import Grounder
from backend.pipeline.grounding.vlm.chat import Chat, Observe
from backend.pipeline.types import Grounding, GroundingResult, Image
from dataset_tools.errors import ConfigError

__all__ = ["SettledGrounder", "Settler", "load_settled", "numbered"]

_ASKED = (
    "This is an overhead image, north is up. {count} objects in it are marked with boxes that are numbered 1 to"
    ' {count}. Which one does this describe: {expression}? Answer with JSON only: {{"number": 1}}, or'
    ' {{"number": null}} if it is none of them or you cannot tell.'
)
_OPEN = ("ambiguous", "unknown-word")
_ANSWER = re.compile(r"\{[^{}]*\}")
_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
_COLORS = ((255, 40, 40), (40, 255, 40), (60, 120, 255), (255, 230, 0))


class Settler:
    """Asks a language model which of several candidates is meant; safe to call from several threads if the chat is.

    Args:
        chat: who is asked.
        factor: in [0, 1], what the score of a candidate that it names is multiplied by.
    """

    def __init__(self, chat: Chat, factor: float) -> None:
        self._chat = chat
        self._factor = factor

    def settle(self, image: Image, expression: str, result: GroundingResult, until: float) -> GroundingResult:
        """``result`` as it is where it leaves nothing open, or where the model names none of its candidates.

        Args:
            image: uint8[H, W, 3] RGB, what ``result`` is about.
            expression: what was asked for.
            result: of the relation program.
            until: time of ``time.monotonic`` at which to give up.

        Raises:
            UnavailableError: the model cannot be reached in time.
        """
        left_open = result.abstention
        if left_open is None or left_open.code not in _OPEN or len(left_open.candidates) < 2:
            return result
        candidates = left_open.candidates
        asked = repr(" ".join(expression.split())[:2000])
        words = _ASKED.format(count=len(candidates), expression=asked)
        reply = self._chat.ask(numbered(image, candidates), [words], until)
        number = _number(reply.text, len(candidates)) if reply.complete else None
        if number is None:
            return result
        named = candidates[number - 1]
        return GroundingResult((replace(named, score=named.score * self._factor),), None, result.candidates)


def numbered(image: Image, candidates: Sequence[Grounding]) -> Image:
    """A copy of ``image`` uint8[H, W, 3] RGB with the candidates' boxes and their numbers from 1 on beside them."""
    drawn = image.copy()
    height, width = image.shape[:2]
    size = max(0.4, min(height, width) / 900)
    thick = max(1, round(2 * size))
    for index, one in enumerate(candidates):
        color = _COLORS[index % len(_COLORS)]
        x0, y0, x1, y1 = (round(value) for value in one.box)
        cv2.rectangle(drawn, (x0 - 2, y0 - 2), (x1 + 2, y1 + 2), color, thick)
        (wide, high), _ = cv2.getTextSize(str(index + 1), cv2.FONT_HERSHEY_SIMPLEX, size, thick)
        left = min(max(x0 - 2, 0), width - wide - 4)
        bottom = y0 - 4 if y0 - high - 8 >= 0 else min(y1 + high + 8, height - 4)
        cv2.rectangle(drawn, (left, bottom - high - 4), (left + wide + 4, bottom + 4), (0, 0, 0), -1)
        cv2.putText(drawn, str(index + 1), (left + 2, bottom), cv2.FONT_HERSHEY_SIMPLEX, size, color, thick)
    return np.asarray(drawn, np.uint8)


def _number(text: str, count: int) -> int | None:
    """The number that the answer names, 1 to ``count``; None where it names none, or is no such answer."""
    answers = _ANSWER.findall(_THOUGHTS.sub("", text))
    if len(answers) != 1:
        return None
    try:
        said = json.loads(answers[0]).get("number")
    except ValueError:
        return None
    return said if isinstance(said, int) and not isinstance(said, bool) and 1 <= said <= count else None


class SettledGrounder:
    """Implements ``Grounder``: another one's answers, and a language model's word on what that one leaves open.

    Attributes:
        program: the other grounder; it is asked first, and alone where it has an answer.
        elsewhere: whether the language model runs in another process, which is waited for.
    """

    def __init__(self, program: Grounder, chat: Chat, settler: Settler, deadline_s: float) -> None:
        self.program = program
        self.elsewhere = chat.elsewhere
        self._chat = chat
        self._settler = settler
        self._deadline_s = deadline_s

    @property
    def known_categories(self) -> frozenset[str] | None:
        """Those of the other grounder."""
        return self.program.known_categories

    def count_calls(self, observe: Observe) -> None:
        """Have ``observe`` called with what every call costs."""
        self._chat.observe = observe

    def ground(
        self, image: Image, expression: str, *, key: str | None = None, labels: Collection[str] = ()
    ) -> GroundingResult:
        """See ``Grounder.ground``.

        Raises:
            UnavailableError: something was left open, and the language model did not answer in time.
        """
        result = self.program.ground(image, expression, key=key, labels=labels)
        return self._settler.settle(image, expression, result, time.monotonic() + self._deadline_s)


def load_settled(
    weights: Path,
    *,
    url: SecretStr,
    model: str = "",
    api_key: SecretStr | None = None,
    device: str = "cpu",
    settled: float = 0.7,
    deadline_s: float = 30.0,
    max_tokens: int = 512,
    max_pixels: int = 1_003_520,
) -> SettledGrounder:
    """The compact grounder, and a language model behind an OpenAI-compatible endpoint for what it leaves open.

    Args:
        weights: of the compact grounder.
        url: base address of the endpoint, from the environment (``url_env``).
        model: the model's name there.
        api_key: from the environment (``api_key_env``).
        device: where the compact grounder runs.
        settled: what the score of a candidate that the model names is multiplied by.
        deadline_s: seconds for a question.
        max_tokens: longest answer.
        max_pixels: of an image that is sent.

    Raises:
        ConfigError: a value that cannot be.
        WeightsError: the weights are missing, damaged, or hold something else.
    """
    from backend.pipeline.grounding.compact.grounder import load_compact_grounder
    from backend.pipeline.grounding.vlm.endpoint import Endpoint

    for name, given, low, high in (
        ("settled", settled, 0, 1), ("deadline_s", deadline_s, 1, 3600), ("max_tokens", max_tokens, 16, 1 << 17),
        ("max_pixels", max_pixels, 1 << 13, 1 << 26),
    ):  # fmt: skip
        if not low <= given <= high:
            raise ConfigError(f"grounder.options.{name} is {given}; it must be in {low} to {high}")
    if not model:
        raise ConfigError("grounder.options.model: missing; the model's name at the endpoint")
    chat = Endpoint(url, model, api_key, max_pixels=max_pixels, max_tokens=max_tokens)
    return SettledGrounder(load_compact_grounder(weights, device=device), chat, Settler(chat, settled), deadline_s)

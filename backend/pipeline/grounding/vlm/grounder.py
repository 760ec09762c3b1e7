"""A language model that points: the whole sentence goes in, boxes come out.

It reads what no rule reads ("where the planes wait for take-off") and is as wrong as it likes; so the relation program
has a word where it can: of several boxes for one object it picks, and on request it checks the answer against all
objects of that kind.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from pydantic import SecretStr

from backend.pipeline.grounding.open_vocabulary import Found, choose_among, of_sentence, with_nouns_as_categories
from backend.pipeline.grounding.vlm.answers import AnswerError, Coordinates, Frame, PointedBox, read_answer
from backend.pipeline.grounding.vlm.chat import Chat, Observe
from backend.pipeline.grounding.vlm.settling import Settler
from backend.pipeline.types import Grounding, GroundingResult, Image
from dataset_tools.categories import canonical
from dataset_tools.errors import ConfigError, UnavailableError
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.query import Query
from dataset_tools.expressions.relations import LabelledBox

__all__ = ["VlmGrounder", "load_vlm"]

_ASKED = (
    "This is an overhead image, north is up. Find what this describes: {expression}\n"
    'Answer with JSON only, a list like [{{"bbox_2d": [x1, y1, x2, y2], "label": "ship"}}] with one entry per object,'
    " coordinates {coordinates}. If nothing in the image fits, answer []."
)
_IN_WORDS: dict[Coordinates, str] = {
    "pixels": "in pixels of this image",
    "thousandths": "from 0 to 1000 along each side of the image",
}
_AGAIN = "That is not such an answer: {problem}. Answer again, with the JSON list only."
_SAME_OBJECT = 0.5
"""IoU from which the checking choice means the same object."""


class VlmGrounder:
    """Implements ``Grounder`` with a conversation; safe to call from several threads if the chat is.

    Args:
        chat: who is asked.
        coordinates: what the numbers of its answers are.
        score: of a box for which the model gives none.
        attempts: how often it is asked in all when its answer is no answer.
        deadline_s: seconds for an expression, all attempts together.
        check: ask a second time for all objects of the kind, and have the relation program choose among them; a
            disagreement multiplies the score by ``disagreement``.
        disagreement: that factor.
        settler: asked which of the model's boxes is meant where the relation program leaves it open; None: not asked.

    Attributes:
        elsewhere: whether the model runs in another process, which is waited for.
    """

    known_categories: frozenset[str] | None = None

    def __init__(
        self,
        chat: Chat,
        *,
        coordinates: Coordinates,
        score: float,
        attempts: int,
        deadline_s: float,
        check: bool,
        disagreement: float,
        settler: Settler | None = None,
    ) -> None:
        self._chat = chat
        self._settler = settler
        self.elsewhere = chat.elsewhere
        self._coordinates = coordinates
        self._score = score
        self._attempts = attempts
        self._deadline_s = deadline_s
        self._check = check
        self._disagreement = disagreement

    def count_calls(self, observe: Observe) -> None:
        """Have ``observe`` called with what every call costs."""
        self._chat.observe = observe

    def ground(
        self,
        image: Image,
        expression: str,
        *,
        key: str | None = None,  # noqa: ARG002 - the protocol's signature
        labels: Collection[str] = (),
    ) -> GroundingResult:
        """The boxes that ``expression`` describes in ``image`` uint8[H, W, 3] RGB, or why there are none.

        ``labels`` as of ``Grounder.ground``.

        Raises:
            UnavailableError: no usable answer within the deadline.
        """
        until = time.monotonic() + self._deadline_s
        query = with_nouns_as_categories(parse(expression, labels))
        if query.is_empty:
            return choose_among(image, query, Found(()))
        pointed = self._point(image, expression, until)
        groundings = tuple(self._grounding(one, query) for one in pointed)
        result = of_sentence(image, expression, query, groundings)
        if self._settler is not None and result.abstention is not None:
            return self._settler.settle(image, expression, result, until)
        settled = result.abstention is not None or len(result.groundings) < len(groundings)
        if self._check and not settled and query.category is not None and query.constraints:
            groundings = self._checked(image, query, groundings, until)
            return GroundingResult(groundings, None, groundings)
        return result

    def _point(self, image: Image, expression: str, until: float) -> list[PointedBox]:
        """The model's boxes; a nonsensical answer is sent back with what is wrong with it."""
        # Quotation marks and line ends of a task's text must not end the request.
        asked = " ".join(expression.split())[:2000]
        turns = [_ASKED.format(expression=repr(asked), coordinates=_IN_WORDS[self._coordinates])]
        problem = ""
        for _ in range(self._attempts):
            reply = self._chat.ask(image, turns, until)
            try:
                if not reply.complete:
                    raise AnswerError("it was cut off; the grounder's option max_tokens is too small")
                return read_answer(reply.text, Frame(self._coordinates, reply.seen, (image.shape[1], image.shape[0])))
            except AnswerError as error:
                problem = str(error)
            turns = [*turns, reply.text[:2000], _AGAIN.format(problem=problem)]
        raise UnavailableError(
            f"the language model gave no usable boxes in {self._attempts} attempt(s), the last time: {problem}"
        )

    def _grounding(self, one: PointedBox, query: Query) -> Grounding:
        score = self._score if one.score is None else one.score
        return Grounding(one.box, score, canonical(query.category or "") or canonical(one.label))

    def _checked(
        self, image: Image, query: Query, groundings: tuple[Grounding, ...], until: float
    ) -> tuple[Grounding, ...]:
        everything = self._point(image, f"all the {query.noun or query.category}", until)
        others = [LabelledBox(one.box, query.category or "", one.score or self._score) for one in everything]
        result = choose_among(image, query, Found(others))
        if result.abstention is not None and result.abstention.code != "absent":
            return groundings  # the program does not know either: that is no disagreement
        agreed = [any(one.box.iou(other.box) >= _SAME_OBJECT for other in result.groundings) for one in groundings]
        return tuple(
            one if same else replace(one, score=one.score * self._disagreement)
            for one, same in zip(groundings, agreed, strict=True)
        )


def load_vlm(
    weights: Path | None = None,
    *,
    url: SecretStr | None = None,
    model: str = "",
    api_key: SecretStr | None = None,
    device: str = "cpu",
    coordinates: Coordinates | None = None,
    score: float = 0.8,
    attempts: int = 3,
    deadline_s: float = 60.0,
    max_tokens: int = 1024,
    max_pixels: int = 1_003_520,
    check: bool = False,
    disagreement: float = 0.5,
    settle: bool = False,
    settled: float = 0.7,
) -> VlmGrounder:
    """The grounder of a language model, in this process or behind an OpenAI-compatible endpoint.

    Args:
        weights: a folder of ``save_pretrained`` to run here; else ``url`` and ``model`` say whom to ask.
        url: base address of the endpoint, from the environment (``url_env``).
        model: its name there.
        api_key: from the environment (``api_key_env``).
        device: where ``weights`` run.
        coordinates: ``pixels`` of the image as the model sees it or ``thousandths``; None: as the type in ``weights``
            counts.
        score, attempts, deadline_s, check, disagreement: see ``VlmGrounder``.
        max_tokens: longest answer.
        max_pixels: of an image that is sent to an endpoint.
        settle: of several boxes for one object that the relation program cannot choose among, have the model say which
            (``settling``).
        settled: what the score of one so chosen is multiplied by.

    Raises:
        ConfigError: neither or both of weights and url, or a value that cannot be.
        WeightsError: the folder holds no such model.
    """
    from backend.pipeline.grounding.vlm.endpoint import Endpoint
    from backend.pipeline.grounding.vlm.in_process import InProcess

    if (weights is None) == (url is None):
        raise ConfigError(
            "a grounder of kind vlm needs either weights (a folder to run here) or the options url_env and model (an"
            " endpoint to ask)"
        )
    for name, given, low, high in (
        ("score", score, 0, 1), ("disagreement", disagreement, 0, 1), ("settled", settled, 0, 1),
        ("attempts", attempts, 1, 10),
        ("deadline_s", deadline_s, 1, 3600), ("max_tokens", max_tokens, 16, 1 << 17),
        ("max_pixels", max_pixels, 1 << 13, 1 << 26),
    ):  # fmt: skip
        if not low <= given <= high:
            raise ConfigError(f"grounder.options.{name} is {given}; it must be in {low} to {high}")
    chat: Chat
    if weights is not None:
        chat = here = InProcess(weights, device=device, max_tokens=max_tokens)
        coordinates = coordinates or here.coordinates
    else:
        if not model or url is None:
            raise ConfigError("grounder.options.model: missing; the model's name at the endpoint")
        chat = Endpoint(url, model, api_key, max_pixels=max_pixels, max_tokens=max_tokens)
    if coordinates not in _IN_WORDS:
        raise ConfigError(
            f"grounder.options.coordinates is {coordinates!r}: pixels (Qwen2.5-VL) or thousandths (Qwen3-VL), as the"
            " model answers"
        )
    return VlmGrounder(
        chat,
        coordinates=coordinates,
        score=score,
        attempts=attempts,
        deadline_s=deadline_s,
        check=check,
        disagreement=disagreement,
        settler=Settler(chat, settled) if settle else None,
    )

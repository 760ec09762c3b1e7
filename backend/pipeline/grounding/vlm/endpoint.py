"""A language model behind an OpenAI-compatible endpoint (vLLM, Ollama, a cloud).

What can pass is tried again until the deadline: no connection, a time-out, 429 (as long as the service says) and 5xx.
Neither the key nor what follows the host in the address is ever said: not in errors, not in the log.
"""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import requests
import urllib3
from pydantic import SecretStr

from backend.pipeline.grounding.vlm.chat import Observe, Outcome, Reply, unobserved
from backend.pipeline.types import Image
from dataset_tools.errors import ConfigError, UnavailableError

__all__ = ["Endpoint"]

_MULTIPLE = 28
"""Sides are multiples of it, as Qwen2.5-VL's services make them: pixels of what is sent are pixels of what is seen."""
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 8.0
_CONNECT_S = 10.0
_MOST_BYTES = 1 << 20


class Endpoint:
    """Implements ``Chat`` over ``POST <url>/chat/completions``; safe to call from several threads.

    Args:
        url: base address, for example ``http://127.0.0.1:11434/v1``.
        model: its name there.
        api_key: sent as ``Authorization: Bearer``; None sends none.
        max_pixels: images are reduced to at most so many.
        max_tokens: longest answer.

    Raises:
        ConfigError: not an http or https address.
    """

    elsewhere = True

    def __init__(
        self, url: SecretStr, model: str, api_key: SecretStr | None, *, max_pixels: int, max_tokens: int
    ) -> None:
        address = url.get_secret_value().rstrip("/")
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                "the language model's address must begin with http:// or https://, for example"
                " http://127.0.0.1:11434/v1"
            )
        self._url = SecretStr(address if address.endswith("/chat/completions") else f"{address}/chat/completions")
        self._host = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
        self._model = model
        self._key = api_key
        self._max_pixels = max_pixels
        self._max_tokens = max_tokens
        self.observe: Observe = unobserved

    def ask(self, image: Image, turns: Sequence[str], until: float) -> Reply:
        """The model's words about ``image``; see ``Chat``."""
        seen = _resized(image, self._max_pixels)
        body = {
            "model": self._model,
            "messages": _messages(seen, turns),
            "temperature": 0,
            "max_tokens": self._max_tokens,
        }
        pause, problem = _FIRST_PAUSE_S, "no time was left to ask"
        attempts = 0
        while time.monotonic() < until:
            attempts += 1
            outcome, wait, said = self._try(body, until)
            if isinstance(said, dict):
                return self._reply(said, (seen.shape[1], seen.shape[0]))
            problem = said
            if outcome == "refused":
                raise UnavailableError(f"{self._named} refused: {problem}")
            wait = pause if wait is None else wait
            if time.monotonic() + wait >= until:
                break
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        raise UnavailableError(
            f"{self._named} gave no answer in time ({attempts} attempt(s), the last: {problem}); is it running, and is"
            " the grounder's option deadline_s long enough?"
        )

    @property
    def _named(self) -> str:
        return f"the language model {self._model!r} at {self._host}"

    def _try(self, body: dict[str, Any], until: float) -> tuple[Outcome, float | None, dict[str, Any] | str]:
        """One attempt: how it went, the pause that the service asks for, and its answer or what went wrong."""
        start = time.monotonic()
        headers = {"Authorization": f"Bearer {self._key.get_secret_value()}"} if self._key else {}
        outcome: Outcome = "failed"
        wait: float | None = None
        said: dict[str, Any] | str
        try:
            left = max(0.05, until - start)
            with requests.post(
                self._url.get_secret_value(),
                json=body,
                headers=headers,
                timeout=(min(_CONNECT_S, left), left),
                stream=True,
                allow_redirects=False,  # a redirect would take image and key elsewhere
            ) as response:
                content = _content(response, until)
            if response.status_code == requests.codes.ok:
                said = json.loads(content)
                outcome = "answered"
                if not isinstance(said, dict):
                    outcome, said = "failed", "its answer is no JSON object"
            else:
                outcome, wait = _outcome(response)
                said = f"status {response.status_code}: {self._without_secrets(content)}"
                if response.status_code in (401, 403):
                    said += " (the variable that api_key_env names holds the key)"
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            outcome, said = "timeout", "it took too long"
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            said = f"no connection ({type(error).__name__})"  # its words hold the whole address
        except ValueError:
            outcome, said = "failed", "its answer is not JSON"
        usage = said.get("usage") if isinstance(said, dict) else None
        tokens = usage if isinstance(usage, dict) else {}
        asked, answered = _count(tokens.get("prompt_tokens")), _count(tokens.get("completion_tokens"))
        self.observe(outcome, time.monotonic() - start, asked, answered)
        return outcome, wait, said

    def _reply(self, said: dict[str, Any], seen: tuple[int, int]) -> Reply:
        try:
            choice = said["choices"][0]
            text, reason = choice["message"]["content"], choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            text, reason = None, None
        if not isinstance(text, str):
            raise UnavailableError(
                f"{self._named} answers in another form than chat completions do; is the address right?"
            )
        return Reply(text, seen, complete=reason != "length")

    def _without_secrets(self, content: bytes) -> str:
        text = content.decode("utf-8", "replace")
        for secret in (self._key, self._url):
            if secret is not None:
                text = text.replace(secret.get_secret_value(), "***")
        return " ".join(text.split())[:200]


def _content(response: requests.Response, until: float) -> bytes:
    """The whole body; requests' own time-out starts anew with every byte that comes."""
    content = b""
    while block := response.raw.read1(1 << 14, decode_content=True):
        content += block
        if time.monotonic() > until:
            raise requests.Timeout
        if len(content) > _MOST_BYTES:
            raise ValueError("too long")
    return content


def _outcome(response: requests.Response) -> tuple[Outcome, float | None]:
    if response.status_code == requests.codes.too_many_requests:
        try:
            asked = float(response.headers.get("Retry-After", ""))
        except ValueError:
            return "throttled", None
        return "throttled", asked if math.isfinite(asked) and asked >= 0 else None
    return ("failed" if response.status_code >= 500 else "refused"), None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _messages(image: Image, turns: Sequence[str]) -> list[dict[str, Any]]:
    _, png = cv2.imencode(".png", np.ascontiguousarray(image[:, :, ::-1]))
    address = f"data:image/png;base64,{base64.b64encode(png.tobytes()).decode('ascii')}"
    first = [{"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": turns[0]}]
    others = [{"role": ("user", "assistant")[number % 2], "content": turn} for number, turn in enumerate(turns)][1:]
    return [{"role": "user", "content": first}, *others]


def _resized(image: Image, max_pixels: int) -> Image:
    """``image`` with sides that are multiples of 28, at most ``max_pixels`` in all, in (nearly) the same shape."""
    height, width = image.shape[:2]
    scale = min(1.0, math.sqrt(max_pixels / (height * width)))
    sides = [max(2, math.floor(side * scale / _MULTIPLE + (0.5 if scale == 1.0 else 0.0))) for side in (width, height)]
    while sides[0] * sides[1] * _MULTIPLE**2 > max_pixels and max(sides) > 2:
        sides[sides.index(max(sides))] -= 1
    size = (sides[0] * _MULTIPLE, sides[1] * _MULTIPLE)
    reduced = size[0] <= width and size[1] <= height
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if reduced else cv2.INTER_CUBIC)
    return np.asarray(resized, np.uint8)

"""Label Studio's requests and our answers, typed. Source: the bodies that Label Studio 1.23.2 sends.

Only what the service reads is checked; unknown keys are ignored, because every Label Studio release adds some.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal, TypedDict, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from dataset_tools.errors import ProtocolError

__all__ = [
    "Context",
    "PredictRequest",
    "Prediction",
    "Region",
    "SetupRequest",
    "Slot",
    "Task",
    "parse_body",
    "project_id",
]

Json = dict[str, Any]
Region = dict[str, Any]
"""One item of a ``result``: see ``regions``."""

Model = TypeVar("Model", bound=BaseModel)


class Prediction(TypedDict):
    """What is stored for a task: an empty ``result`` marks it as predicted without a mask."""

    result: list[Region]
    score: float
    model_version: str


Slot = Prediction | list[Prediction]
"""A task's place in a batch answer; the empty list means "not computed, ask again"."""


_Int = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
_Name = Annotated[str, Field(max_length=200)]
_MOST_TASKS = 100_000
_MOST_CONTAINERS = 1_000_000
_MOST_VALUES = 24_000_000
_NESTED = 200
_MOST_ITEMS = 1_000
_MOST_CLICKS = 100
"""Bounds of requests, looked at before anything is made of them: an honest request never comes near."""
_CONFIG_CHARACTERS = 4_000_000


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Task(_Body):
    """One task; ``annotations``, ``drafts`` and ``predictions`` may be large and stay untouched until looked at."""

    id: _Int | _Name | None = None
    data: Json = Field(default_factory=dict)
    annotations: list[Any] = Field(default_factory=list)
    drafts: list[Any] = Field(default_factory=list)
    predictions: list[Any] = Field(default_factory=list)

    @field_validator("data", "annotations", "drafts", "predictions", mode="before")
    @classmethod
    def _null_is_empty(cls, value: object, info: Any) -> object:
        if value is None:
            return {} if info.field_name == "data" else []
        return value


class Context(_Body):
    """What the annotator has drawn; its presence makes a request interactive."""

    result: list[Any] = Field(default_factory=list)

    @field_validator("result", mode="before")
    @classmethod
    def _few_enough(cls, value: object) -> object:
        """No more prompts than an annotator draws: the time for an answer grows with their cube."""
        if value is None:
            return []
        if isinstance(value, list):
            if len(value) > _MOST_ITEMS:
                raise ValueError(f"{len(value)} items, more than {_MOST_ITEMS}")
            drawn = ("keypointlabels", "brushlabels", "rectanglelabels")
            clicks = sum(isinstance(item, dict) and item.get("type") in drawn for item in value)
            if clicks > _MOST_CLICKS:
                raise ValueError(f"{clicks} clicks, boxes and strokes, more than {_MOST_CLICKS}")
        return value


class _Params(_Body):
    context: Context | None = None


class _OfProject(_Body):
    """A request that names its project as ``<id>.<seconds of its creation>``."""

    project: _Name | None = None

    @field_validator("project")
    @classmethod
    def _number(cls, value: str | None) -> str | None:
        project_id(value)
        return value

    @cached_property
    def project_id(self) -> int | None:
        """The project's id in Label Studio, None where the request does not say it."""
        return project_id(self.project)


class PredictRequest(_OfProject):
    """``POST /predict``."""

    tasks: list[Task]
    label_config: str = Field(max_length=_CONFIG_CHARACTERS)
    params: _Params = _Params()

    @field_validator("params", mode="before")
    @classmethod
    def _null_is_empty(cls, value: object) -> object:
        return {} if value is None else value

    @field_validator("tasks", mode="before")
    @classmethod
    def _few_enough(cls, value: object) -> object:
        if isinstance(value, list):
            if len(value) > _MOST_TASKS:
                raise ValueError(f"{len(value)} tasks, more than {_MOST_TASKS}")
            wrong = next((number for number, item in enumerate(value) if not isinstance(item, dict | Task)), None)
            if wrong is not None:
                raise ValueError(f"number {wrong} is no task but {type(value[wrong]).__name__}")
        return value

    @cached_property
    def context(self) -> Context | None:
        """The drawn prompts of an interactive request, None for a batch."""
        return self.params.context

    @cached_property
    def kind(self) -> Literal["pre-label", "click", "text"]:
        """What is asked for, in one word for the log."""
        if self.context is None:
            return "pre-label"
        texts = (isinstance(item, dict) and item.get("type") == "textarea" for item in self.context.result)
        return "text" if any(texts) else "click"


class SetupRequest(_OfProject):
    """``POST /setup``. The token is masked in every repr; it is the project creator's and is not used."""

    labeling_config: str = Field(default="", alias="schema", max_length=_CONFIG_CHARACTERS)
    hostname: str | None = None
    access_token: SecretStr | None = None
    extra_params: Any = None


def project_id(project: str | None) -> int | None:
    """The id in ``<id>.<seconds>`` or ``<id>``, None for anything else.

    Raises:
        ValueError: the number is no id of a database.
    """
    number = (project or "").partition(".")[0]
    if not (number.isascii() and number.isdigit()):
        return None
    if len(number) > 18:
        raise ValueError(f"an id has 18 digits at most, not {len(number)}")
    return int(number)


def parse_body(body: bytes, content_type: str | None) -> Json:
    """The JSON object in a request's body.

    Raises:
        ProtocolError: another content type, malformed JSON, or JSON that is not an object. The body is not repeated.
    """
    kind = (content_type or "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise ProtocolError(f"the content type must be application/json, got {kind or 'none'}")
    _check_structure(body)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ProtocolError(f"the body is not valid JSON: {error.msg} ({where})") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"the body must be a JSON object, got {type(value).__name__}")
    _check_depth(body, value)
    return value


def validate(model: type[Model], value: Json) -> Model:
    """``value`` as a request of type ``model``.

    Raises:
        ProtocolError: fields are missing or of another type; each is named. Values are not repeated.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in found[:10])
        if len(found) > 10:
            problems += f"; and {len(found) - 10} more"
        raise ProtocolError(f"not a {model.__name__}: {problems}") from None


def _check_structure(body: bytes) -> None:
    """Refuse JSON that would take far more memory than its text.

    Raises:
        ProtocolError: too many objects, lists or values.
    """
    containers = body.count(b"{") + body.count(b"[")
    if containers > _MOST_CONTAINERS:
        raise ProtocolError(f"the body has {containers} objects and lists, more than {_MOST_CONTAINERS}")
    values = body.count(b",")
    if values > _MOST_VALUES:
        raise ProtocolError(f"the body has {values} values, more than {_MOST_VALUES}")


def _check_depth(body: bytes, value: object) -> None:
    """Refuse JSON that is nested so deep that it could not be written again.

    Raises:
        ProtocolError: it is.
    """
    if body.count(b"{") + body.count(b"[") < _NESTED:
        return
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise ProtocolError(f"the body is nested too deep: {error}") from None

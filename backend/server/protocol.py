"""Label Studio's requests and our answers, typed. Source: the bodies that Label Studio 1.23.2 sends.

Only what the service reads is checked; unknown keys are ignored, because every Label Studio release adds some.
"""

from __future__ import annotations

from typing import Any, TypedDict, TypeVar

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
    "shown_id",
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


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Task(_Body):
    """One task; ``annotations``, ``drafts`` and ``predictions`` may be large and stay untouched until looked at."""

    id: int | str | None = None
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
    def _null_is_empty(cls, value: object) -> object:
        return [] if value is None else value


class _Params(_Body):
    context: Context | None = None


class _OfProject(_Body):
    """A request that names its project as ``<id>.<seconds of its creation>``."""

    project: str | None = None

    @property
    def project_id(self) -> int | None:
        """The project's id in Label Studio, None where the request does not say it."""
        return project_id(self.project)


class PredictRequest(_OfProject):
    """``POST /predict``."""

    tasks: list[Task]
    label_config: str
    params: _Params = _Params()

    @field_validator("params", mode="before")
    @classmethod
    def _null_is_empty(cls, value: object) -> object:
        return {} if value is None else value

    @property
    def context(self) -> Context | None:
        """The drawn prompts of an interactive request, None for a batch."""
        return self.params.context


class SetupRequest(_OfProject):
    """``POST /setup``. The token is masked in every repr; it is the project creator's and is not used."""

    labeling_config: str = Field(default="", alias="schema")
    hostname: str | None = None
    access_token: SecretStr | None = None
    extra_params: Any = None


def project_id(project: str | None) -> int | None:
    """The id in ``<id>.<seconds>`` or ``<id>``, None for anything else."""
    number = (project or "").partition(".")[0]
    return int(number) if number.isascii() and number.isdigit() else None


def shown_id(identity: object) -> str:
    """An id from a request for a line of the log: without line ends and control characters, and short."""
    text = str(identity)
    return text[:60] if text.isprintable() else ascii(text[:60])


def parse_body(body: bytes, content_type: str | None) -> Json:
    """The JSON object in a request's body.

    Raises:
        ProtocolError: another content type, malformed JSON, or JSON that is not an object. The body is not repeated.
    """
    kind = (content_type or "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise ProtocolError(f"the content type must be application/json, got {kind or 'none'}")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ProtocolError(f"the body is not valid JSON: {error.msg} ({where})") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"the body must be a JSON object, got {type(value).__name__}")
    return value


def validate(model: type[Model], value: Json) -> Model:
    """``value`` as a request of type ``model``.

    Raises:
        ProtocolError: fields are missing or of another type; each is named. Values are not repeated.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ProtocolError(f"not a {model.__name__}: {problems}") from None

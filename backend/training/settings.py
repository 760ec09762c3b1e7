"""Settings of a training run from YAML into a dataclass: a misspelt, missing or superfluous key is named."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, TypeVar

from dataset_tools.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Settings = TypeVar("Settings", bound=DataclassInstance)


def checked(kind: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    """An instance of the dataclass ``kind`` from ``values``; lists become tuples.

    Args:
        kind: its fields are the allowed keys, those without a default the required ones.
        values: as YAML gives them.
        where: what they belong to, for messages ("the augmentation").

    Raises:
        ConfigError: a key is unknown (the closest known one is offered) or missing.
    """
    allowed = {field.name: field for field in fields(kind)}
    for key in values:
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(allowed)}"
            raise ConfigError(f"{where} has no setting {key!r}: {hint}")
    for name, field in allowed.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{where} needs the setting {name!r}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

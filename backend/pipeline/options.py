"""Options of a grounder or segmenter: plain values that change masks, and values that only the environment knows.

``url_env: NAME`` in a config stands for the option ``url`` with the value of the environment variable ``NAME``; with
``NAME?`` the variable need not be set. The
value is read when the pipeline is built, reaches the adapter as a ``SecretStr`` and stands nowhere else: neither it nor
its variable's name counts in ``model_version``, and a config that is copied into a trained version's folder holds the
name only. What looks like a secret is refused as a plain value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import SecretStr

from dataset_tools.errors import ConfigError

__all__ = ["FROM_ENVIRONMENT", "checked", "mask_relevant", "missing_variables", "names_a_secret", "with_environment"]

FROM_ENVIRONMENT = "_env"
"""What the name of an option ends with whose value is the name of an environment variable."""
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*\??")
_NO_MASK = ("deadline_s", "feature_memory")
"""Options that say how long something may take or how much may be kept: they change no mask."""
_SECRET = re.compile(
    r"(^|[_-])(api_?key|key|token|pass(word|wd)?|secret|credentials?|auth(orization)?)$", re.IGNORECASE
)


def names_a_secret(name: str) -> bool:
    """Whether a key of this name is likely to hold what nobody else may see."""
    return bool(_SECRET.search(name))


def checked(options: dict[str, Any]) -> dict[str, Any]:
    """The options as they are; raises ValueError, without showing a value, where one would be a secret in the open."""
    problems = [*_problems("", options)]
    if problems:
        raise ValueError("; ".join(problems))
    return options


def mask_relevant(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that change masks: not where a service is and who asks it, nor what is kept and waited for."""
    return {name: value for name, value in _in_the_open(options).items() if name not in _NO_MASK}


def with_environment(options: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The keywords for an adapter: plain options, and ``SecretStr`` values of those that the environment gives.

    Raises:
        ConfigError: a variable is not set; the message names it.
    """
    keywords = _in_the_open(options)
    for name in options.keys() - keywords.keys():
        variable, required = _variable(options[name])
        if not (value := os.environ.get(variable)):
            if not required:
                continue
            raise ConfigError(f"{section}.options.{name}: the environment variable {variable} is not set")
        keywords[name.removesuffix(FROM_ENVIRONMENT)] = SecretStr(value)
    return keywords


def missing_variables(options: Mapping[str, Any]) -> list[str]:
    """The environment variables that the options name and that are not set."""
    named = [_variable(options[name]) for name in options if name.endswith(FROM_ENVIRONMENT)]
    return [variable for variable, required in named if required and not os.environ.get(variable)]


def _in_the_open(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if not name.endswith(FROM_ENVIRONMENT)}


def _variable(named: str) -> tuple[str, bool]:
    """The variable's name, and whether it has to be set."""
    return named.removesuffix("?"), not named.endswith("?")


def _problems(place: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            name = f"{place}.{key}" if place else str(key)
            if str(key).endswith(FROM_ENVIRONMENT) and not place:
                if not (isinstance(inner, str) and _VARIABLE.fullmatch(inner)):
                    yield f"{name}: must be the name of an environment variable (capitals, digits, _), or NAME?"
                elif str(key).removesuffix(FROM_ENVIRONMENT) in value:
                    yield f"{name}: stands beside {name.removesuffix(FROM_ENVIRONMENT)}; give one of the two"
            elif names_a_secret(str(key)):
                instead = f"{name.split('.')[0]}{FROM_ENVIRONMENT}: NAME_OF_A_VARIABLE"
                yield f"{name}: a secret must not stand in a config; write {instead}"
            else:
                yield from _problems(name, inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _problems(f"{place}[{number}]", inner)
    elif isinstance(value, str) and "://" in value:
        try:
            parts = urlsplit(value)
        except ValueError:
            return  # no URL then; who takes the option says so
        if parts.username or parts.password or any(names_a_secret(key) for key, _ in parse_qsl(parts.query)):
            yield f"{place}: an address with credentials must not stand in a config; write {place}{FROM_ENVIRONMENT}"

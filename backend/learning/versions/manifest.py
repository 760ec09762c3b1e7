"""What is written down of a trained version: all that is needed to make it again, or to see that it is whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from dataset_tools.errors import ConfigError

__all__ = ["MANIFEST", "Manifest"]

MANIFEST = "version.json"
"""Name of the manifest in a version's folder."""


@dataclass(frozen=True)
class Manifest:
    """How a version was made.

    Attributes:
        version: ``<config>-<8 hex>``.
        config: name of the base config.
        base: version of the base config that the training began from.
        parent: version that served the project then, with which the gate compared.
        project, job: Label Studio's project, number of the training job.
        options: of the training: seed, budget, threads.
        training_keys: sha256 of each training image.
        replay: what the replay images were.
        gate: the gate's numbers, ``held_out_old``, ``held_out_new``, ``replay_old``, ``replay_new`` among them.
        accepted: the gate's verdict.
        reason: the verdict in words.
        files: sha256 of every file of the folder.
    """

    version: str
    config: str
    base: str
    parent: str
    project: int
    job: int
    options: Mapping[str, Any]
    training_keys: Sequence[str]
    replay: str
    gate: Mapping[str, Any]
    accepted: bool
    reason: str
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """The inverse of ``orjson.dumps(asdict(manifest))``; raises ConfigError for another text."""
        try:
            return cls(**orjson.loads(text))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"not a version's manifest as this release writes it: {error}") from error

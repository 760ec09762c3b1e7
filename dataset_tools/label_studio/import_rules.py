"""What is taken from a Label Studio project, and what is said of a task that is not taken as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

__all__ = ["ImportRules", "Problem"]

Annotators: TypeAlias = Literal["ground-truth", "latest", "agreement", "all"]


@dataclass(frozen=True)
class ImportRules:
    """What to take from a project.

    Attributes:
        image_key: key of the image in the task data; None takes the first key whose value looks like one.
        expression_key: key of the expression (or list of expressions) in the task data.
        annotators: which annotation of a task counts: ``ground-truth`` (the one marked so, else the latest),
            ``latest`` (last updated), ``agreement`` (the one that agrees best with the others, if the mean IoU
            reaches ``agreement``), ``all``.
        agreement: least mean IoU with the others for ``agreement``.
        images: folder with the images, for tasks whose image is an upload or a URL; None leaves them unresolved.
        hash_annotators: key with which annotator ids are hashed; None keeps the ids.
        predictions: whether a task that nobody has annotated or skipped gives its newest prediction, which nobody has
            accepted: for maps, never for datasets.
        model_version: the one whose predictions count; None takes any.
        nouns: that the project's annotators use -> category (``learnt_nouns.meanings``).
    """

    image_key: str | None = None
    expression_key: str = "expression"
    annotators: Annotators = "ground-truth"
    agreement: float = 0.8
    images: Path | None = None
    hash_annotators: str | None = None
    predictions: bool = False
    model_version: str | None = None
    nouns: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Problem:
    """Something to be told about a task: that something was left out and why, or that something was assumed.

    Attributes:
        task: its id.
        message: what, and what helps.
        kind: ``left-out``; ``wordless``: an object without words, which the formats that hold objects by themselves
            keep; ``note``: nothing was left out, it is logged once.
    """

    task: int | str | None
    message: str
    kind: Literal["left-out", "wordless", "note"] = "left-out"

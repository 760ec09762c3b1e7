"""What a pre-label says beside its objects: notes on expressions without an answer, and candidates to choose from.

A note is a text in the field ``pslg_note`` of the labeling config and of the task's data; a candidate is a region
whose ``meta.text`` says so. Neither states anything about the image, nor does a typed expression whose suggestion was
rejected: :func:`stated` is what an annotation states without them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "NOTE",
    "UNDECIDED",
    "Note",
    "answered",
    "asked",
    "candidate",
    "is_note",
    "note_lines",
    "read_notes",
    "stated",
]

NOTE = "pslg_note"
"""Name of the text field in labeling configs, and key in a task's data."""
UNDECIDED = "undecided"
"""``type`` that :func:`stated` gives to candidates of which none was chosen, and to typed expressions that were
rejected: they are no objects, and their annotation is none that was left empty on purpose."""

_LINE = re.compile(r"^“(?P<expression>.*)” \((?P<reason>[a-z-]+)\): (?P<message>.*)$")
_CANDIDATE = re.compile(r"^pslg candidate (?P<number>\d+) of (?P<count>\d+)$")
_ASKED = re.compile(r"^pslg asked: (?P<text>.+)$")
_WORDS = re.compile(r"^expression: (?P<text>.+)$")


@dataclass(frozen=True)
class Note:
    """Why an expression got no object.

    Attributes:
        expression: the words, blanks joined.
        reason: a code of ``backend.pipeline.types.Abstention``, or ``no-label`` where the labeling config has no label
            for what was found.
        message: for the annotator.
    """

    expression: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"“{_joined(self.expression)}” ({self.reason}): {_joined(self.message)}"


def note_lines(notes: Iterable[Note]) -> str:
    """The notes as one text, a line each; empty without any."""
    return "\n".join(map(str, notes))


def read_notes(text: object) -> list[Note]:
    """The notes of a text that :func:`note_lines` made; lines of another form, and what is no text, give none."""
    lines = text.splitlines() if isinstance(text, str) else []
    return [Note(**match.groupdict()) for match in map(_LINE.match, lines) if match]


def candidate(number: int, count: int) -> str:
    """Marks a region in its ``meta.text`` as candidate ``number`` (from 1) of ``count`` for its expression."""
    return f"pslg candidate {number} of {count}"


def asked(expression: str) -> str:
    """Marks a text field in its ``meta.text``: suggestions for this ``expression`` in it were shown."""
    return f"pslg asked: {_joined(expression)}"


def is_note(result: Mapping[str, Any]) -> bool:
    """Whether a result is the text of a note."""
    return result.get("from_name") == NOTE


def stated(results: Sequence[Any]) -> list[Any]:
    """The results without notes; without typed expressions that have no answer; candidates settled.

    A typed expression has none if a note says so, or if its suggestion was rejected: it was shown, and no region
    carries it. A candidate is the chosen one, an object, if it is the only region left for its expression. Candidates
    that are not, and fields of which every text was rejected, get the type ``UNDECIDED``.
    """
    known = [result for result in results if not (isinstance(result, dict) and is_note(result))]
    notes = [note for result in results if isinstance(result, dict) and is_note(result) for note in _of_field(result)]
    kept = _without_unanswered(known, {note.expression for note in notes})
    objects = Counter(_objects(kept))
    left = {key: sum(1 for words, _ in objects if words == key) for key in {words for words, _ in objects}}
    return [
        {**result, "type": UNDECIDED} if (mark := _mark(result)) is not None and left[mark[0]] > 1 else result
        for result in kept
    ]


def answered(results: Sequence[Any]) -> list[Any]:
    """The results of a prediction without texts and candidates: a candidate is a question, however few there are."""
    return [
        result
        for result in results
        if not (isinstance(result, dict) and (result.get("type") == "textarea" or _mark(result) is not None))
    ]


def _of_field(result: Mapping[str, Any]) -> list[Note]:
    value = result.get("value")
    text = value.get("text") if isinstance(value, dict) else None
    return [note for part in (text if isinstance(text, list) else [text]) for note in read_notes(part)]


def _without_unanswered(results: Sequence[Any], unanswered: set[str]) -> list[Any]:
    """Texts typed for the image without those of ``unanswered``, and those asked for, that no region carries."""
    regions = [one for one in results if isinstance(one, dict) and one.get("type") != "textarea"]
    carried, own = {_said(region)[0] for region in regions}, {region.get("id") for region in regions}
    kept = []
    for result in results:
        value = result.get("value") if isinstance(result, dict) else None
        if isinstance(value, dict) and result.get("type") == "textarea" and result.get("id") not in own:
            text = value.get("text")
            parts = text if isinstance(text, list) else [text]
            shown = {_joined(match["text"]) for match in map(_ASKED.match, _meta_lines(result)) if match}
            left = [part for part in parts if _joined(str(part)) not in (unanswered | shown) - carried]
            if not left and not any(_joined(str(part)) in shown for part in parts):
                continue
            if len(left) < len(parts):
                kind = "textarea" if left else UNDECIDED
                result = {**result, "type": kind, "value": {**value, "text": left or parts}}
        kept.append(result)
    return kept


def _objects(results: Sequence[Any]) -> list[tuple[str, str]]:
    """(expression, object) of the regions with words; the regions of one candidate in several controls are one."""
    found = []
    for number, result in enumerate(results):
        if isinstance(result, dict):
            words, mark = _said(result)
            if words:
                found.append((words, mark or f"region {number}"))
    return found


def _mark(result: Any) -> tuple[str, str] | None:
    """(expression, mark) of a candidate, None for anything else."""
    words, mark = _said(result) if isinstance(result, dict) else ("", "")
    return (words, mark) if mark else None


def _said(result: Mapping[str, Any]) -> tuple[str, str]:
    """Expression and candidate's mark in ``meta.text``, empty where it has none."""
    lines = _meta_lines(result)
    words = [match["text"] for match in map(_WORDS.match, lines) if match]
    marks = [match[0] for match in map(_CANDIDATE.match, lines) if match]
    return _joined(words[-1]) if words else "", marks[-1] if marks else ""


def _meta_lines(result: Mapping[str, Any]) -> list[str]:
    meta = result.get("meta")
    text = meta.get("text") if isinstance(meta, dict) else None
    lines = "\n".join(map(str, text if isinstance(text, list) else [text or ""])).splitlines()
    return [line.strip() for line in lines]


def _joined(text: str) -> str:
    return " ".join(text.split())

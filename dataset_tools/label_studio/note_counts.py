"""How many expressions had no answer, by reason, and which words were not known most often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dataset_tools.expressions.parser import parse
from dataset_tools.label_studio.notes import Note, read_notes

__all__ = ["NoteCounts"]

_MOST = 8


class NoteCounts:
    """Counts of notes, to be added to.

    Attributes:
        reasons: number of expressions by their note's reason.
        words: number of expressions by the word in them that was not known.
    """

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self.words: Counter[str] = Counter()

    @classmethod
    def of(cls, texts: Iterable[object]) -> NoteCounts:
        """The counts of notes as they stand in tasks' data (``pslg_note``)."""
        counts = cls()
        for text in texts:
            counts.add(read_notes(text))
        return counts

    def add(self, notes: Iterable[Note]) -> None:
        """Count the notes of one task."""
        for note in notes:
            self.reasons[note.reason] += 1
            if note.reason in ("unknown-category", "unknown-word"):
                query = parse(note.expression)
                self.words.update(dict.fromkeys((*query.unknown_words, *query.unread), 1))

    def lines(self) -> list[str]:
        """For the terminal: a line on the reasons and one on the words; none where everything was answered."""
        lines = []
        if self.reasons:
            found = ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common())
            lines.append(f"expressions without an answer: {found}")
        if self.words:
            found = ", ".join(f"{word!r} ({count})" for word, count in self.words.most_common(_MOST))
            lines.append(f"words not known most often: {found}")
        return lines

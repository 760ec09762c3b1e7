"""Words that expressions hold and that change nothing: each of them must be harmless.

    python -m benchmarks.harmless_words FILE... [--part tune] [--examples 1]

Each FILE has one JSON object per line with an ``expression`` (or, as in RRSIS-D, ``sent``). Every word of every
sentence is left out once; where the query stays the same, the word took no part in it. Printed are these words, the
most frequent first, each with how often that was so, out of how many times it was said, and a sentence. A word such as
"please" belongs there; a word such as "striped" does not: it would be passed over in silence.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.query import Query

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")


@dataclass
class Passed:
    """One word: how often it was said, how often that changed nothing, and where."""

    said: int = 0
    idle: int = 0
    sentences: list[str] = field(default_factory=list)


def idle_words(expressions: Iterable[str]) -> dict[str, Passed]:
    """Word -> what became of it, for every word that changed nothing at least once."""
    found: dict[str, Passed] = {}
    said: Counter[str] = Counter()
    for expression in dict.fromkeys(expressions):
        whole = _read(expression)
        for match in _WORD.finditer(expression):
            word = match[0].lower()
            said[word] += 1
            rest = f"{expression[: match.start()]} {expression[match.end() :]}"
            if _read(rest) == whole:
                passed = found.setdefault(word, Passed())
                passed.idle += 1
                passed.sentences.append(expression)
    for word, passed in found.items():
        passed.said = said[word]
    return found


def _read(expression: str) -> Query:
    return replace(parse(expression), text="")


def expressions_of(path: Path, part: str | None) -> list[str]:
    """The expressions of a file; rows of other parts are left out."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    return [row.get("expression") or row["sent"] for row in rows if "part" not in row or part in (None, row["part"])]


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--part", default="tune", show_default=True, help="Only the rows of this part, where rows have one.")
@click.option("--examples", default=1, show_default=True, help="Sentences to print for each word.")
def main(files: tuple[Path, ...], part: str, examples: int) -> None:
    """Print the words of FILES whose removal changes no query."""
    found = idle_words(text for path in files for text in expressions_of(path, part))
    for word, passed in sorted(found.items(), key=lambda item: (-item[1].idle, item[0])):
        click.echo(f"{word} {passed.idle}/{passed.said}: " + " | ".join(passed.sentences[:examples]))


if __name__ == "__main__":
    main()

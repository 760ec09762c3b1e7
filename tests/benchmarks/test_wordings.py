"""People's own sentences over true boxes: 596 of ours about training scenes, in tests/data/sentences.jsonl.

250 were written by looking at the numbered boxes of 33 images of nwpu_vhr10 and isaid_512 (parts ``train``), the chance
is fitted on them; 102 (ids from 250 on) by looking at one object, drawn by chance and marked, in each of 51 further
images (``train`` and ``val``), ten of which were not understood: the numbered boxes show that others fit as well; 134
(ids from 352 on) in the same way about 67 objects in 67 images again, in the manner of a clerk, a pilot, a geographer,
a sailor, a gamer and somebody whose English is not the first language; 76 terse ones (ids from 486 on) about 60 objects
in 60 further images (``train``), marked, of categories as frequent as in ``tune``; 34 terse ones (ids from 562 on)
about 34 objects drawn by chance in as many further images (``train``; three of inria_256), marked. All were written
before any rule was tried on them; faults that they showed were mended by kind afterwards. The last 34 are harder, and
have bounds of their own: 53 % were right, 21 % wrong.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.wordings import answers, read_rows, situations, table

SENTENCES = Path(__file__).parents[1] / "data" / "sentences.jsonl"
HARDER = 562
"""The first id of the last 34."""


@pytest.fixture(scope="module")
def measured(request: pytest.FixtureRequest) -> dict[str, dict[str, float | int]]:
    """Figures by style; of the harder ones under "harder"."""
    shared = request.getfixturevalue("shared_data")
    rows = [row for row in read_rows(SENTENCES) if (shared / row["set"]).is_dir()]
    if len(rows) < 250:
        pytest.skip("the research images isaid_512 are not there")
    rows = [{**row, "style": "harder"} if row["id"] >= HARDER else row for row in rows]
    return table(answers(rows, situations(rows, shared)))


@pytest.mark.parametrize(
    ("style", "right", "wrong"), [("terse", 0.73, 0.06), ("natural", 0.69, 0.06), ("harder", 0.52, 0.21)]
)
def test_sentences_of_our_own(
    measured: dict[str, dict[str, float | int]], style: str, right: float, wrong: float
) -> None:
    assert measured[style]["right"] >= right
    assert measured[style]["wrong"] <= wrong
    assert measured[style]["offered"] >= 0.7

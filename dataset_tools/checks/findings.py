"""What can be wrong with a dataset: a code for each mistake, why it matters, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Code:
    """A kind of mistake.

    Attributes:
        severity: an ``error`` makes a public loader fail or learn something false; a ``warning`` asks for a look.
        why: what happens if it stays.
        fix: what to do about it.
        automatic: ``--fix`` mends it, without judgement.
    """

    severity: Severity
    why: str
    fix: str
    automatic: bool = False


CODES: dict[str, Code] = {
    "unreadable": Code("error", "The dataset cannot be read any further.", "Correct the file that the message names."),
    "empty": Code("error", "There is nothing to learn from or to measure on.", "Check the folder that was named."),
    "row-unusable": Code(
        "error", "The row is left out of everything that is made of the dataset.", "Correct it in its file.", True
    ),
    "box-only": Code(
        "warning",
        "A box is no mask: formats of masks leave the object out.",
        "Outline it, or pass --boxes-as-masks to the export.",
    ),
    "image-unreadable": Code("error", "Loaders stop at this image.", "Restore the file, or drop its records.", True),
    "image-mode": Code(
        "error",
        "Loaders expect 8-bit RGB; grey, alpha, palette and 16-bit images break their channel order.",
        "Convert the image to 8-bit RGB.",
        True,
    ),
    "image-size": Code(
        "error",
        "Masks do not lie on the objects (RRSIS-D has such images: 09976.jpg, 15324.jpg).",
        "Find out which of the two sizes is right and make the other anew.",
    ),
    "image-duplicate": Code("warning", "One image counts twice.", "Keep one of the two."),
    "split-scene": Code("error", "A scene is in two splits: the test figures are too good.", "Split by scene."),
    "split-duplicate": Code(
        "error",
        "Near-identical images are in two splits: the test figures are too good.",
        "Move one, or give both the same scene and split by scene.",
    ),
    "split-unknown": Code("warning", "Loaders know train, val and test; others give length 0 silently.", "Rename it."),
    "split-missing": Code("warning", "Exports put records without a split into train.", "Run pslg dataset split."),
    "mask-damaged": Code("error", "The run-length code cannot be decoded.", "Export the record again.", True),
    "mask-empty": Code("error", "IoU is 0 or undefined whatever a model answers.", "Draw the mask, or drop it.", True),
    "mask-outside": Code("warning", "Part of the outline is outside the image and is cut off.", "Check the image."),
    "coco-segmentation": Code(
        "error", "pycocotools takes a list of flat polygons, or one run-length dict.", "Write one of the two.", True
    ),
    "mask-box": Code(
        "warning",
        "The mask fills its box: a box was drawn where an outline was asked for.",
        "Redraw the mask.",
    ),
    "expression-empty": Code("error", "Loaders tokenise nothing.", "Write an expression, or drop the record.", True),
    "expression-long": Code(
        "warning",
        "Loaders cut at 20 tokens ([CLS] and [SEP] included; FIANet at 22) without notice.",
        "Shorten it to 18 word pieces.",
    ),
    "expression-spaces": Code("warning", "Blanks at the ends or in a row become tokens.", "Trim it.", True),
    "expression-repeated": Code("warning", "The same words for the same object count twice.", "Keep one.", True),
    "expression-two-targets": Code(
        "error",
        "One expression means two different objects of an image: no model can be right on both.",
        "Make the words tell the objects apart, or merge them into one record.",
    ),
    "expression-mixed": Code(
        "warning",
        "Some masks were found for the words, others were clicked, boxed or drawn: they may mean something else.",
        "Look at the image; a text of their own (per-region) says what the others are.",
    ),
    "expression-ambiguous": Code(
        "warning", "Two objects of the image fit the words about equally.", "Add what tells the target apart."
    ),
    "expression-other": Code(
        "warning", "The words fit another object of the image better than the target.", "Check words and target."
    ),
    "category-unknown": Code(
        "warning",
        "The category is in no alias map: loaders and models do not know it.",
        "Use a canonical name, or add it to dataset_tools/categories.py.",
    ),
    "category-mismatch": Code(
        "error", "The words name another category than the label.", "Correct the label or the words."
    ),
    "refer-id": Code("error", "Loaders index dicts with builtin ints; other types break them.", "Write ints.", True),
    "refer-duplicate-id": Code("error", "Two refs share an id; loaders keep the last one.", "Number them anew.", True),
    "refer-sentences": Code(
        "error",
        "sentences is empty or differs in length from sent_ids; loaders zip the two and drop the rest.",
        "Write one id per sentence.",
        True,
    ),
    "refer-grouped": Code(
        "warning",
        "A ref has several sentences: FIANet picks one at random, SegEarth-R1 reads only the first.",
        "Export with one sentence per ref (--refs single, the default).",
        True,
    ),
    "refer-overlap": Code(
        "error", "The codes of one ref overlap; REFER.getMask drops the pixels they share.", "Merge them.", True
    ),
    "refer-segmentation": Code(
        "error",
        "REFER.getMask takes a list of RLE dicts; a bare dict raises KeyError, a polygon loses pixels.",
        "Write a list with one compressed RLE.",
        True,
    ),
    "refer-protocol": Code("error", "Pickle protocol above 2: old loaders cannot read it.", "Write protocol 2.", True),
}
"""Every finding's code."""


@dataclass(frozen=True)
class Finding:
    """One mistake: its code, where it is, what was seen, and the image and record it concerns (for the overlay)."""

    code: str
    where: str
    message: str
    image: str | None = None
    record: int | None = None

    @property
    def severity(self) -> Severity:
        """``error`` or ``warning``."""
        return CODES[self.code].severity

"""DIOR-RSVG, the visual grounding set that LQVG was trained on: one box per referring expression, no masks.

    Annotations/<name>.xml   Pascal VOC: filename, size, object (name, bndbox xmin ymin xmax ymax, description)
    JPEGImages/<filename>    images
    train.txt, val.txt, test.txt   one object's number per line

The numbers count the objects of all XML files. The original counts in ``os.walk`` order, which differs between
machines; here files are sorted by name, so numbers mean the same everywhere but need not mean what they meant on the
authors' machine: a test figure for weights that others trained may include objects they trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError  # types only; defusedxml parses

import defusedxml
from defusedxml import ElementTree

from dataset_tools.errors import DatasetError
from dataset_tools.geometry import Box

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DescribedObject:
    """One referring expression and its box.

    Attributes:
        number: counts the objects of all XML files in the order of the sorted file names, from 0.
        image: path of the image file.
        width: of the image, pixels.
        height: of the image, pixels.
        category: the object's name as the file spells it.
        expression: the file's description.
        box: (x0, y0, x1, y1) in pixels, cut to whole numbers as in the original.
    """

    number: int
    image: Path
    width: int
    height: int
    category: str
    expression: str
    box: Box


def is_dior_rsvg(folder: Path) -> bool:
    """Whether ``folder`` has the layout of this format."""
    return (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir()


def read(folder: str | Path, split: str | Path | None = None) -> list[DescribedObject]:
    """Read a DIOR-RSVG folder; no image is opened.

    Args:
        folder: the folder described at the top of this module.
        split: ``train``, ``val``, ``test`` or the path of a file of object numbers; None reads everything.

    Raises:
        DatasetError: a file is missing or malformed, or a split names an object that does not exist.
    """
    folder = Path(folder)
    if not is_dior_rsvg(folder):
        raise DatasetError(f"{folder} is not a DIOR-RSVG folder: it must hold Annotations/ and JPEGImages/")
    files = sorted((folder / "Annotations").glob("*.xml"))
    if not files:
        raise DatasetError(f"{folder / 'Annotations'} holds no .xml file")
    expressions: list[DescribedObject] = []
    for file in files:
        expressions += _read_file(folder, file, len(expressions))
    if split is None:
        return expressions
    return [expressions[number] for number in _numbers(folder, split, len(expressions))]


def _read_file(folder: Path, file: Path, first_number: int) -> Iterator[DescribedObject]:
    try:
        root = ElementTree.parse(file).getroot()
    except (ParseError, defusedxml.DefusedXmlException, OSError) as error:
        raise DatasetError(f"{file} is not readable XML: {error}") from error
    image = folder / "JPEGImages" / Path(_text(root, "filename", file)).name
    width, height = (_number(root, f"size/{side}", file) for side in ("width", "height"))
    for offset, item in enumerate(root.findall("object")):
        x0, y0, x1, y1 = (float(int(_number(item, f"bndbox/{key}", file))) for key in ("xmin", "ymin", "xmax", "ymax"))
        if x1 <= x0 or y1 <= y0:
            raise DatasetError(f"{file}: object {offset} has the empty box {(x0, y0, x1, y1)}")
        yield DescribedObject(
            number=first_number + offset,
            image=image,
            width=int(width),
            height=int(height),
            category=_text(item, "name", file),
            expression=_text(item, "description", file),
            box=Box(x0, y0, x1, y1),
        )


def _text(element: Element, path: str, file: Path) -> str:
    text = (element.findtext(path) or "").strip()
    if not text:
        raise DatasetError(f"{file}: <{path}> is missing or empty in <{element.tag}>")
    return text


def _number(element: Element, path: str, file: Path) -> float:
    text = _text(element, path, file)
    try:
        return float(text)
    except ValueError:
        raise DatasetError(f"{file}: <{path}> must be a number, got {text!r}") from None


def _numbers(folder: Path, split: str | Path, count: int) -> list[int]:
    path = folder / f"{split}.txt" if split in SPLITS else Path(split)
    if not path.is_file():
        raise DatasetError(f"no split {str(split)!r}: {path} does not exist; choose {', '.join(SPLITS)} or a file")
    numbers = []
    for line, text in enumerate(path.read_text(encoding="utf-8-sig").split(), start=1):
        if not text.isdecimal() or int(text) >= count:
            raise DatasetError(f"{path}, line {line}: {text!r} is not the number of an object (there are {count})")
        numbers.append(int(text))
    return numbers

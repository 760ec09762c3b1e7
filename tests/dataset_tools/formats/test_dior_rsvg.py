from __future__ import annotations

from pathlib import Path

import pytest

from dataset_tools.errors import DatasetError
from dataset_tools.formats import dior_rsvg
from dataset_tools.geometry import Box

OBJECT = """<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>
</bndbox><description>{text}</description></object>"""


def write_xml(folder: Path, name: str, *objects: str) -> None:
    for part in ("Annotations", "JPEGImages"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "Annotations" / f"{name}.xml").write_text(
        f"<annotation><filename>{name}.jpg</filename><size><width>800</width><height>600</height><depth>3</depth>"
        f"</size>{''.join(objects)}</annotation>"
    )


def an_object(text: str = "A ship", x0: str = "10.7", x1: str = "60") -> str:
    return OBJECT.format(name="ship", text=text, x0=x0, y0=20, x1=x1, y1="90.2")


def test_numbers_follow_the_sorted_file_names(tmp_path: Path) -> None:
    write_xml(tmp_path, "00010", an_object("third"))
    write_xml(tmp_path, "00002", an_object("first"), an_object("second"))
    (tmp_path / "test.txt").write_text("2\n0\n")
    everything = dior_rsvg.read(tmp_path)
    assert [e.expression for e in everything] == ["first", "second", "third"]
    assert [e.number for e in everything] == [0, 1, 2]
    found = dior_rsvg.read(tmp_path, "test")
    assert [e.expression for e in found] == ["third", "first"]
    assert found[0].image == tmp_path / "JPEGImages" / "00010.jpg"
    assert found[0].box == Box(10, 20, 60, 90)  # whole numbers, as in the original
    assert (found[0].width, found[0].height, found[0].category) == (800, 600, "ship")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (an_object(text=""), r"00001\.xml: <description> is missing or empty in <object>"),
        (an_object(x0="left"), r"<bndbox/xmin> must be a number, got 'left'"),
        (an_object(x0="60"), r"object 0 has the empty box"),
        ("<object>", r"00001\.xml is not readable XML"),
    ],
)
def test_damaged_annotations_are_named(tmp_path: Path, item: str, message: str) -> None:
    write_xml(tmp_path, "00001", item)
    with pytest.raises(DatasetError, match=message):
        dior_rsvg.read(tmp_path)


def test_entity_bombs_are_refused(tmp_path: Path) -> None:
    write_xml(tmp_path, "00001", an_object())
    file = tmp_path / "Annotations" / "00001.xml"
    file.write_text('<!DOCTYPE a [<!ENTITY b "bbbbbbbb">]>' + file.read_text().replace("A ship", "&b;&b;"))
    with pytest.raises(DatasetError, match="not readable XML"):
        dior_rsvg.read(tmp_path)


def test_wrong_folders_and_splits(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"must hold Annotations/ and JPEGImages/"):
        dior_rsvg.read(tmp_path)
    write_xml(tmp_path, "00001", an_object())
    with pytest.raises(DatasetError, match=r"val\.txt does not exist"):
        dior_rsvg.read(tmp_path, "val")
    (tmp_path / "val.txt").write_text("0\n1\n")
    with pytest.raises(DatasetError, match=r"line 2: '1' is not the number of an object \(there are 1\)"):
        dior_rsvg.read(tmp_path, "val")

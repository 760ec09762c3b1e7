from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from dataset_tools.errors import DatasetError
from dataset_tools.label_studio.image_folders import FolderImage, read_expressions, read_folder


def pictures(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(folder / name)
    return folder


def words(folder: Path, text: str, name: str = "words.csv", *everywhere: str) -> tuple[dict[str, list[str]], list[str]]:
    """Expressions by image, and what was left out."""
    file = folder.parent / name
    file.write_text(text, encoding="utf-8")
    left: list[str] = []
    images = read_folder(folder, read_expressions(file), everywhere, left.append)
    return {image.name: list(image.expressions) for image in images}, left


@pytest.mark.parametrize(
    "text",
    [
        'image,expression\na.png,the ship\nharbor/b.png,"the pier, the long one"\na.png,all the cars\n',
        "\ufeffFile_Name;Sentence;note\r\na.png;the ship;x\r\nharbor/b.png;the pier, the long one;\r\n\r\n"
        "a.png;all the cars;\r\n",
        "image\texpression\na.png\tthe ship\nharbor\\b.png\tthe pier, the long one\na.png\tall the cars\n"
        "a.png\tthe ship\n",
    ],
    ids=["commas", "semicolons", "tabs"],
)
def test_rows_of_a_csv_file(tmp_path: Path, text: str) -> None:
    found, left = words(pictures(tmp_path / "photos", "a.png", "harbor/b.png", "c.jpg"), text)
    assert found == {"a.png": ["the ship", "all the cars"], "c.jpg": [], "harbor/b.png": ["the pier, the long one"]}
    assert left == []


def test_rows_of_a_jsonl_file_and_expressions_for_every_image(tmp_path: Path) -> None:
    rows = [{"image": "a", "expression": ["the ship", " the car "]}, {"image": "b.png"}]
    text = "\n".join(map(json.dumps, rows)) + "\n\n"
    found, left = words(pictures(tmp_path / "photos", "a.png", "b.png"), text, "words.jsonl", "the ship", "the pool")
    assert found == {"a.png": ["the ship", "the car", "the pool"], "b.png": ["the ship", "the pool"]}
    assert left == []


def test_an_image_is_never_guessed(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "train", "1.png", "x/2.png", "y/2.png")
    text = "image,expression\ntrain/1.png,one\ntest/1.png,other\n2.png,which\ny/2.png,this\nno.png,none\n"
    found, left = words(folder, text)
    assert found == {"1.png": ["one"], "x/2.png": [], "y/2.png": ["this"]}
    assert left == [
        f"words.csv line 3: there is no image 'test/1.png' in {folder}",
        "words.csv line 4: '2.png' may be x/2.png, y/2.png; write the path below the folder",
        f"words.csv line 6: there is no image 'no.png' in {folder}",
    ]


def test_expressions_of_a_scene_go_to_all_its_tiles(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "tiles", "city_0_0.png", "city_0_8.png", "port_0_0.png", "other.png")
    tiles = [
        {"file_name": f"{scene}_0_{y}.png", "scene": scene, "source": f"{scene}.tif", "scene_size": [8, 14],
         "window": [0, y, 8, 6], "bands": [1, 2, 3], "stretch": None, "gsd": None, "crs": "EPSG:32633",
         "transform": [1.0, 0.0, 5.0, 0.0, -1.0, 9.0 - y]}
        for scene, y in (("city", 0), ("city", 8), ("port", 0))
    ]  # fmt: skip
    (folder / "tiles.jsonl").write_text("".join(json.dumps(line) + "\n" for line in tiles))
    text = "scene,expression\ncity,the tallest building\ndata/port.tif,all the ships\ncity_0_8.png,the pool\n"
    found, left = words(folder, text)
    assert left == []
    assert found == {
        "city_0_0.png": ["the tallest building"],
        "city_0_8.png": ["the tallest building", "the pool"],
        "other.png": [],
        "port_0_0.png": ["all the ships"],
    }
    by_name = {image.name: image for image in read_folder(folder, [], [], left.append)}
    assert by_name["city_0_8.png"] == FolderImage(
        folder / "city_0_8.png", "city_0_8.png", (), "city",
        {"window": [0, 8, 8, 6], "scene_size": [8, 14], "crs": "EPSG:32633",
         "transform": [1.0, 0.0, 5.0, 0.0, -1.0, 1.0]},
    )  # fmt: skip
    assert (by_name["other.png"].scene, by_name["other.png"].tile) == (None, {})


def test_files_that_browsers_do_not_show_are_named(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos", "a.png", ".hidden/b.png")
    for name in ("scene.tif", "phone.heic", "read.me"):
        (folder / name).write_bytes(b"x")
    left: list[str] = []
    assert [image.name for image in read_folder(folder, [], [], left.append)] == ["a.png"]
    assert len(left) == 2
    assert "phone.heic: Label Studio takes no .heic files" in left[0]
    assert "pslg dataset tile scene.tif" in left[1]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("w.csv", "a.png,the ship\n", "first line must name the columns, as image,expression; it is 'a.png,the ship'"),
        ("w.csv", "image,expression\na.png,the ship, the long one\n", "line 2 has more cells than the first line"),
        ("w.csv", "image,expression\n,the ship\n", "line 2 names no image"),
        ("w.csv", 'image,expression\na.png,"the ship\n', "is no CSV"),
        ("w.jsonl", '{"image": "a.png"\n', "line 1 is no JSON"),
        ("w.jsonl", '["a.png"]\n', "line 1 is no object"),
        ("w.jsonl", '{"image": "a.png", "expression": [1]}\n', "an expression is a text or a list of texts, not 1"),
        ("w.txt", "a.png\n", "must end in .csv or .jsonl"),
    ],
)
def test_mistakes_in_the_file_are_explained(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError) as caught:
        read_expressions(tmp_path / name)
    assert message in str(caught.value)


def test_text_of_another_encoding_and_empty_folders_are_explained(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_bytes("image,expression\na.png,gr\u00fcn\n".encode("latin-1"))
    with pytest.raises(DatasetError, match="not UTF-8"):
        read_expressions(tmp_path / "w.csv")
    with pytest.raises(DatasetError, match="holds no image"):
        read_folder(tmp_path, [], [], print)
    with pytest.raises(DatasetError, match="does not exist"):
        read_folder(tmp_path / "no", [], [], print)

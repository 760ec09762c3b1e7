"""Addresses of images as tasks name them, and the files of a folder that they mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset_tools.errors import DatasetError
from dataset_tools.label_studio.images import file_name, image_path, local_file


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/data/local-files/?d=ds\\win.png", "ds/win.png"),
        ("/data/local-files/?d=ds%5Cwin.png", "ds/win.png"),
        ("/data/local-files/?d=C%3A%5Cme%5Cds%5Cwin.png", "me/ds/win.png"),
        ("C:\\me\\ds\\win.png", "me/ds/win.png"),
        ("ds\\win.png", "ds/win.png"),
        ("azure_spi://store/ds/win.png", "store/ds/win.png"),
        ("azure-blob://store/ds/win.png", "store/ds/win.png"),
        ("s3://store/ds/win.png", "store/ds/win.png"),
    ],
)
def test_paths_of_windows_and_of_every_storage_find_their_file(location: str, path: str, tmp_path: Path) -> None:
    file = tmp_path / path.removeprefix("store/")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert image_path(location) == path
    assert file_name(location) == "win.png"
    assert local_file(location, tmp_path) == str(file.resolve())


def test_percent_signs_are_undone_once() -> None:
    assert image_path("/data/upload/1/abcdef12-tile%2520x.png") == "data/upload/1/abcdef12-tile%20x.png"
    assert file_name("/data/upload/1/abcdef12-tile%2520x.png") == "tile%20x.png"
    assert image_path("/data/local-files/?d=ds/tile%2520x.png") == "ds/tile%20x.png"
    assert file_name("/data/upload/1/abcdef12-a.png") == "a.png"


def test_a_malformed_address_is_named() -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        image_path("http://[bad/x.png")

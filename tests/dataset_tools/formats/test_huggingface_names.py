"""A downloaded dataset writes nothing outside of its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset_tools.errors import DatasetError
from dataset_tools.formats import huggingface

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.mark.parametrize("name", ["../../stolen", "{outside}/stolen", "a/../../stolen", "..\\stolen"])
def test_no_file_is_written_outside_of_the_folder(tmp_path: Path, name: str) -> None:
    root = tmp_path / "outer" / "dataset"
    (root / "data").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    row = {"file_name": name.format(outside=outside), "image": {"bytes": b"x", "path": "x"}, "refs": []}
    parquet.write_table(pyarrow.Table.from_pylist([row]), root / "data" / "train-00000-of-00001.parquet")
    with pytest.raises(DatasetError, match="leads out of the folder"):
        list(huggingface.read(root))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["train-00000-of-00001.parquet"]

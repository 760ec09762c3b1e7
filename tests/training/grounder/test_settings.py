"""Settings of the grounder's training: what is misspelt is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.training.grounder.settings import check_settings, without_left_out
from backend.training.grounder.training import load_sources
from backend.training.run import load_recipe
from dataset_tools.errors import ConfigError

FOLDER = Path(__file__).resolve().parents[3] / "backend" / "weights" / "compact_grounder"


@pytest.mark.parametrize("file", sorted(FOLDER.glob("train*.yaml")), ids=lambda file: file.name)
def test_shipped_configs_are_right(file: Path) -> None:
    check_settings(load_recipe(file))


@pytest.mark.parametrize(
    ("section", "wrong", "value", "message"),
    [
        ((), "batchsize", 8, "no setting 'batchsize': did you mean 'batch_size'?"),
        (("augmentation",), "mosaik", 0.1, "augmentation has no setting 'mosaik': did you mean 'mosaic'?"),
        (("detector",), "pyramid_widht", 64, "no setting 'pyramid_widht'"),
        (("sources", "isaid"), "shares", 0.1, "sources: isaid has no setting 'shares': did you mean 'share'?"),
        (("validation", "nwpu"), "scenes", 3, "validation: nwpu needs a folder of images or a number of drawn scenes"),
    ],
)
def test_a_wrong_key_is_named(section: tuple[str, ...], wrong: str, value: Any, message: str) -> None:
    values = load_recipe(FOLDER / "train.yaml")
    place = values
    for name in section:
        place = place[name]
    place[wrong] = value
    with pytest.raises(ConfigError) as caught:
        check_settings(values)
    assert message in str(caught.value)


def test_a_missing_key_is_named() -> None:
    values = load_recipe(FOLDER / "train.yaml")
    del values["seed"]
    with pytest.raises(ConfigError, match="needs the setting 'seed'"):
        check_settings(values)


def test_left_out_categories_are_unknown_everywhere() -> None:
    values = load_recipe(FOLDER / "train.yaml", ["leave_out=[airplane, vehicle]"])
    check_settings(values)
    settled = without_left_out(values)
    names = settled["detector"]["categories"]
    assert not {"airplane", "vehicle", "small vehicle", "large vehicle"} & set(names)
    assert "ship" in names
    sets = [*settled["sources"].values(), *settled["validation"].values()]
    assert all(one["unlabelled"]["airplane"] == one["unlabelled"]["vehicle"] == 0 for one in sets)
    assert "airplane" not in (values["sources"]["nwpu"].get("unlabelled") or {}), "the recipe itself stays"


def test_left_out_objects_are_in_no_set(tmp_path: Path) -> None:
    section = {"drawn": {"scenes": 6, "seed": 3}}
    whole = load_sources(section, tmp_path, 512)[0].images
    there = {item.category for image in whole for item in image.objects}
    gone = sorted(there)[0]
    left = load_sources(section, tmp_path, 512, [gone])[0].images
    assert {item.category for image in left for item in image.objects} == there - {gone}


def test_a_misspelt_left_out_category_is_named() -> None:
    with pytest.raises(ConfigError, match="'aeroplane' is no canonical category"):
        check_settings(load_recipe(FOLDER / "train.yaml", ["leave_out=[aeroplane]"]))

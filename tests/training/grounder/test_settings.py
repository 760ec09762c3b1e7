"""Settings of the grounder's training: what is misspelt is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.training.grounder.settings import check_settings
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

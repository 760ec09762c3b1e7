"""The labeling configs that are written: colours that are read and seen, keys that are free, labels that are found."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from defusedxml.ElementTree import fromstring

from backend.cli import pslg
from backend.labeling_config_xml import COLORS, GROUNDS, HOTKEYS, SHIPPED, ConfigLabel, labeling_config_xml
from backend.labeling_configs import labeling_config_names, read_labeling_config
from backend.server.editor.labeling_config import parse_labeling_config
from dataset_tools.errors import ConfigError
from dataset_tools.expressions.more_like import more_like

TOOLS = set("behkmopruvw")
"""Keys of the editor's tools (keymap of Label Studio 1.23.2)."""
Rgb = npt.NDArray[np.float64]


def rgb(color: str) -> Rgb:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], np.float64)


def contrast_on_white(color: str) -> float:
    """WCAG 2.1's contrast ratio."""
    part = rgb(color) / 255
    linear = np.where(part <= 0.03928, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return float(1.05 / (linear @ np.array((0.2126, 0.7152, 0.0722)) + 0.05))


def lab(color: Rgb) -> Rgb:
    pixel = (color / 255).astype(np.float32).reshape(1, 1, 3)
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_RGB2LAB).reshape(3), np.float64)


def test_shipped_files_are_what_the_generator_writes() -> None:
    assert labeling_config_names() == sorted(SHIPPED)
    for name, write in SHIPPED.items():
        assert read_labeling_config(name) == write(), f"pslg labeling-config --shipped {name} writes another one"


def test_colors_can_be_read_as_text_and_seen_as_masks() -> None:
    assert min(map(contrast_on_white, COLORS)) >= 4.5
    for ground, under in GROUNDS.items():
        for color in COLORS:  # masks are drawn at half opacity
            mixed = (rgb(color) + np.array(under)) / 2
            distance = np.linalg.norm(lab(mixed) - lab(np.array(under, np.float64)))
            assert distance >= 20, f"{color} on {ground}: {distance:.0f}"


def test_no_two_colors_look_alike() -> None:
    labs = np.stack([lab(rgb(color)) for color in COLORS])
    apart = np.linalg.norm(labs[:, None] - labs[None], axis=2) + 1000 * np.eye(len(labs))
    assert apart.min() >= 20


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_keys_pick_only_labels_to_click_with_and_no_tool(name: str) -> None:
    root = fromstring(read_labeling_config(name))
    keys: dict[str, list[str]] = {}
    for control in root.iter():
        if control.tag.endswith("Labels"):
            # A label without a key would be given a free one by Label Studio, a tool's maybe.
            keys[control.tag] = [label.attrib["hotkey"] for label in control.iter("Label")]
    clicked = keys.pop("KeyPointLabels")
    assert len(set(clicked)) == len(clicked)
    assert not TOOLS & set(clicked)
    assert {len(key) for key in clicked} == {1}
    assert {key for others in keys.values() for key in others} == {"ctrl+alt+shift+f19"}


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_more_like_this_is_a_label_to_click_with_and_nothing_else(name: str) -> None:
    root = fromstring(read_labeling_config(name))
    tags = [
        control.tag
        for control in root.iter()
        if control.tag.endswith("Labels")
        for label in control.iter("Label")
        if more_like(label.attrib["value"]) is not None
    ]
    assert tags == ["KeyPointLabels"]


def test_there_is_a_key_for_every_shipped_label() -> None:
    assert not TOOLS & set(HOTKEYS)
    assert len(HOTKEYS) == len(set(HOTKEYS)) >= len(parse_labeling_config(read_labeling_config("rrsisd")).labels)


@pytest.mark.parametrize(
    ("output", "tag"), [("brush", "BrushLabels"), ("polygon", "PolygonLabels"), ("rectangle", "RectangleLabels")]
)
def test_a_config_for_ones_own_labels(output: str, tag: str, tmp_path: Path) -> None:
    file = tmp_path / "own.xml"
    arguments = ["labeling-config", "--labels", "Solar <panel>=solar panel|pv, ship", "--output", output]
    result = CliRunner().invoke(pslg, [*arguments, "--out", str(file)])
    assert result.exit_code == 0, result.output
    config = parse_labeling_config(file.read_text())
    assert [control.tag for control in config.outputs] == [tag]
    assert config.label_for("solar panel") == "Solar <panel>"
    assert config.label_for("ship") == "ship"
    assert config.has_note
    assert config.problems({"ship", "solar panel"}) == ()


@pytest.mark.parametrize("labels", [[], [""], ["ship", "ship"], ["ship", "More like this"]])
def test_labels_that_cannot_work_are_refused(labels: list[str]) -> None:
    with pytest.raises(ConfigError):
        labeling_config_xml([ConfigLabel(label) for label in labels])

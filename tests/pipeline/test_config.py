"""Configs: shipped ones are valid, and a wrong one is told everything that is wrong with it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.pipeline.config import GROUNDERS, SEGMENTERS, PipelineConfig, config_names, load_config
from backend.pipeline.weights import REGISTRY
from dataset_tools.errors import ConfigError
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("name", sorted(path.stem for path in (REPOSITORY / "configs").glob("*.yaml")))
def test_shipped_configs_are_valid_and_name_registered_weights(name: str) -> None:
    config = load_config(name)
    assert config.name == name
    assert config.description
    assert config.grounder.weights is None or config.grounder.weights in REGISTRY
    assert config.segmenter.weights in REGISTRY
    assert config.grounder.tokenizer is None or config.grounder.tokenizer in REGISTRY


@pytest.mark.parametrize("name", sorted(path.stem for path in (REPOSITORY / "configs").glob("*.yaml")))
def test_every_key_of_a_shipped_config_has_a_comment(name: str) -> None:
    for line in (REPOSITORY / "configs" / f"{name}.yaml").read_text().splitlines():
        opens_a_section = line.strip() in ("grounder:", "segmenter:", "options:")
        assert "#" in line or opens_a_section, line


def test_the_contract_s_configs_are_there() -> None:
    wanted = {"compact", "sam_vit_b", "sam_vit_l", "sam_vit_h", "lqvg_sam_vit_h", "grounding_dino_sam_vit_b"}
    assert wanted <= set(config_names())


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_all_problems_are_reported_at_once_with_key_value_and_choices(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
grounder: {kind: oracle, weights: compact_grounder}
segmenter: {kind: compact-sam}
boundary: {enabled: true, bandwidth: 3, max_iterations: 0, skip_categories: [spaceship]}
foreground_points: {foreground: brightest}
device: tpu
""",
    )
    with pytest.raises(ConfigError) as error:
        load_config(path)
    message = str(error.value)
    for part in (
        str(path),
        "grounder.kind",
        "oracle",
        *GROUNDERS,
        "segmenter.weights: missing",
        "boundary.bandwidth: unknown key",
        "max_iterations",
        "boundary.skip_categories",
        "spaceship",
        "airplane",
        "foreground_points.foreground",
        "brightest",
        "border-majority",
        "device",
        "tpu",
    ):
        assert part in message, part
    assert len(message.splitlines()) == 8  # a headline and one line per problem


@pytest.mark.parametrize(
    ("text", "part"), [("a: [1", "cannot read"), ("- 1", "mapping"), ("", "mapping"), ("\x00", "cannot read")]
)
def test_files_that_are_no_mapping_are_refused(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        load_config(write(tmp_path, text))


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match="compact"):
        load_config("compct")
    with pytest.raises(ConfigError, match="no pipeline config at"):
        load_config(Path("nowhere/compact.yaml"))


def test_a_file_of_one_s_own_takes_its_name_and_category_aliases(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
grounder: {kind: compact, weights: /data/mine.safetensors}
segmenter: {kind: compact-sam, weights: compact_segmenter}
boundary: {skip_categories: [baseball diamond, Storage Tanks]}
""",
    )
    config = load_config(path)
    assert config.name == "mine"
    assert config.boundary.skip_categories == ("baseballfield", "storagetank")
    assert not config.boundary.applies_to("storagetank")
    assert config.boundary.applies_to("ship")
    assert config.boundary.applies_to(None)


def test_ablation_switches_stages_off_and_nothing_on() -> None:
    config = load_config("compact")
    assert not config.ablated(boundary=False).boundary.applies_to("airplane")
    assert config.ablated(boundary=False).foreground_points == config.foreground_points
    off = config.ablated(foreground_points=False, boundary=False)
    assert off.ablated() == off


def test_configs_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config("compact").name = "other"


def test_registries_name_functions_that_exist() -> None:
    import importlib

    for target in (*GROUNDERS.values(), *SEGMENTERS.values()):
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_defaults_are_those_of_a_config_without_these_sections() -> None:
    minimal = {
        "name": "m",
        "grounder": {"kind": "compact", "weights": "w"},
        "segmenter": {"kind": "sam", "weights": "w"},
    }
    config = PipelineConfig.model_validate(minimal)
    assert config.foreground_points.enabled
    assert config.boundary.enabled


def test_weights_beside_the_config_are_found_from_anywhere(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "grounder: {kind: compact, weights: ./grounder.safetensors}\n"
        "segmenter: {kind: compact-sam, weights: compact_segmenter}\n",
    )
    config = load_config(path)
    assert config.grounder.weights == str(path.parent / "grounder.safetensors")
    assert config.segmenter.weights == "compact_segmenter"

"""``pslg doctor``: what is missing or will not work, each with what to change."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from backend.pipeline import load_pipeline
from backend.pipeline.config import PipelineConfig, config_names, load_config
from backend.pipeline.costs import seconds_per_image, throughput
from backend.pipeline.options import missing_variables
from backend.pipeline.weights import REGISTRY, how_to_get, locate
from backend.server.label_studio_checks import backend_checks, config_checks, label_studio_checks
from backend.server.local_checks import Check, local_checks
from backend.settings import Settings
from dataset_tools.errors import ConfigError, PslgError

if TYPE_CHECKING:
    from backend.pipeline import PslgSam


@click.command()
@click.option("--config", help="Pipeline config to check. [default: compact]")
@click.option(
    "--labeling-config", multiple=True, help="Labeling config to check: a shipped name or a file. Repeatable."
)
@click.option("--backend-url", help="URL under which Label Studio is to reach the backend; it is called.")
@click.option("--label-studio-url", help="Where Label Studio is, with http:// or https://.")
def doctor(labeling_config: tuple[str, ...], backend_url: str | None, **options: Any) -> None:
    """Check settings, weights, Label Studio's address and token, the connected projects and labeling configs.

    Says of every shipped config whether it can run here, what it lacks, how many seconds an image will take, and under
    which licence its weights are; and which one to take on this machine for the labels of --labeling-config.

    Exit status 1 if there is a problem.
    """
    problems = 0
    for finding in findings(labeling_config, backend_url, options):
        colour = {"ok": "green", "note": "yellow", "problem": "red"}[finding.level]
        click.echo(f"{click.style(finding.level.ljust(8), fg=colour)}{finding.text}")
        problems += finding.level == "problem"
    if problems:
        click.echo(f"{problems} problem(s)")
        sys.exit(1)


def findings(labeling_configs: Collection[str], backend_url: str | None, options: dict[str, Any]) -> Iterator[Check]:
    """Everything that was checked, in the order in which one would repair it."""
    try:
        settings = Settings.load(**options)
    except ConfigError as error:
        yield Check("problem", str(error))
        return
    yield from local_checks(settings)
    known: Collection[str] | None = ()
    measured: dict[str, float] = {}
    _set_threads(settings)
    try:
        pipeline = load_pipeline(settings.config)
        known = pipeline.grounder.known_categories
        finds = "any category" if known is None else ", ".join(sorted(known))
        yield Check("ok", f"models: {pipeline.model_version}; finds: {finds}")
        measured[pipeline.config.name] = _seconds(pipeline)
    except PslgError as error:
        yield Check("problem", f"models of config {settings.config!r}: {error}")
    yield from _configs(measured)
    for name in labeling_configs:
        yield from _labeling_config(name, known)
    yield from _advice(labeling_configs)
    yield from label_studio_checks(settings, known)
    if backend_url is not None:
        yield from backend_checks(backend_url, settings)


def _set_threads(settings: Settings) -> None:
    """As many as the server gives the models."""
    import torch

    torch.set_num_threads(settings.threads_of_models)


def _seconds(pipeline: PslgSam) -> float:
    """Seconds for an expression about a drawn scene of 800 x 800, after one that warms up."""
    from dataset_tools.synthetic import draw_scene

    seconds = 0.0
    for seed in (1, 2):
        scene = draw_scene(seed, width=800, height=800)
        start = time.perf_counter()
        pipeline.prelabel(scene.image, f"the largest {scene.objects[0].category}")
        seconds = time.perf_counter() - start
    return seconds


def _configs(measured: Mapping[str, float]) -> Iterator[Check]:
    """Every shipped config: whether it can run here, what is missing, and how long an image will take."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    speeds = {half: throughput(device, half=half) for half in (False, True)}
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    yield Check("ok", f"{where}: {speeds[False]:.0f} GFLOP/s in float32, {speeds[True]:.0f} in bfloat16")
    for name in config_names():
        config = load_config(name)
        missing = _missing(config)
        text = f"config {name}: {'not ready: ' + '; '.join(missing) if missing else 'ready'}"
        expected = seconds_per_image(config, speeds)
        if name in measured:
            text += f"; {measured[name]:.2f} s for an expression (measured)"
        elif expected is not None:
            text += f"; about {expected:.{0 if expected >= 10 else 1}f} s per image (estimated)"
        if licences := _licences(config):
            text += f"; licence of weights: {', '.join(licences)}"
        yield Check("note" if missing else "ok", text)


def _licences(config: PipelineConfig) -> list[str]:
    """The licences of a config's weights, each once."""
    named = (config.grounder.weights, config.segmenter.weights)
    return list(dict.fromkeys(REGISTRY[name].licence for name in named if name is not None and name in REGISTRY))


def _advice(labeling_configs: Collection[str]) -> Iterator[Check]:
    """Which config to take on this machine for these labels."""
    import torch

    from backend.labeling_configs import read_config
    from backend.server.editor.labeling_config import parse_labeling_config

    try:
        known = load_pipeline("compact").grounder.known_categories or frozenset()
        parsed = [parse_labeling_config(read_config(name)) for name in labeling_configs]
    except PslgError:
        return  # said above
    labels = [label for config in parsed if not config.takes_any_category for label in config.labels]
    beyond = [label.stored for label in labels if not label.categories.intersection(known)]
    named = f": it finds {len(labels) - len(beyond)} of {len(labels)} labels" if labels else ""
    yield Check("ok", f"which config: compact needs nothing{named} (docs/configs.md compares all)")
    if not beyond:
        return
    others = (
        "sam3 (SAM License) or grounding_dino_sam_vit_b (Apache-2.0)"
        if torch.cuda.is_available()
        else "grounding_dino_sam_vit_b with patience (this machine has no GPU), vlm_compact with an endpoint elsewhere,"
        " or accepted masks of your own (`pslg train project`)"
    )
    yield Check(
        "note", f"which config: for {', '.join(beyond[:12])}{', ...' if len(beyond) > 12 else ''} take {others}"
    )


def _missing(config: PipelineConfig) -> list[str]:
    """What has to be placed or installed before ``config`` can run."""
    wanted = (config.grounder.weights, config.segmenter.weights, config.grounder.tokenizer)
    missing = [f"no {name} ({how_to_get(name)})" for name in wanted if name and not locate(name).exists()]
    for section in (config.grounder, config.segmenter):
        missing += [f"the environment variable {name} is not set" for name in missing_variables(section.options)]
    if config.segmenter.engine == "openvino" and find_spec("openvino") is None:
        missing.append("no package openvino (pip install 'pslg-sam[openvino]')")
    if config.segmenter.weights == "edgetam" and find_spec("timm") is None:
        missing.append("no package timm (pip install 'pslg-sam[timm]')")
    return missing


def _labeling_config(name: str, known: Collection[str] | None) -> Iterator[Check]:
    from backend.labeling_configs import read_config
    from backend.server.editor.labeling_config import parse_labeling_config

    try:
        config = parse_labeling_config(read_config(name))
    except PslgError as error:
        yield Check("problem", f"labeling config {name!r}: {error}")
        return
    yield from config_checks(f"labeling config {name!r}", config, known)

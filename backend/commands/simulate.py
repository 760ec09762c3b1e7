"""``pslg simulate``."""

from __future__ import annotations

from pathlib import Path

import click

from backend.commands.options import data_option
from dataset_tools.shared_options import bands_option


@click.command("simulate")
@data_option
@bands_option
@click.option("--pool", default="train", show_default=True, help="Split whose tasks are labelled.")
@click.option("--test", default="test", show_default=True, help="Split that measures; nothing is learnt from it.")
@click.option(
    "--base-grounder", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, help="Weights file."
)
@click.option(
    "--base-segmenter", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, help="The same."
)
@click.option("--config", default="compact", show_default=True, help="Pipeline config: stages after the grounder.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the results.")
@click.option("--strategies", default="random,uncertainty,balance,mix", show_default=True, help="Comma separated.")
@click.option("--rounds", type=click.IntRange(min=1), default=6, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Repetitions of each strategy.")
@click.option("--labels", type=click.IntRange(min=1), default=20, show_default=True, help="Tasks labelled per round.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--features", type=click.Path(file_okay=False, path_type=Path), help="Where features are kept.")
@click.option(
    "--words",
    default="",
    help="CATEGORY=WORD,...: these categories go by these words, which no lexicon holds, and the base grounder must not"
    " use what it knows of them.",
)
@click.option(
    "--table",
    "as_table",
    is_flag=True,
    help="Measure a new category after 1, 5, 10 and 40 objects and the time of a training, too; print every goal.",
)
@click.option("--full", is_flag=True, help="Every test task, every candidate, longer training: ten times the time.")
@click.option("--quick", is_flag=True, help="Next to no training: whether it runs, in seconds.")
@click.option("--resume", is_flag=True, help="Go on with what --out holds.")
def simulate(
    data: Path,
    pool: str,
    test: str,
    base_grounder: Path,
    base_segmenter: Path,
    config: str,
    out: Path,
    strategies: str,
    rounds: int,
    seeds: int,
    labels: int,
    threads: int,
    features: Path | None,
    words: str,
    as_table: bool,
    full: bool,
    quick: bool,
    resume: bool,
) -> None:
    """Simulate active learning: what would each strategy gain, label by label?

    An oracle that knows the masks labels the tasks of --pool in the order of each strategy, the models learn after
    every round, and --test measures. Categories that the base grounder does not know are learnt from the labels.
    Writes OUT/results.json and OUT/curves.png.
    """
    import torch

    from backend.learning.simulation.goals import measured_goals
    from backend.learning.simulation.report import write_report
    from backend.learning.simulation.run import Simulation, SimulationSettings
    from backend.learning.simulation.words import read_words, renamed
    from backend.learning.simulation.world import World
    from backend.pipeline.config import load_config
    from backend.pipeline.grounding.compact.detector_file import load_detector, save_without
    from backend.pipeline.segmentation.compact_sam import load_compact_segmenter
    from backend.training.adapter.views import FeatureCache
    from dataset_tools.errors import ConfigError
    from dataset_tools.labelled import read

    if (out / "settings.json").exists() and not resume:
        raise ConfigError(f"{out} already holds a simulation: continue it with --resume or choose another --out")
    torch.set_num_threads(threads)
    called = read_words(words)
    settings = SimulationSettings(tuple(strategies.split(",")), rounds, seeds, labels, words=called)
    settings = settings.quick() if quick else settings.full() if full else settings
    detector, calibration = load_detector(base_grounder)
    if seen := sorted(called.keys() & set(detector.config.categories)):
        # Weights that never saw them are what this is about (``leave_out`` in a recipe): these flatter.
        click.echo(f"the base grounder knows {', '.join(seen)}: its outputs for them are taken out, its features stay")
        out.mkdir(parents=True, exist_ok=True)
        save_without(base_grounder, seen, out / "base_grounder.safetensors")
        base_grounder = out / "base_grounder.safetensors"
        detector, calibration = load_detector(base_grounder)
    cache = FeatureCache(detector, features or out / "features")
    configured = load_config(config)
    options = configured.segmenter.options if configured.segmenter.kind == "compact-sam" else {}
    world = World(cache, calibration, load_compact_segmenter(base_segmenter, **options), configured)
    known = frozenset(detector.config.categories)
    images = {split: [renamed(image, called) for image in read(data, split)] for split in (pool, test)}
    simulation = Simulation(world, images[pool], images[test], known, out, settings, click.echo)
    simulation.run()
    named = {item.category for image in images[test] for item in image.objects}
    report = write_report(out, sorted(named - known))
    for goal, figures in report["goals"].items():
        click.echo(f"{goal}: " + ", ".join(f"{name} {value}" for name, value in figures.items()))
    if as_table:
        weights = {"grounder": base_grounder, "segmenter": base_segmenter}
        click.echo("\n".join(measured_goals(simulation, images[pool], images[test], weights)))
    click.echo(f"wrote {out / 'results.json'} and {out / 'curves.png'}")

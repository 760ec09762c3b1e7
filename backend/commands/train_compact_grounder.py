"""``pslg train compact-grounder``."""

from __future__ import annotations

from pathlib import Path

import click

from backend.commands.options import datasets_option
from dataset_tools.bands_option import bands_option

TRAIN_CONFIG = Path(__file__).resolve().parents[1] / "weights" / "compact_grounder" / "train.yaml"


@click.command("compact-grounder")
@datasets_option
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), default=TRAIN_CONFIG, show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the config.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default="runs/compact_grounder", show_default=True
)
@click.option("--steps", type=click.IntRange(min=1), default=1800, show_default=True, help="Total number of steps.")
@click.option("--threads", type=click.IntRange(min=1), default=None, help="CPU threads; default: torch's choice.")
@bands_option
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
def compact_grounder(
    data: Path, config: Path, overrides: tuple[str, ...], out: Path, steps: int, threads: int | None, resume: bool
) -> None:
    """Train the compact grounder's detector; writes OUT/best.safetensors, OUT/model.safetensors and curves.

    best.safetensors holds the averaged weights in fp32, model.safetensors the same in fp16 with thresholds chosen on
    the validation images (and the training images, if the config says so): the file that `load_compact_grounder`
    reads.
    """
    import torch

    from backend.training.grounder.evaluation import evaluate_detector
    from backend.training.grounder.training import load_sources, train
    from backend.training.run import load_recipe

    if threads is not None:
        torch.set_num_threads(threads)
    values = load_recipe(config, overrides)
    images = [
        image for source in load_sources(values["validation"], data, values["max_side"]) for image in source.images
    ]
    train(
        values,
        load_sources(values["sources"], data, values["max_side"]),
        out,
        steps,
        lambda detector: evaluate_detector(detector, images, values["scales"], bfloat16=values["bfloat16"]),
        resume,
    )
    from backend.training.grounder.calibration import export

    if values["calibrate_on_training"]:
        real = {name: source for name, source in values["sources"].items() if "folder" in source}
        images += [image for source in load_sources(real, data, values["max_side"]) for image in source.images]
    click.echo(f"wrote {export(out, values, images)}")

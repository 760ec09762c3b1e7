"""``pslg train compact-segmenter``."""

from __future__ import annotations

from pathlib import Path

import click

from backend.commands.options import datasets_option, device_option, minutes_option, workers_option
from dataset_tools.shared_options import bands_option

CONFIG = Path(__file__).resolve().parents[1] / "weights" / "compact_segmenter" / "train.yaml"


@click.command("compact-segmenter")
@datasets_option
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the run.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=CONFIG,
    show_default="the shipped weights' train.yaml",
    help="Training config.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key of the config.")
@minutes_option
@device_option
@workers_option
@bands_option
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint.")
def compact_segmenter(
    data: Path,
    out: Path,
    config_path: Path,
    overrides: tuple[str, ...],
    minutes: float | None,
    device: str,
    workers: int,
    resume: bool,
) -> None:
    """Train the compact promptable segmenter (stage 2).

    The best weights by validation are written to OUT/model.safetensors in half precision, as the pipeline loads them.
    """
    from backend.training.processes import device_of
    from backend.training.run import load_recipe
    from backend.training.segmenter.run import run_segmenter_training

    weights = run_segmenter_training(
        data,
        out,
        load_recipe(config_path, overrides),
        resume,
        minutes=minutes,
        device=device_of(device),
        workers=workers,
    )
    click.echo(f"weights: {weights}")

"""``pslg train lqvg``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from backend.commands.options import data_option, device_option
from dataset_tools.shared_options import bands_option

CONFIGS = Path(__file__).resolve().parents[1] / "training" / "lqvg"


@click.command("lqvg")
@data_option
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder with roberta-base's vocab.json and merges.txt.",
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the run.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=CONFIGS / "lqvg.yaml",
    show_default="the paper's recipe; backend/training/lqvg/lqvg_reduced.yaml is a small one",
    help="Training config.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key of the config.")
@click.option("--split", default="train", show_default=True, help="Split to train on.")
@click.option("--validation-split", default="val", show_default=True, help="Split that selects the best weights.")
@device_option
@bands_option
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint.")
def lqvg(
    data: Path,
    tokenizer: Path,
    out: Path,
    config_path: Path,
    overrides: tuple[str, ...],
    split: str,
    validation_split: str,
    device: str,
    resume: bool,
) -> None:
    """Train LQVG, the paper's coarse localization network (stage 1).

    The best weights by validation are written to OUT/lqvg.pth, in the layout of the published file.

    On several GPUs: torchrun --nproc-per-node 2 -m backend train lqvg ...
    """
    from backend.training.lqvg.run import run_lqvg_training
    from backend.training.run import load_recipe

    weights = run_lqvg_training(
        data,
        tokenizer,
        out,
        load_recipe(config_path, overrides),
        split=split,
        validation_split=validation_split,
        device=device,
        resume=resume,
    )
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes the first writes the file
        click.echo(f"weights: {weights}")

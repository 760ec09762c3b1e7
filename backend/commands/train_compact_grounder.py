"""``pslg train compact-grounder``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backend.commands.options import datasets_option, device_option, minutes_option, workers_option
from dataset_tools.shared_options import bands_option

if TYPE_CHECKING:
    from backend.training.grounder.data import TrainingImage

TRAIN_CONFIG = Path(__file__).resolve().parents[1] / "weights" / "compact_grounder" / "train.yaml"


@click.command("compact-grounder")
@datasets_option
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), default=TRAIN_CONFIG, show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the config.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default="runs/compact_grounder", show_default=True
)
@click.option("--steps", type=click.IntRange(min=1), default=5200, show_default=True, help="Total number of steps.")
@minutes_option
@device_option
@workers_option
@click.option("--threads", type=click.IntRange(min=1), default=None, help="CPU threads; default: torch's choice.")
@bands_option
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
@click.option("--export-only", is_flag=True, help="Choose thresholds for OUT/best.safetensors anew; no training.")
def compact_grounder(
    data: Path,
    config: Path,
    overrides: tuple[str, ...],
    out: Path,
    steps: int,
    minutes: float | None,
    device: str,
    workers: int,
    threads: int | None,
    resume: bool,
    export_only: bool,
) -> None:
    """Train the compact grounder's detector; writes OUT/best.safetensors, OUT/model.safetensors and curves.

    best.safetensors holds the averaged weights in fp32, model.safetensors the same in fp16 with thresholds chosen on
    the images of the config's `calibration` (default: `validation`, and the training images if the config says so): the
    file that `load_compact_grounder` reads.
    """
    import torch

    from backend.training.grounder.calibration import export
    from backend.training.grounder.evaluation import evaluate_detector
    from backend.training.grounder.settings import check_settings, without_left_out
    from backend.training.grounder.training import CRITERION, load_sources, train
    from backend.training.processes import device_of
    from backend.training.run import TrainingRun, load_recipe

    if threads is not None:
        torch.set_num_threads(threads)
    values = load_recipe(config, overrides)
    check_settings(values)
    values = without_left_out(values)
    left_out = values.get("leave_out") or ()

    def images_of(section: dict[str, Any]) -> dict[str, list[TrainingImage]]:
        found = load_sources(section, data, values["max_side"], left_out, workers)
        return {name: source.images for name, source in zip(section, found, strict=True)}

    if not export_only:
        run = TrainingRun(out, values, criterion=CRITERION, resume=resume)  # refused before minutes of decoding
        sets = images_of(values["validation"])
        train(
            run,
            values,
            load_sources(values["sources"], data, values["max_side"], left_out, workers),
            None if minutes is not None else steps,
            lambda detector: evaluate_detector(detector, sets, values["scales"], bfloat16=values["bfloat16"]),
            minutes=minutes,
            device=device_of(device),
            workers=workers,
        )
    chosen = dict(values.get("calibration") or values["validation"])
    if values.get("calibrate_on_training"):
        chosen |= {f"training {name}": source for name, source in values["sources"].items() if "folder" in source}
    images = [image for found in images_of(chosen).values() for image in found]
    click.echo(f"wrote {export(out, values, images)}")

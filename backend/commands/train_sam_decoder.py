"""``pslg train sam-decoder``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backend.commands.options import data_option
from dataset_tools.shared_options import bands_option

if TYPE_CHECKING:
    from backend.training.decoder.training import DecoderOptions


@click.command("sam-decoder")
@click.option("--config", default="compact", show_default=True, help="Pipeline config whose segmenter is tuned.")
@data_option
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the run.")
@click.option("--split", default="train", show_default=True, help='Split to train on; "" takes every image.')
@click.option(
    "--validation",
    default="val",
    show_default=True,
    help='Split that selects the best weights; "" holds some of the training images out.',
)
@click.option(
    "--share", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True, help="Of the masks."
)
@click.option(
    "--views",
    type=click.IntRange(0),
    help="Augmented views per object, or per image for ViT. [default: 4; ViT: 0, each costs an embedding]",
)
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Stop after this time.")
@click.option("--threads", type=click.IntRange(1), help="Threads of torch.")
@click.option(
    "--embeddings",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of embeddings, for several runs together. [default: OUT/embeddings]",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Another training option, e.g. steps=400.")
@bands_option
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint.")
def sam_decoder(
    config: str,
    data: Path,
    out: Path,
    split: str,
    validation: str,
    share: float,
    views: int | None,
    minutes: float | None,
    threads: int | None,
    embeddings: Path | None,
    overrides: tuple[str, ...],
    resume: bool,
) -> None:
    """Fine-tune a segmenter's mask decoder on masks, its encoder frozen (the paper's optional step).

    Works for the compact segmenter and for segment-anything's ViT-B, ViT-L and ViT-H. OUT/pipeline.yaml is a config
    with the tuned weights: pslg evaluate --config OUT/pipeline.yaml, pslg serve --config OUT/pipeline.yaml.
    """
    from backend.training.decoder.run import run_decoder_training

    path, tuned = run_decoder_training(
        config,
        data,
        out,
        _options(minutes, overrides),
        split=split or None,
        validation=validation or None,
        share=share,
        views=views,
        threads=threads,
        embeddings=embeddings,
        resume=resume,
    )
    if tuned.before:
        names = ("box_iou", "jittered_iou", "click_1_iou", "click_3_iou")
        click.echo(", ".join(f"{name} {tuned.before[name]:.3f} -> {tuned.after[name]:.3f}" for name in names))
    click.echo(f"config: {path}")


def _options(minutes: float | None, overrides: tuple[str, ...]) -> DecoderOptions:
    import yaml

    from backend.training.decoder.training import DecoderOptions
    from dataset_tools.errors import ConfigError

    known = sorted(field.name for field in fields(DecoderOptions))
    values: dict[str, Any] = {"minutes": minutes}
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or key not in known:
            raise ConfigError(f"--set {override!r} must read key=value with one of {', '.join(known)}")
        values[key] = yaml.safe_load(value)
    if "rounds" in values:
        values["rounds"] = tuple(values["rounds"])
    return DecoderOptions(**values)

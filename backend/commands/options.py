"""What the commands share: options with one meaning everywhere, and writing a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from backend.pipeline.types import Image

F = TypeVar("F", bound=Callable[..., Any])

MAX_PIXELS = 100_000_000
"""Of a picture that a command is given to look at."""
PICTURES = (".png", ".jpg", ".jpeg")


def check_picture_path(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Option callback: refuse a picture's path of an unknown type before any work is done."""
    if path is not None and path.suffix.lower() not in PICTURES:
        raise click.BadParameter(f"{path.name!r} must end in {' or '.join(PICTURES)}", context, parameter)
    return path


def write_picture(path: Path, picture: Image) -> None:
    """Write uint8[H, W, 3] RGB to a PNG or JPEG file, making its folder."""
    import cv2

    from dataset_tools import atomic

    _, data = cv2.imencode(path.suffix.lower(), picture[..., ::-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, data.tobytes())


data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="A dataset folder in any format that docs/datasets.md lists (coco_jsonl, a REFER root, ...).",
)
"""The dataset that a command measures on or learns from."""
datasets_option = click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder that holds the dataset folders named in the training config, each in any format of docs/datasets.md.",
)
"""Where the datasets of a training config are."""
minutes_option = click.option(
    "--minutes",
    type=click.FloatRange(min=0.1),
    help="Train so long instead of a number of steps, the rate coming down in time: for a machine lent for a while.",
)
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where it learns."
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Processes that read images and draw samples; a GPU wants as many as there are cores.",
)
split_option = click.option(
    "--split", help="A split of the dataset, or a file that lists image names; default: everything."
)


def limit_option(what: str) -> Callable[[F], F]:
    """``--limit`` for a command that measures ``what``."""
    return click.option(
        "--limit", type=click.IntRange(min=1), help=f"Only so many {what}, spread evenly over the dataset."
    )

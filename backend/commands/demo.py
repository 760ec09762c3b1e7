"""``pslg demo``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

import click

from dataset_tools.errors import ConfigError


@click.command()
@click.option("--headless", is_flag=True, help="Run through and exit: 0, or 1 with the reason.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A dataset folder with masks and expressions, in any format that is read: 24 tasks of its test split. "
    "Without it: 20 tasks on scenes drawn on the spot.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder for everything the demo writes; every run begins with an empty Label Studio there.",
)
@click.option(
    "--label-studio",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The label-studio program (default: PSLG_LABEL_STUDIO, else .venv-label-studio, see `make label-studio`).",
)
def demo(headless: bool, data: Path | None, out: Path, label_studio: Path | None) -> None:
    """Start a real Label Studio whose tasks carry masks made from their referring expressions.

    Needs no network. Stays up until Ctrl-C. The run on drawn scenes fails (exit status 1) when a prediction is
    missing or malformed, when mIoU is below 0.70, when a present object gets no mask or an absent one gets one; with
    --data only missing and malformed predictions count, since nothing is known about the images.
    """
    try:
        from backend.demo.run import run_demo  # torch and the SDK are for the run, not for --help
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in ("httpx", "label_studio_sdk"):
            raise
        raise ConfigError(
            f"pslg demo sets up a Label Studio of its own with label-studio-sdk, which lacks here ({error.name}):"
            " pip install 'pslg-sam[demo]'"
        ) from error

    signal.signal(signal.SIGTERM, _terminated)  # so that the servers are stopped then, too
    with run_demo(out, data, label_studio) as running:
        summary = running.summary
        click.echo(_figures(running.summary.as_json()))
        for failure in summary.failures:
            click.echo(f"FAILED: {failure}")
        if not headless:
            click.echo(f"\nLabel Studio:  {running.project_url}")
            click.echo(f"Login:         {running.email}  /  {running.password}")
            click.echo("Ctrl-C stops it.")
            try:
                running.wait()
            except KeyboardInterrupt:
                click.echo("\nStopping ...")
    sys.exit(1 if summary.failures else 0)


def _figures(values: dict[str, object]) -> str:
    lines = []
    for name, value in values.items():
        if name != "failures":
            lines.append(f"{name + ':':<18}{f'{value:.3f}' if isinstance(value, float) else value}")
    return "\n".join(lines)


def _terminated(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)

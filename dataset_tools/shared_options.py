"""What ``pslg`` and ``pslg dataset`` commands share: bands of pictures, outlines on maps, what was left out."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

__all__ = ["PARTLY", "SceneSource", "bands_option", "finish", "simplify_option"]

if TYPE_CHECKING:
    _ParamType = click.ParamType[str | Path]
else:  # click before 8.4 knows no types of parameters
    _ParamType = click.ParamType

PARTLY = 2
"""Exit status of a command that did its work but had to leave something out."""
_SHOWN = 20


def _use(context: click.Context, parameter: click.Parameter, text: str | None) -> None:
    """Set PSLG_BANDS until the command ends: worker processes read pictures too."""
    if text is None:
        return
    from dataset_tools.image_files import BANDS, parse_bands

    try:
        parse_bands(text)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None
    before = os.environ.get(BANDS)
    os.environ[BANDS] = text

    def restore() -> None:
        if before is None:
            del os.environ[BANDS]
        else:
            os.environ[BANDS] = before

    context.call_on_close(restore)


bands_option = click.option(
    "--bands",
    metavar="R,G,B",
    callback=_use,
    expose_value=False,
    help="Of images with more than three bands, those to show, counted from 1. [default: PSLG_BANDS, else 1,2,3]",
)
"""For every command that reads pictures."""
simplify_option = click.option(
    "--simplify",
    type=click.FloatRange(0),
    default=0.0,
    metavar="METRES",
    show_default=True,
    help="For outlines on a map (gpkg, geojson): how far they may be from the masks; 0: along the pixels' edges.",
)
"""For every command that writes outlines on a map."""


class SceneSource(_ParamType):
    """A file's path, or the http(s) address of a map file as a text: a path would lose one of its slashes."""

    name = "image"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> str | Path:  # noqa: ARG002 - click's own names
        """``value`` as a path, unless it is an address."""
        from dataset_tools.maps.remote import is_address

        return value if is_address(value) else Path(value)


def finish(left_out: Sequence[str], *, recorded: bool = False) -> None:
    """Say what was left out, and let the exit status say so too; ``recorded``: all of it is in dataset.json."""
    for line in left_out[:_SHOWN]:
        click.echo(f"left out: {line}", err=True)
    if len(left_out) > _SHOWN:
        where = " (all are in dataset.json)" if recorded else ""
        click.echo(f"left out: {len(left_out) - _SHOWN:,} more{where}", err=True)
    if left_out:
        sys.exit(PARTLY)

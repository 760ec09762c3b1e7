"""Options that mean the same in ``pslg`` and ``pslg dataset`` commands: pictures' bands, outlines on maps."""

from __future__ import annotations

import os

import click

__all__ = ["bands_option", "simplify_option"]


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

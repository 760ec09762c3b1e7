"""``pslg dataset``: export, import, check, split, count, draw and tile datasets. Starts without torch."""

from __future__ import annotations

import click

from dataset_tools.commands import convert as cli_convert
from dataset_tools.commands import inspect as cli_inspect


@click.group()
def dataset() -> None:
    """Export, import and check datasets (no torch needed).

    SOURCE is a dataset folder of any format, a JSON export of Label Studio, or the address of a Label Studio.

    Exit status: 0 done, 1 failed, 2 done but something was left out (or, for validate, errors were found).
    """


for _command in (
    cli_convert.export_command,
    cli_convert.import_command,
    cli_inspect.validate_command,
    cli_convert.split_command,
    cli_inspect.stats_command,
    cli_inspect.synth_command,
    cli_convert.propose_command,
    cli_inspect.tile_command,
):
    dataset.add_command(_command)

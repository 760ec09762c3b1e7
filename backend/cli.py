"""The ``pslg`` command: a group whose subcommands are imported when they are called.

``pslg --help`` and ``pslg dataset ...`` therefore start in a fraction of a second and without torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any

import click

from backend import __version__
from dataset_tools.errors import PslgError

# name -> (module, attribute, one-line help). The help stands here so that ``pslg --help`` imports nothing.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("backend.commands.demo", "demo", "Start a real Label Studio with pre-labelled sample tasks."),
    "serve": ("backend.commands.serve", "serve", "Serve the ML backend to Label Studio."),
    "doctor": ("backend.commands.doctor", "doctor", "Say what is missing: weights, tokens, labeling configs."),
    "warm": ("backend.commands.warm", "warm", "Embed the images of tasks before the first click."),
    "prelabel": ("backend.commands.prelabel", "prelabel", "Turn an image and an expression into a mask."),
    "evaluate": ("backend.commands.evaluate", "evaluate", "Measure a config on a dataset (paper's metrics)."),
    "evaluate-clicks": (
        "backend.commands.evaluate_clicks",
        "evaluate_clicks",
        "Count the clicks until a mask is good (NoC).",
    ),
    "calibrate-score": (
        "backend.commands.calibrate_score",
        "calibrate_score",
        "Make scores the probability that a pre-label is accepted.",
    ),
    "weights": ("backend.commands.weights", "weights", "List, fetch and check weight files."),
    "rank": ("backend.commands.rank", "rank", "Say which task of a project to label next."),
    "report": ("backend.commands.report", "report", "Write a page on how the labelling of a project goes."),
    "simulate": ("backend.commands.simulate", "simulate", "Try active-learning strategies on labelled data."),
    "train": ("backend.commands.train", "train", "Train the compact models."),
    "sync": ("backend.commands.sync", "sync", "Fetch the annotations that webhooks missed."),
    "models": ("backend.commands.models", "models", "List, compare, promote and roll back trained versions."),
    "state": ("backend.commands.state", "state", "Back up what the server keeps, and put it back."),
    "import-images": (
        "backend.commands.import_images",
        "import_images_command",
        "Make tasks of a folder of images or tiles, with their expressions.",
    ),
    "labeling-config": ("backend.commands.labeling_config", "labeling_config", "Write a labeling config."),
    "dataset": ("dataset_tools.cli", "dataset", "Export, import and check datasets (no torch needed)."),
}


class LazyGroup(click.Group):
    """A click group that knows its commands' names and help but imports them only to run them.

    Args:
        table: command name -> (module, attribute, one-line help).
    """

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all subcommands in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of ``cmd_name`` and return its click command."""
        if cmd_name not in self.table:
            return None
        module, attribute, _ = self.table[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - a wrong table is a bug of ours
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, _, help_text) in self.table.items()])


@click.group(cls=LazyGroup, table=COMMANDS)
@click.version_option(__version__, prog_name="pslg")
def pslg() -> None:
    """Masks from referring expressions, in Label Studio (PSLG-SAM)."""


def main() -> None:
    """Run ``pslg``; an error of ours ends with its message and exit status 1, not with a traceback."""
    try:
        pslg(standalone_mode=True)
    except PslgError as error:
        click.echo(f"pslg: {error}", err=True)
        sys.exit(1)

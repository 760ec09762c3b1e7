"""``pslg train``: one subcommand per model, each imported only when it is called."""

from __future__ import annotations

import click

from backend.cli import LazyGroup

# name -> (module, attribute, one-line help), as in backend.cli.
TRAINERS: dict[str, tuple[str, str, str]] = {
    "compact-segmenter": (
        "backend.commands.train_compact_segmenter",
        "compact_segmenter",
        "Train the compact promptable segmenter (stage 2).",
    ),
    "compact-grounder": (
        "backend.commands.train_compact_grounder",
        "compact_grounder",
        "Train the compact grounder's detector (stage 1).",
    ),
    "sam-decoder": (
        "backend.commands.train_sam_decoder",
        "sam_decoder",
        "Fine-tune a segmenter's mask decoder on masks (stage 2).",
    ),
    "project": (
        "backend.commands.train_project",
        "project",
        "Train on the accepted masks of a Label Studio project.",
    ),
    "lqvg": ("backend.commands.train_lqvg", "lqvg", "Train LQVG, the paper's grounding network (stage 1)."),
}


@click.group(cls=LazyGroup, table=TRAINERS)
def train() -> None:
    """Train the models of this repository; runs are seeded, logged and resumable."""

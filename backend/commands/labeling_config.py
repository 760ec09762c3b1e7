"""``pslg labeling-config``: a labeling config for one's own labels, or one of the shipped ones."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from backend.labeling_config_xml import SHIPPED, ConfigLabel, Output, labeling_config_xml
from dataset_tools import atomic


@click.command("labeling-config")
@click.option("--labels", help="Labels, separated by commas; label=name|name adds further names of its category.")
@click.option("--shipped", type=click.Choice(sorted(SHIPPED)), help="A config that comes with the project.")
@click.option(
    "--output",
    type=click.Choice(["brush", "polygon", "rectangle"]),
    default="brush",
    show_default=True,
    help="How objects are outlined (with --labels).",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write. [default: stdout]")
def labeling_config(labels: str | None, shipped: str | None, output: str, out: Path | None) -> None:
    """Write a labeling config for Label Studio: with colours, hotkeys, a field for notes and room for the image.

    Paste it under Settings > Labeling Interface > Code.
    """
    if (labels is None) == (shipped is None):
        raise click.UsageError("give either --labels or --shipped")
    if shipped is not None:
        xml = SHIPPED[shipped]()
    else:
        assert labels is not None  # noqa: S101 - checked above
        xml = labeling_config_xml([_label(part) for part in labels.split(",")], cast(Output, output))
    if out is None:
        click.echo(xml, nl=False)
    else:
        atomic.write_text(out, xml)


def _label(text: str) -> ConfigLabel:
    value, _, names = text.partition("=")
    return ConfigLabel(value.strip(), tuple(name.strip() for name in names.split("|") if name.strip()))

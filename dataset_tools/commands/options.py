"""What the commands of ``pslg dataset`` share: options of SOURCE, progress bars, what was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from dataset_tools.errors import DatasetError
from dataset_tools.formats import READ, WRITTEN
from dataset_tools.formats.left_out import LeftOut
from dataset_tools.progress import progress_bar
from dataset_tools.shared_options import bands_option

PATH = click.Path(path_type=Path)
FORMAT = click.Choice(WRITTEN)
SOURCE_FORMAT = click.Choice(READ)
MAP_KINDS = ("gpkg", "geojson", "cog")
"""Map formats (``dataset_tools.maps.files``), named here so that ``--help`` imports none of it."""

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def source_options(command: F) -> F:
    """Options of all commands that read SOURCE."""
    options = [
        click.option("--from", "source_format", type=SOURCE_FORMAT, help="Format of SOURCE; recognised if not given."),
        click.option("--images", type=PATH, help="Folder with the images of a Label Studio export."),
        click.option("--image-key", help="Key of the image in the task data."),
        click.option("--expression-key", default="expression", show_default=True, help="Key of the expression."),
        click.option(
            "--annotators",
            type=click.Choice(["ground-truth", "latest", "agreement", "all"]),
            default="ground-truth",
            show_default=True,
            help="Which annotation of a task counts.",
        ),
        click.option("--agreement", default=0.8, show_default=True, help="Least mean IoU for --annotators agreement."),
        click.option("--hash-annotators", metavar="KEY", help="Replace annotator ids by keyed hashes."),
        click.option("--project", type=int, help="Project id, if SOURCE is the address of a Label Studio."),
        click.option("--api-key", envvar="LABEL_STUDIO_API_KEY", help="Token [env: LABEL_STUDIO_API_KEY]."),
        click.option("--cache", type=PATH, help="Where tasks and images from the API are kept (resumable)."),
        bands_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def open_samples(source: str, options: dict[str, Any]) -> tuple[Any, list[Any]]:
    """(samples, problems) of SOURCE: see ``sources.open_source``; what an address names is fetched first."""
    from dataset_tools import sources
    from dataset_tools.label_studio.import_rules import ImportRules

    problems: list[Any] = []
    rules = ImportRules(
        image_key=options["image_key"],
        expression_key=options["expression_key"],
        annotators=options["annotators"],
        agreement=options["agreement"],
        images=options["images"],
        hash_annotators=options["hash_annotators"],
        predictions=options.get("predictions", False),
        model_version=options.get("model_version"),
    )
    path = Path(source)
    if source.lower().startswith(("http:", "https:")):
        path = _fetch(source, options, problems)
    elif rules.predictions and not path.is_file() and not (path / "fetch.json").is_file():
        raise DatasetError(f"{source} is no project and no export of Label Studio: it holds no predictions")
    samples = sources.open_source(path, options["source_format"], rules, problems, problems.append)
    if options.get("boxes_as_masks"):
        from dataset_tools.formats.coco_rows import as_masks

        return (lambda: map(as_masks, samples())), problems
    return samples, problems


def _fetch(url: str, options: dict[str, Any], problems: list[Any]) -> Path:
    from dataset_tools.label_studio.addresses import Route
    from dataset_tools.label_studio.client import LabelStudio
    from dataset_tools.label_studio.fetch import fetch_images, fetch_tasks

    if options["project"] is None or not options["api_key"]:
        raise DatasetError(f"{url} is a Label Studio: pass --project and --api-key (or set LABEL_STUDIO_API_KEY)")
    try:
        route = Route.from_environment()
    except ValueError as error:
        raise DatasetError(str(error)) from None
    folder = options["cache"] or Path(f"label_studio_project_{options['project']}")
    studio = LabelStudio(url, options["api_key"], route=route)
    with progress_bar("fetching") as progress:
        fetch_tasks(studio, options["project"], folder, progress=progress)
    if options["images"] is None:
        fetch_images(studio, folder, options["image_key"], problems)
    return Path(folder)


def parse_shares(text: str) -> dict[str, float]:
    """Shares of train, val and test from ``0.7,0.1,0.2``."""
    try:
        train, val, test = (float(word) for word in text.split(","))
    except ValueError:
        raise DatasetError(
            f"--shares takes three numbers for train, val and test, as 0.7,0.1,0.2; got {text!r}"
        ) from None
    return {"train": train, "val": val, "test": test}


def counted(items: Iterable[T], progress: Callable[[int], object]) -> Iterator[T]:
    """``items``, with a step of the bar after each."""
    for item in items:
        yield item
        progress(1)


def told(problems: list[Any], *, wordless: bool = True) -> list[str]:
    """What was left out of the source.

    Args:
        problems: ``Problem`` of tasks, ``LeftOut`` of a dataset's rows.
        wordless: whether objects without words are left out, too.
    """
    kinds = ("left-out", "wordless") if wordless else ("left-out",)
    rows = [f"{row.where}: {row.why}" for row in problems if isinstance(row, LeftOut)]
    tasks = [problem for problem in problems if not isinstance(problem, LeftOut)]
    return rows + [
        problem.message if problem.task is None else f"task {problem.task}: {problem.message}"
        for problem in tasks
        if problem.kind in kinds
    ]

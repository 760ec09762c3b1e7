"""``pslg import-images``: a folder of images or tiles becomes tasks of a Label Studio project."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from backend.settings import Settings
from dataset_tools.errors import ConfigError
from dataset_tools.shared_options import finish

if TYPE_CHECKING:
    from dataset_tools.label_studio.client import LabelStudio
    from dataset_tools.label_studio.image_import import TaskKeys


@click.command("import-images")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--expressions",
    "expressions_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV file with the columns image and expression, or JSON Lines with these keys.",
)
@click.option("--expression", "everywhere", multiple=True, help="An expression for every image. Repeatable.")
@click.option("--project", type=int, help="Add to this project.")
@click.option("--new", "title", help="Make a project of this title.")
@click.option(
    "--labeling-config",
    default="compact",
    show_default=True,
    help="With --new: a shipped name or a file, as `pslg labeling-config` writes them.",
)
@click.option("--backend", metavar="URL", help="Connect this backend (as Label Studio reaches it) to the project.")
@click.option(
    "--local-files",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="ROOT",
    help="Upload nothing: Label Studio reads the files itself. ROOT is its LOCAL_FILES_DOCUMENT_ROOT, above FOLDER.",
)
@click.option(
    "--local-files-as",
    metavar="PATH",
    help="With --local-files: what ROOT is called where Label Studio runs, such as a container's /label-studio/files.",
)
@click.option("--label-studio-url", help="Where Label Studio is, with http:// or https://.")
def import_images_command(
    folder: Path,
    expressions_file: Path | None,
    everywhere: tuple[str, ...],
    project: int | None,
    title: str | None,
    labeling_config: str,
    backend: str | None,
    local_files: Path | None,
    local_files_as: str | None,
    **options: Any,
) -> None:
    """Make a task of every image in FOLDER and its subfolders, with the list of its expressions.

    Tiles that `pslg dataset tile` wrote keep their place on the map; their expressions are given per scene. Images
    without an expression are imported, too: their annotators click, or type one.

    A run that was stopped goes on where it was: what the project has already is passed over. Exit status 2 if
    something was left out. The token is LABEL_STUDIO_API_KEY.

    \b
    pslg import-images photos/ --expressions expressions.csv --new "Harbors"
    pslg import-images tiles/ --expression "all the ships" --expression "the largest ship" --project 3
    """
    if (project is None) == (title is None):
        raise click.UsageError("give either --project or --new")
    if local_files_as is not None and local_files is None:
        raise click.UsageError("--local-files-as goes with --local-files")
    from dataset_tools.label_studio.image_folders import read_expressions, read_folder
    from dataset_tools.label_studio.image_import import LocalFiles, import_images
    from dataset_tools.label_studio.projects import connect_backend
    from dataset_tools.progress import progress_bar

    settings = Settings.load(**options)
    studio = settings.require_label_studio("pslg import-images")
    left_out: list[str] = []
    rows = read_expressions(expressions_file) if expressions_file is not None else []
    words = [text.strip() for text in everywhere if text.strip()]
    images = read_folder(folder, rows, words, left_out.append)
    local = None
    if local_files is not None:
        local = LocalFiles(local_files, PurePosixPath(local_files_as or local_files.resolve().as_posix()))
    number, keys = _project(studio, project, title, labeling_config)
    with progress_bar("importing", len(images)) as progress:
        done = import_images(studio, number, folder, images, keys, local, left_out.append, progress)
    click.echo(
        f"project {number}: {done.made:,} tasks made"
        + (f", {done.wordless:,} of them without an expression: no pre-label" if done.wordless else "")
        + (f"; {done.there:,} images were there" if done.there else "")
        + (f", {done.other_words:,} with other expressions, which stay" if done.other_words else "")
    )
    if backend is not None:
        password = settings.basic_auth_password
        credentials = (settings.basic_auth_user or "", password.get_secret_value()) if password is not None else None
        version = connect_backend(studio, number, backend, "PSLG-SAM", credentials)
        click.echo(f"backend connected: {backend} ({version})")
    click.echo(f"{studio.url}/projects/{number}/data")
    finish(left_out)


def _project(studio: LabelStudio, project: int | None, title: str | None, name: str) -> tuple[int, TaskKeys]:
    """The project to import into, made if need be, and where its labeling config reads image and expression."""
    from backend.labeling_configs import read_config
    from backend.server.editor.labeling_config import parse_labeling_config
    from dataset_tools.label_studio.image_import import TaskKeys
    from dataset_tools.label_studio.projects import create_project, project_called

    xml = read_config(name) if project is None else str(studio.project(project).get("label_config") or "")
    config = parse_labeling_config(xml)
    keys = TaskKeys(config.image_key, config.expression_key)
    plain = all(re.fullmatch(r"\w+(\.\w+)*", key) for key in (keys.image, keys.expression))
    if not plain or config.image_value.strip("${} ") != keys.image:
        raise ConfigError(
            f"the labeling config reads its image from {config.image_value!r} and its expression from"
            f" ${keys.expression}; `pslg import-images` fills plain keys such as $image and $expression only"
        )
    if project is not None:
        return project, keys
    assert title is not None  # noqa: S101 - checked by the caller
    there = project_called(studio, title)
    if there is not None:
        raise ConfigError(
            f"there is a project {title!r} already; go on with it (--project {there}) or choose another title"
        )
    number = create_project(studio, title, xml)
    click.echo(f"project {number}: {title} (if this is stopped, go on with --project {number})", err=True)
    return number, keys

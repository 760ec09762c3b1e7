"""The demo's course: data, Label Studio, backend, project, predictions, checks, report."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from tqdm import tqdm

from backend.demo import verification
from backend.demo.backend_process import BackendProcess
from backend.demo.contact_sheet import write_contact_sheet
from backend.demo.label_studio_client import LabelStudioClient
from backend.demo.label_studio_process import LabelStudioProcess, find_program
from backend.demo.sample import sample_questions
from backend.demo.scenes import SEEDS, write_scenes
from backend.demo.verification import Summary, TaskOutcome
from backend.labeling_configs import read_labeling_config
from backend.pipeline import load_pipeline
from dataset_tools import atomic
from dataset_tools.errors import LabelStudioError, PslgError
from dataset_tools.labelled import Question, questions, read_held_out
from dataset_tools.progress import Bar

CONFIG = "compact"
LABELING_CONFIG = "rrsisd"
DRAWN_TASKS, GIVEN_TASKS = 20, 24
MINIMUM_MIOU = 0.70
"""Below this the run on drawn scenes fails. Given images have no such gate: nothing is known about them."""
AT_ONCE = 4
"""Tasks per call of "Retrieve predictions", so that there is progress to show."""


@dataclass(frozen=True)
class Demo:
    """What a finished run left behind.

    Attributes:
        summary: the figures.
        project_url: the project's page in the running Label Studio.
        email, password: the login.
        wait: blocks until one of the two servers ends.
    """

    summary: Summary
    project_url: str
    email: str
    password: str
    wait: Callable[[], None]


@contextlib.contextmanager
def run_demo(folder: Path, data: Path | None, label_studio: Path | None) -> Iterator[Demo]:
    """Run the whole demo; Label Studio and the backend stay up inside the ``with`` block.

    Args:
        folder: takes everything the run writes; what an earlier run left there is replaced.
        data: a dataset folder with masks and expressions, None for scenes drawn on the spot.
        label_studio: the ``label-studio`` program, None looks for it.

    Raises:
        PslgError: a server does not come up, Label Studio refuses a call, or the data cannot be used.
    """
    program = find_program(label_studio)
    with _exclusive(folder):
        for name in ("label-studio", "backend", "scenes"):
            shutil.rmtree(folder / name, ignore_errors=True)
        asked = _asked(folder, data)
        # Before the servers are started: missing weights are reported at once.
        pipeline = load_pipeline(CONFIG)
        label_config = read_labeling_config(LABELING_CONFIG)
        with LabelStudioProcess(program, folder / "label-studio") as studio:
            with _step("Starting Label Studio (the first start sets up its database)") as progress:
                studio.start(progress)
            with (
                contextlib.closing(LabelStudioClient(studio.url, studio.token)) as client,
                BackendProcess(
                    folder / "backend", studio.url, client.personal_access_token(), CONFIG
                ) as backend_process,
            ):
                with _step("Starting the ML backend") as progress:
                    backend_process.start_and_wait(progress)
                project, tasks = _create_project(client, asked, label_config)
                connected = client.connect_backend(project, backend_process.url)
                if connected.model_version != pipeline.model_version:
                    raise LabelStudioError(
                        f"Label Studio knows the backend as version {connected.model_version!r} (state "
                        f"{connected.state}, {connected.error_message}), expected {pipeline.model_version!r}; "
                        f"the backend's log is {backend_process.log}"
                    )
                _retrieve(client, project, list(tasks))
                stored = client.predictions(project)
                outcomes = verification.check_predictions(tasks, stored, pipeline.model_version, label_config)
                with _bar(len(outcomes), "Drawing the contact sheet", "task") as bar:
                    sheet = folder / "contact_sheet.png"
                    write_contact_sheet(sheet, outcomes, pipeline, bar.update)
                summary = _summarize(outcomes, len(stored), pipeline.model_version, sheet, gated=data is None)
                atomic.write_text(folder / "summary.json", json.dumps(summary.as_json(), indent=1) + "\n")
                click.echo(_table(outcomes))
                yield Demo(
                    summary=summary,
                    project_url=f"{studio.url}/projects/{project}/data",
                    email=studio.email,
                    password=studio.password,
                    wait=lambda: _wait_for_end(studio, backend_process),
                )


def _bar(total: int, what: str, unit: str) -> Bar:
    return Bar(total=total, desc=what, unit=unit, mininterval=0.2)


def _asked(folder: Path, data: Path | None) -> list[Question]:
    if data is None:
        with _bar(len(SEEDS), "Drawing scenes", "scene") as bar:
            write_scenes(folder / "scenes", bar.update)
    source = data or folder / "scenes"
    asked = sample_questions(questions(read_held_out(source)), DRAWN_TASKS if data is None else GIVEN_TASKS)
    if not asked:
        raise PslgError(f"{source} has no expressions: the demo needs some, beside the masks that they mean")
    return asked


def _create_project(
    client: LabelStudioClient, asked: list[Question], label_config: str
) -> tuple[int, dict[int, Question]]:
    project = client.create_project("PSLG-SAM demo", label_config)
    paths = sorted({question.image.path for question in asked})
    addresses = {}
    with _bar(len(paths), "Uploading images", "image") as bar:
        for path in paths:
            addresses[path] = client.upload_image(project, path.name, path.read_bytes())
            bar.update()
    data = [{"image": addresses[item.image.path], "expression": item.expression.text} for item in asked]
    ids = client.import_tasks(project, data)
    return project, dict(zip(ids, asked, strict=True))


def _retrieve(client: LabelStudioClient, project: int, tasks: list[int]) -> None:
    with _bar(len(tasks), "Retrieving predictions", "task") as bar:
        for start in range(0, len(tasks), AT_ONCE):
            some = tasks[start : start + AT_ONCE]
            client.retrieve_predictions(project, some)
            bar.update(len(some))


def _summarize(
    outcomes: list[TaskOutcome], predictions: int, model_version: str, sheet: Path, *, gated: bool
) -> Summary:
    failures = [
        f"task {outcome.task} ({outcome.question.expression.text!r}) {problem}"
        for outcome in outcomes
        for problem in outcome.problems
    ]
    if gated:
        failures += verification.quality_failures(outcomes, MINIMUM_MIOU)
    mean_iou, precision_at_50 = verification.present_figures(outcomes)
    return Summary(
        tasks=len(outcomes),
        predictions=predictions,
        model_version=model_version,
        mean_iou=mean_iou,
        precision_at_50=precision_at_50,
        absent_abstained=verification.absent_abstained(outcomes),
        contact_sheet=str(sheet),
        failures=tuple(failures),
    )


def _table(outcomes: list[TaskOutcome]) -> str:
    lines = [f"{'task':>4}  {'kind':<9}{'masks':>5}  {'score':>5}  {'IoU':>5}  expression"]
    for outcome in outcomes:
        iou = "absent" if outcome.iou is None else f"{outcome.iou:.2f}"
        score = "-" if outcome.score is None else f"{outcome.score:.2f}"
        lines.append(
            f"{outcome.task:>4}  {outcome.question.kind:<9}{len(outcome.masks):>5}  {score:>5}  {iou:>6}"
            f" {outcome.question.expression.text}"
        )
    return "\n".join(lines)


def _wait_for_end(studio: LabelStudioProcess, backend_process: BackendProcess) -> None:
    while studio.running and backend_process.running:
        time.sleep(0.5)
    ended = "The ML backend" if studio.running else "Label Studio"
    raise PslgError(
        f"{ended} has ended; its log is in {backend_process.log.parent if studio.running else studio.folder}"
    )


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Keep a second demo from replacing the files of one that is running."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PslgError(f"a demo is running in {folder.resolve()}; stop it, or choose another --out") from None
        yield


@contextlib.contextmanager
def _step(what: str) -> Iterator[Callable[[float], None]]:
    """A line of progress: the step's name, the seconds it has taken, and at last that it is done."""
    began = time.monotonic()
    with tqdm(desc=f"{what} ...", bar_format="{desc}") as line:

        def progress(waited: float) -> None:
            if sys.stderr.isatty():  # in a log file every update would be a line
                line.set_description_str(f"{what} ... {waited:.0f} s")

        progress(0)
        yield progress
        line.set_description_str(f"{what}: {time.monotonic() - began:.0f} s")

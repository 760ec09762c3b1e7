"""One training job from beginning to end, in a process of its own; killed at any moment, it goes on where it was.

read     annotations -> <staging>/training.jsonl, held_out.jsonl: a resumed job learns from exactly these
learn    ``train_project`` into <staging>, resumable by its own checkpoints
judge    ``gate.compare`` with what serves the project now -> <staging>/verdict.json
publish  the staging folder gets the version's name
finish   one transaction: the version is known, promoted if the gate says so, and the job is done
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from backend.learning.annotations.labelled import FetchImage, labelled_images
from backend.learning.annotations.store import AnnotationStore
from backend.learning.retraining.labelled_files import read_labelled, write_labelled
from backend.learning.retraining.replay import Replay, read_replay
from backend.learning.versions.jobs import Job, TrainingJobs, finish
from backend.learning.versions.manifest import Manifest
from backend.learning.versions.registry import (
    CONFIG,
    ModelVersions,
    insert_promotion,
    insert_version,
)
from backend.pipeline.config import config_path
from backend.settings import Settings
from dataset_tools import atomic
from dataset_tools.errors import PslgError
from dataset_tools.label_studio.import_rules import Problem

if TYPE_CHECKING:
    from backend.learning.retraining.project import ProjectTrainingOptions
    from dataset_tools.labelled import LabelledImage

__all__ = ["TrainingRunner"]

logger = logging.getLogger(__name__)
TRAINING, HELD_OUT, VERDICT = "training.jsonl", "held_out.jsonl", "verdict.json"
_READ, _LEARNED = 0.05, 0.85  # shares of the job's progress at which reading and learning end


class _WaitsError(PslgError):
    """There are too few labels to begin."""


class _StoppedError(PslgError):
    """The user stopped the job."""


class TrainingRunner:
    """Runs the jobs of one state folder. The caller holds ``<state>/training.lock``.

    Args:
        settings: the server's.
        store, jobs, versions: of its state folder.
        fetch: gets a task's image.
        sync: brings the store up to Label Studio's state before a job; None without credentials.
    """

    def __init__(
        self,
        settings: Settings,
        store: AnnotationStore,
        jobs: TrainingJobs,
        versions: ModelVersions,
        fetch: FetchImage,
        sync: Callable[[int], object] | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._jobs = jobs
        self._versions = versions
        self._fetch = fetch
        self._sync = sync
        self._config = Path(settings.config).stem
        self._said = -1

    def run(self, job: Job) -> Manifest | None:
        """Run (or go on with) a job; the version that came of it, None if the job failed or was stopped.

        Raises:
            OSError: the disk is full or broken, so that not even the failure could be written down.
        """
        self._jobs.begin(job.id, os.getpid(), self._store.accepted_masks(job.project))
        logger.info("job %d of project %d begins at %.0f %%", job.id, job.project, 100 * job.progress)
        staging = self._settings.state.staging(job.id)
        try:
            manifest = self._run(job, staging)
        except _StoppedError:
            logger.info("job %d was stopped by the user", job.id)
        except _WaitsError as error:
            logger.info("job %d: %s", job.id, error)
            self._jobs.wait(job.id, str(error))
        except OSError as error:
            free = shutil.disk_usage(self._settings.state_dir).free / 1e6
            self._fail(job, f"a file in {self._settings.state_dir} ({free:,.0f} MB free) failed: {error}")
        except PslgError as error:
            self._fail(job, str(error))
        except Exception as error:
            logger.exception("job %d failed", job.id)
            self._jobs.fail(job.id, f"{type(error).__name__}: {error}")
        else:
            return manifest
        finally:
            _prune(self._settings.state.features, self._settings.train_disk)
        shutil.rmtree(staging, ignore_errors=True)
        return None

    def _fail(self, job: Job, message: str) -> None:
        logger.error("job %d failed: %s", job.id, message)
        self._jobs.fail(job.id, message)

    def _run(self, job: Job, staging: Path) -> Manifest:
        if job.version is not None and self._versions.path(job.version).is_dir():
            manifest = self._versions.published(job.version)  # killed between publishing and the last transaction
        else:
            self._prepare(job, staging)
            manifest = self._make(job, staging)
            for name in (TRAINING, HELD_OUT):
                atomic.write_bytes(staging / "model" / name, (staging / name).read_bytes())
            self._jobs.name_version(job.id, manifest.version)
            manifest = self._versions.publish(staging / "model", manifest)
            shutil.rmtree(staging, ignore_errors=True)
        self._finish(job, manifest)
        return manifest

    def _prepare(self, job: Job, staging: Path) -> None:
        """Write down what the job learns from, unless it did that before it was killed."""
        if (staging / HELD_OUT).is_file():  # written last
            return
        if job.original is not None:
            folder = self._versions.path(self._versions.row(job.original, job.project).manifest.version)
            for name in (TRAINING, HELD_OUT):
                atomic.write_bytes(staging / name, (folder / name).read_bytes())
            return
        if self._sync is not None:
            self._report(job, 0.0, "asking Label Studio for what webhooks missed")
            try:
                self._sync(job.project)
            except PslgError as error:
                logger.warning("job %d learns from what webhooks brought: %s", job.id, error)
        self._report(job, 0.01, "reading annotations")
        problems: list[Problem] = []
        images = labelled_images(self._store, job.project, self._fetch, problems)
        for problem in problems:
            logger.warning("job %d leaves out task %s: %s", job.id, problem.task, problem.message)
        held_out = [image for image in images if self._is_held_out(job.project, image)]
        training = [image for image in images if not self._is_held_out(job.project, image)]
        if not any(image.objects for image in training) or not any(image.expressions for image in held_out):
            raise _WaitsError(self._too_few(job, images, held_out, len(problems)))
        write_labelled(staging / TRAINING, training)
        write_labelled(staging / HELD_OUT, held_out)
        logger.info("job %d: %d images to learn from, %d held out", job.id, len(training), len(held_out))

    def _too_few(
        self, job: Job, images: Sequence[LabelledImage], held_out: Sequence[LabelledImage], unusable: int
    ) -> str:
        """Why a job cannot begin yet, and how many labels are missing."""
        settings = self._settings
        wanted = math.ceil(settings.gate_images / settings.train_held_out)
        asked = sum(bool(image.expressions) for image in held_out)
        text = (
            f"waits for labels: project {job.project} has {len(images)} labelled images, {asked} of them held out for"
            f" the promotion gate, which needs {settings.gate_images} ({settings.train_held_out:.0%} are held out):"
            f" label about {max(1, wanted - len(images))} more"
        )
        return text + (f"; {unusable} tasks could not be used, see the log" if unusable else "")

    def _is_held_out(self, project: int, image: LabelledImage) -> bool:
        from backend.learning.retraining.gate import is_held_out

        return is_held_out(project, image.key, self._settings.train_held_out)

    def _make(self, job: Job, staging: Path) -> Manifest:
        """Learn and judge; what a killed job had finished is not done again."""
        verdict = staging / VERDICT
        if verdict.is_file():
            return Manifest.from_json(verdict.read_bytes())
        self._report(job, 0.04, "preparing replay images")
        replay = read_replay(self._settings.train_replay, self._settings.state.replay)
        options = self._options(job)
        training = read_labelled(staging / TRAINING, self._settings.state.images)
        self._learn(job, training, replay, staging / "model", options)
        manifest = self._judge(job, staging, replay, training)
        atomic.write_bytes(verdict, orjson.dumps(asdict(manifest)))
        return manifest

    def _options(self, job: Job) -> ProjectTrainingOptions:
        from backend.learning.retraining.decoder_part import project_decoder
        from backend.learning.retraining.project import ProjectTrainingOptions
        from backend.training.adapter.adaptation import AdaptationOptions
        from backend.training.adapter.training import AdapterOptions

        chosen = self._chosen(job)
        steps = int(chosen["steps"])
        return ProjectTrainingOptions(
            seed=chosen["seed"],
            minutes=chosen["minutes"],
            threads=self._settings.train_threads,
            grounder=AdaptationOptions(head=AdapterOptions(steps=steps), calibration_steps=steps),
            decoder=project_decoder(steps),
            features=self._settings.state.features,
            disk=self._settings.train_disk,
        )

    def _chosen(self, job: Job) -> Mapping[str, Any]:
        """What a version's manifest says of its options: the original's where the job makes one again."""
        if job.original is not None:
            return self._versions.row(job.original, job.project).manifest.options
        return {"seed": job.id, "steps": self._settings.train_steps, "minutes": self._settings.train_minutes}

    def _learn(
        self, job: Job, training: Sequence[LabelledImage], replay: Replay, out: Path, options: ProjectTrainingOptions
    ) -> None:
        """Train into ``out``; where what a killed job left there is damaged, begin anew."""
        from backend.learning.retraining.project import train_project

        def progress(share: float, message: str) -> None:
            self._report(job, _READ + (_LEARNED - _READ) * share, message)

        base = config_path(self._settings.config)
        resumed = out.is_dir()
        try:
            train_project(base, training, replay.training, out, options, progress)
        except (_StoppedError, OSError):
            raise
        except Exception as error:  # a damaged file may raise anything
            if not resumed:
                raise
            logger.warning("job %d begins anew, what it had is damaged: %s", job.id, error)
            shutil.rmtree(out)
            train_project(base, training, replay.training, out, options, progress)

    def _judge(self, job: Job, staging: Path, replay: Replay, training: Sequence[LabelledImage]) -> Manifest:
        """Compare with what serves the project now."""
        from backend.learning.retraining.gate import compare
        from backend.learning.retraining.verdict import Rules
        from backend.pipeline import load_config, load_pipeline
        from backend.pipeline.weights import model_version

        measured = itertools.count(1)

        def progress(_: int) -> None:
            self._report(job, min(0.99, _LEARNED + 0.0005 * next(measured)), "measuring the new version")

        active = self._versions.active(job.project, self._config)
        old = load_pipeline(self._settings.config if active is None else self._versions.config_path(active))
        new = load_pipeline(staging / "model" / CONFIG)
        held_out = read_labelled(staging / HELD_OUT, self._settings.state.images)
        rules = Rules(
            objects=self._settings.gate_objects,
            images=self._settings.gate_images,
            share=self._settings.train_held_out,
            most_objects=self._settings.max_objects,
        )
        report = compare(old, new, held_out, replay.gate, training=training, rules=rules, progress=progress)
        return Manifest(
            version=new.model_version,
            config=self._config,
            base=model_version(load_config(self._settings.config)),
            parent=old.model_version,
            project=job.project,
            job=job.id,
            options=self._chosen(job),
            training_keys=[image.key for image in training],
            replay=replay.description,
            gate=asdict(report),
            accepted=report.promoted,
            reason=report.reason,
        )

    def _finish(self, job: Job, manifest: Manifest) -> None:
        """All or nothing: the version's row, its promotion, the end of the job."""
        with self._jobs.database.transaction(immediate=True) as connection:
            insert_version(connection, manifest)
            if manifest.accepted:
                insert_promotion(connection, manifest, manifest.reason)
            finish(connection, job.id, manifest.version, manifest.reason)
        verb = "promoted" if manifest.accepted else "waits" if manifest.gate.get("waits") else "not promoted"
        logger.info("job %d: %s %s: %s", job.id, manifest.version, verb, manifest.reason)
        for version in self._versions.prune(job.project, self._config, self._settings.keep_versions):
            logger.info("job %d: %s was removed (PSLG_KEEP_VERSIONS)", job.id, version)

    def _report(self, job: Job, progress: float, message: str) -> None:
        step = int(20 * progress)
        if step != self._said:
            self._said = step
            logger.info("job %d: %.0f %%, %s", job.id, 100 * progress, message)
        if not self._jobs.report(job.id, progress, message):
            raise _StoppedError("stopped")


def _prune(folder: Path, limit: int) -> None:
    """Delete the files that were written longest ago until the rest has at most ``limit`` bytes."""
    files = [(path.stat(), path) for path in folder.rglob("*") if path.is_file()]
    total = sum(stat.st_size for stat, _ in files)
    for stat, path in sorted(files, key=lambda item: item[0].st_mtime_ns):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= stat.st_size

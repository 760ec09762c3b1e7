"""The state folder of a server: what lies where in it, and the locks between the processes that share it.

server.sqlite3          events, annotations, image hashes, pre-labels, jobs, versions (backend.database)
images/<2 hex>/<sha256> image files that a training learnt from or measured on
models/<version>/       trained versions (backend.learning.versions.registry)
models/.job-<number>/   a version that is being trained
embeddings/             what the segmenter's encoder made of images
features/               what frozen parts of the models made of training images
replay/                 drawn scenes that keep a training from forgetting
sync/<project>/         an unfinished fetch of a project's tasks
metrics/                counters that several workers share
before-<time>/          the state that a backup took the place of (backend.state_backup)
training.log            output of training processes; training.log.1 is the part before
training.lock           held by the process that trains
keeper.lock             held by the process that sees to it that wanted trainings run
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["StateFolder", "image_file", "process_lock"]


@dataclass(frozen=True)
class StateFolder:
    """Names of everything in the state folder ``root``; nothing is made or opened."""

    root: Path

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / "server.sqlite3"

    @property
    def images(self) -> Path:
        """Folder of image files, see :func:`image_file`."""
        return self.root / "images"

    @property
    def models(self) -> Path:
        """Folder of the trained versions."""
        return self.root / "models"

    def staging(self, job: int) -> Path:
        """Where a job's version is trained, so that a job that was killed finds its checkpoints."""
        return self.models / f".job-{job}"

    @property
    def embeddings(self) -> Path:
        """Folder of the image embeddings."""
        return self.root / "embeddings"

    @property
    def features(self) -> Path:
        """Folder of the features of training images."""
        return self.root / "features"

    @property
    def replay(self) -> Path:
        """Folder of the drawn replay scenes."""
        return self.root / "replay"

    @property
    def sync_root(self) -> Path:
        """Folder of the unfinished fetches."""
        return self.root / "sync"

    def sync(self, project: int) -> Path:
        """Folder of an unfinished fetch of a project's tasks."""
        return self.sync_root / str(project)

    @property
    def metrics(self) -> Path:
        """Folder of the counters that several workers share."""
        return self.root / "metrics"

    @property
    def training_log(self) -> Path:
        """Output of the training processes."""
        return self.root / "training.log"

    @property
    def older_training_log(self) -> Path:
        """The part of the log before ``training_log``."""
        return self.root / "training.log.1"

    @property
    def training_lock(self) -> Path:
        """Held by the process that trains."""
        return self.root / "training.lock"

    @property
    def keeper_lock(self) -> Path:
        """Held by the process that starts trainings."""
        return self.root / "keeper.lock"


def image_file(folder: Path, key: str) -> Path:
    """Where the image with the sha256 ``key`` is kept below ``folder``."""
    return folder / key[:2] / key


@contextmanager
def process_lock(path: Path) -> Iterator[bool]:
    """Hold a lock that no other process holds, until the block or the process ends; yields whether it was had.

    The file must not be opened by anything else in this process: closing it anywhere would release the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            # A record lock, not flock: a process forked by the holder does not keep it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True

"""A backup of a state folder that is written to meanwhile loses nothing acknowledged before it, and comes back."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backend.cli import pslg
from backend.database import Database
from backend.learning.annotations.events import EventLog
from backend.learning.annotations.store import AnnotationStore
from backend.learning.versions.registry import ModelVersions
from backend.state import StateFolder
from backend.state_backup import back_up, restore
from dataset_tools.errors import ConfigError

EARLIER = Path(__file__).parent / "data" / "state_095f5ef"


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    """A state with events, a version that serves, and images of its training."""
    folder = StateFolder(shutil.copytree(EARLIER, tmp_path / "earlier") / "state")
    Database.of_state(folder.root).close()
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner(env={"PSLG_STATE_DIR": None}).invoke(pslg, ["state", *map(str, arguments)], catch_exceptions=False)


def tree(state: StateFolder) -> dict[str, bytes]:
    """The files that trainings and versions need."""
    folders = (state.models, state.images)
    return {str(p.relative_to(state.root)): p.read_bytes() for f in folders for p in f.rglob("*") if p.is_file()}


def test_everything_that_cannot_be_computed_comes_back(state: StateFolder, tmp_path: Path) -> None:
    (state.embeddings / "ab").mkdir(parents=True)
    (state.embeddings / "ab" / "abc").write_bytes(b"made again")
    result = run("backup", tmp_path, "--state-dir", state.root)
    (file,) = tmp_path.glob("pslg-state-*.tar")
    assert result.output.startswith(f"{file}: ")
    assert file.stat().st_mode & 0o077 == 0
    new = StateFolder(tmp_path / "new" / "state")
    assert "10 events, 1 trained versions" in run("restore", file, "--state-dir", new.root).output
    assert tree(new) == tree(state)
    assert not new.embeddings.exists()
    assert [path.name for path in new.root.iterdir() if path.name.startswith(".")] == []
    database = Database.of_state(new.root)
    store = AnnotationStore(database)
    store.refresh()
    assert store.accepted_masks(2) == 8
    versions = ModelVersions(database, new.root)
    active = versions.active(2, "tiny")
    assert active is not None
    versions.verify(active)
    database.close()


def test_without_images_they_are_left_out(state: StateFolder, tmp_path: Path) -> None:
    backup = back_up(state, tmp_path / "b.tar", images=False)
    assert not any(name.startswith("images/") for name in backup.files)
    assert any(name.startswith("models/") for name in backup.files)


def test_what_was_acknowledged_before_is_in_it_while_four_write(state: StateFolder, tmp_path: Path) -> None:
    database = Database.of_state(state.root)
    log, stop = EventLog(database), threading.Event()
    acknowledged: list[int] = []
    lock = threading.Lock()

    def write(writer: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            event = {"action": "PROJECT_UPDATED", "project": {"id": 9}, "text": f"{writer}-{number}" * 200}
            identity = log.append(event)
            with lock:
                acknowledged.append(identity)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in writers:
        thread.start()
    try:
        for number in range(5):
            with lock:
                before, known = set(acknowledged), len(acknowledged)
            _wait(lambda known=known: len(acknowledged) > known + 3)  # type: ignore[misc]
            backup = back_up(state, tmp_path / f"{number}.tar")
            new = StateFolder(tmp_path / f"new-{number}")
            restore(tmp_path / f"{number}.tar", new)
            copy = Database.of_state(new.root)
            events = EventLog(copy).since(10)
            with copy.transaction() as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            copy.close()
            found = [event.id for event in events]
            assert before <= set(found)
            assert found == list(range(11, 11 + len(found))), "a moment: nothing in between is missing"
            assert backup.events == 10 + len(found)
    finally:
        stop.set()
        for thread in writers:
            thread.join()
        database.close()


def _wait(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_version_that_is_removed_meanwhile_is_not_named(
    state: StateFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a training prunes: its row goes first, then its folder."""
    sha256_of_first = tarfile.TarFile.addfile
    (folder,) = [path for path in state.models.iterdir() if path.is_dir()]
    added: list[str] = []

    def addfile(tar: tarfile.TarFile, entry: tarfile.TarInfo, *more: object) -> None:
        sha256_of_first(tar, entry, *more)  # type: ignore[arg-type]
        added.append(entry.name)
        if added == [state.database.name]:
            database = Database.of_state(state.root)
            with database.transaction() as connection:
                connection.execute("DELETE FROM versions")
            database.close()
            shutil.rmtree(folder)

    monkeypatch.setattr(tarfile.TarFile, "addfile", addfile)
    backup = back_up(state, tmp_path / "b.tar")
    assert backup.versions == ()
    assert not any(name.startswith("models/") for name in backup.files)


def test_a_state_is_not_overwritten_but_moved_aside(state: StateFolder, tmp_path: Path) -> None:
    back_up(state, tmp_path / "b.tar")
    before = tree(state)
    database = Database.of_state(state.root)
    EventLog(database).append({"action": "PROJECT_UPDATED", "project": {"id": 9}})
    database.close()
    with pytest.raises(ConfigError, match="holds a state already"):
        restore(tmp_path / "b.tar", state)
    output = run("restore", tmp_path / "b.tar", "--replace", "--state-dir", state.root).output
    (aside,) = state.root.glob("before-*")
    assert str(aside) in output
    assert tree(state) == before
    for root, events in ((state.root, 10), (aside, 11)):
        database = Database.of_state(root)
        assert len(EventLog(database).since()) == events
        database.close()


def test_a_running_server_keeps_its_state(state: StateFolder, tmp_path: Path) -> None:
    back_up(state, tmp_path / "b.tar")
    holding = (
        "import sys; from pathlib import Path; from backend.state import process_lock\n"
        "with process_lock(Path(sys.argv[1])) as mine: print(mine, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holding, str(state.keeper_lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "True\n"
        with pytest.raises(ConfigError, match=r"a server or a training uses .* stop it"):
            restore(tmp_path / "b.tar", state, replace=True)
        server.communicate("")
    assert not list(state.root.glob("before-*"))


def flipped(data: bytes) -> bytes:
    at = data.index(b"SQLite format 3") + 3000
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], flipped, lambda _: b"no tar at all" * 100])
def test_a_damaged_backup_changes_nothing(state: StateFolder, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    back_up(state, tmp_path / "b.tar")
    (tmp_path / "b.tar").write_bytes(damage((tmp_path / "b.tar").read_bytes()))
    before = tree(state)
    with pytest.raises(ConfigError, match=r"b\.tar"):
        restore(tmp_path / "b.tar", state, replace=True)
    assert tree(state) == before
    assert state.database.exists()
    assert not list(state.root.glob(".restore-*"))


@pytest.mark.parametrize("name", ["../evil", "models/../../evil", "/root/evil", "images/a/../../../evil", "other.txt"])
def test_a_file_of_others_writes_nowhere_else(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"evil"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="is no backup of a state: it holds"):
        restore(tmp_path / "evil.tar", StateFolder(tmp_path / "state"))
    assert [path for path in tmp_path.rglob("*") if path.name != "state"] == before


def test_links_are_no_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        link = tarfile.TarInfo("models/a/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
    with pytest.raises(ConfigError, match="models/a/link"):
        restore(tmp_path / "evil.tar", StateFolder(tmp_path / "state"))


def test_a_backup_of_a_later_release_is_refused(state: StateFolder, tmp_path: Path) -> None:
    database = Database.of_state(state.root)
    with database.transaction() as connection:
        connection.execute("PRAGMA user_version = 1000")
    database.close()
    with pytest.raises(ConfigError, match="later release"):
        back_up(state, tmp_path / "b.tar")


def test_what_is_not_there_or_there_already_is_named(state: StateFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no state: there is no server\.sqlite3"):
        back_up(StateFolder(tmp_path / "nothing"), tmp_path / "b.tar")
    (tmp_path / "b.tar").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="never written over"):
        back_up(state, tmp_path / "b.tar")


def test_sizes_are_shown(state: StateFolder) -> None:
    output = run("show", "--state-dir", state.root).output
    assert f"{state.root}:" in output
    for part in ("database", "models", "images", "embeddings"):
        assert part in output


def test_the_manifest_says_what_is_in_it(state: StateFolder, tmp_path: Path) -> None:
    backup = back_up(state, tmp_path / "b.tar")
    with tarfile.open(tmp_path / "b.tar") as tar:
        names = tar.getnames()
        about = tar.extractfile("backup.json")
        assert about is not None
        assert sorted(json.load(about)["files"]) == sorted(backup.files)
    assert names[-1] == "backup.json"
    assert (tmp_path / "b.tar").stat().st_size >= backup.bytes

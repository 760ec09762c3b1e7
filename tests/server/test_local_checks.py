"""What `pslg doctor` and the page at / find on the machine itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from backend.server.local_checks import local_checks
from backend.settings import Settings
from tests.conftest import REPOSITORY


def problems(settings: Settings) -> str:
    return "\n".join(check.text for check in local_checks(settings) if check.level == "problem")


def test_a_folder_that_will_do_is_not_made(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "a" / "b", embedding_disk=0)
    assert [check.text for check in local_checks(settings) if check.level == "ok"] == [
        f"settings; state in {tmp_path}/a/b"
    ]
    assert problems(settings) == ""
    assert list(tmp_path.iterdir()) == []


def test_an_impossible_state_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    found = problems(Settings(state_dir=tmp_path / "file" / "state"))
    assert found == f"state folder {tmp_path}/file/state (PSLG_STATE_DIR): impossible, {tmp_path}/file is a file"


def test_a_folder_in_which_nobody_may_write_is_named() -> None:
    if not Path("/sys/kernel").is_dir():
        pytest.skip("needs a folder in which not even root may write")
    found = problems(Settings(state_dir=Path("/sys/kernel/state")))
    assert found.startswith("state folder /sys/kernel/state (PSLG_STATE_DIR): ")
    assert "read-only" in found or "may not write" in found


@pytest.mark.parametrize(("options", "named"), [("size=32k", "its disk is full: free space"), ("ro", "is read-only")])
def test_a_full_and_a_read_only_disk_are_named(tmp_path: Path, options: str, named: str) -> None:
    """File systems of the test's own, in name spaces of their own."""
    program = shutil.which("unshare")
    if program is None or subprocess.run([program, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare, and user name spaces")
    code = (
        "from pathlib import Path; from backend.settings import Settings;"
        "from backend.server.local_checks import local_checks;"
        f"print([check for check in local_checks(Settings(state_dir=Path({str(tmp_path)!r}) / 'state'))][0])"
    )
    command = f'mount -t tmpfs -o {options} tmpfs {tmp_path} && exec "$0" -c "$1"'
    result = subprocess.run(
        [program, "-rm", "sh", "-c", command, sys.executable, code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "level='problem'" in result.stdout, result.stderr
    assert named in result.stdout


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "server.sqlite3").write_bytes(b"nothing of the kind" * 100)
    assert "server.sqlite3 cannot be opened" in problems(Settings(state_dir=tmp_path))


def test_embeddings_that_will_fill_the_disk_are_named(tmp_path: Path) -> None:
    texts = [check.text for check in local_checks(Settings(state_dir=tmp_path, embedding_disk=10**18))]
    assert any("set PSLG_EMBEDDING_DISK lower" in text for text in texts)


def test_who_may_ask_is_said(tmp_path: Path) -> None:
    open_to_all = Settings(state_dir=tmp_path, host="192.0.2.1", allow_anyone=True)
    assert any("anyone who reaches 192.0.2.1:9090" in check.text for check in local_checks(open_to_all))
    secret_only = Settings(state_dir=tmp_path, webhook_secret=SecretStr("hush-hush"))
    assert any("Start Training is refused" in check.text for check in local_checks(secret_only))
    assert any("has no dot" in check.text for check in local_checks(Settings(state_dir=tmp_path, host="backend")))

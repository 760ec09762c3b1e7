"""Versions on disk and in the registry: whole or absent, promoted or not, and the way back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from backend.database import Database
from backend.learning.versions.manifest import Manifest
from backend.learning.versions.registry import ModelVersions, insert_version
from backend.state import StateFolder
from dataset_tools.errors import ConfigError, WeightsError


@pytest.fixture
def versions(database: Database, tmp_path: Path) -> ModelVersions:
    return ModelVersions(database, tmp_path)


def manifest(version: str, project: int = 2, config: str = "tiny") -> Manifest:
    return Manifest(
        version=version,
        config=config,
        base="tiny-00000000",
        parent="tiny-00000000",
        project=project,
        job=1,
        options={"seed": 5},
        training_keys=["a" * 64],
        replay="drawn scenes",
        gate={
            "held_out_old": 0.4,
            "held_out_new": 0.5,
            "replay_old": 0.7,
            "replay_new": 0.7,
            "objects": 12,
            "images": 6,
            "replay_expressions": 40,
        },
        accepted=True,
        reason="better",
    )


def add(versions: ModelVersions, database: Database, version: str, project: int = 2, config: str = "tiny") -> Manifest:
    staging = StateFolder(versions.folder.parent).staging(1)
    staging.mkdir(parents=True)
    (staging / "config.yaml").write_text("name: tiny\n")
    (staging / "weights.bin").write_bytes(version.encode())
    published = versions.publish(staging, manifest(version, project, config))
    with database.transaction() as connection:
        insert_version(connection, published)
    return published


def test_a_published_version_has_its_name_its_hashes_and_no_staging_folder(
    versions: ModelVersions, database: Database, tmp_path: Path
) -> None:
    published = add(versions, database, "tiny-aaaaaaaa")
    assert sorted(published.files) == ["config.yaml", "weights.bin"]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny-aaaaaaaa"]
    assert versions.published("tiny-aaaaaaaa") == published
    versions.verify("tiny-aaaaaaaa")
    (row,) = versions.rows()
    assert (row.status, row.manifest) == ("accepted", published)
    assert dataclasses.replace(published, files={}) == manifest("tiny-aaaaaaaa")


def test_promotions_are_undone_one_by_one(versions: ModelVersions, database: Database) -> None:
    for version in ("tiny-aaaaaaaa", "tiny-bbbbbbbb"):
        add(versions, database, version)
        versions.promote(version, "better")
    assert versions.active(2, "tiny") == "tiny-bbbbbbbb"
    assert [row.status for row in versions.rows(2)] == ["active", "earlier"]
    assert versions.active(3, "tiny") is None
    assert versions.active(2, "another") is None
    with pytest.raises(ConfigError, match="already serves"):
        versions.promote("tiny-bbbbbbbb", "again")
    assert versions.rollback(2, "tiny") == "tiny-aaaaaaaa"
    assert versions.rollback(2, "tiny") is None
    assert versions.all_active("tiny") == {}
    with pytest.raises(ConfigError, match="nothing to roll back"):
        versions.rollback(2, "tiny")
    versions.promote("tiny-bbbbbbbb", "by hand")
    assert versions.all_active("tiny") == {2: "tiny-bbbbbbbb"}
    assert versions.rollback(2, "tiny") is None


def test_damaged_versions_are_neither_promoted_nor_returned_to(versions: ModelVersions, database: Database) -> None:
    for version in ("tiny-aaaaaaaa", "tiny-bbbbbbbb"):
        add(versions, database, version)
    versions.promote("tiny-aaaaaaaa", "better")
    (versions.path("tiny-bbbbbbbb") / "weights.bin").write_bytes(b"tiny-bbbbbbbx")
    with pytest.raises(WeightsError, match=r"weights\.bin has sha256"):
        versions.promote("tiny-bbbbbbbb", "better")
    (versions.path("tiny-bbbbbbbb") / "weights.bin").write_bytes(b"tiny-bbbbbbbb")
    versions.promote("tiny-bbbbbbbb", "better")
    (versions.path("tiny-aaaaaaaa") / "weights.bin").unlink()
    with pytest.raises(WeightsError, match="missing"):
        versions.rollback(2, "tiny")
    assert versions.active(2, "tiny") == "tiny-bbbbbbbb"


def test_versions_are_named_or_refused(versions: ModelVersions, database: Database) -> None:
    with pytest.raises(ConfigError, match="no model version"):
        versions.row("tiny-cccccccc")
    with pytest.raises(ConfigError, match="no model version"):
        versions.path("../tiny-aaaaaaaa")
    add(versions, database, "tiny-aaaaaaaa", project=2)
    add(versions, database, "tiny-aaaaaaaa", project=3)
    with pytest.raises(ConfigError, match="--project"):
        versions.row("tiny-aaaaaaaa")
    assert versions.row("tiny-aaaaaaaa", 3).manifest.project == 3


def test_old_versions_go_by_a_stated_rule(versions: ModelVersions, database: Database) -> None:
    names = [f"tiny-{number:08x}" for number in range(6)]
    for name in names:
        add(versions, database, name)
    versions.promote(names[0], "good")
    versions.promote(names[1], "better")
    assert versions.prune(2, "tiny", 2) == [names[3], names[2]]
    assert {row.manifest.version for row in versions.rows(2)} == {names[0], names[1], names[4], names[5]}
    assert not versions.path(names[2]).exists()
    assert versions.path(names[0]).exists()
    assert versions.rollback(2, "tiny") == names[0], "what a rollback returns to stays"
    assert versions.prune(2, "tiny", 2) == [names[1]], "nothing needs it any more"

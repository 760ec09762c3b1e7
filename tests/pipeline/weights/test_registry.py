"""Weights: found or explained, downloaded whole or not at all, hashed once, and part of the model version."""

from __future__ import annotations

import argparse
import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from backend.commands.weights import weights as weights_command
from backend.pipeline.config import PipelineConfig
from backend.pipeline.weights import REGISTRY, WeightEntry, model_version, resolve
from backend.pipeline.weights import registry as weights
from backend.pipeline.weights.downloads import download
from backend.pipeline.weights.folders import SHIPPED_FOLDER
from backend.pipeline.weights.kinds import checkpoint_kind
from backend.pipeline.weights.records import read_record, record, recorded_sha256, sha256_of
from dataset_tools.errors import WeightsError

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """A web server on the loopback interface with one file and switchable faults."""

    url: str = ""
    body: bytes = CONTENT
    status: int = 200
    ranges: bool = True
    cut_after: int | None = None
    starts: list[int] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    state = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = 0
            wanted = self.headers.get("Range")
            if wanted and state.ranges:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            state.starts.append(start)
            if state.status != 200:
                self.send_error(state.status)
                return
            if start >= len(state.body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(state.body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(state.body) - 1}/{len(state.body)}")
            self.send_header("Content-Length", str(len(state.body) - start))
            self.end_headers()
            stop = len(state.body) if state.cut_after is None else start + state.cut_after
            self.wfile.write(state.body[start:stop])

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/model.pth"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PSLG_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def entry_for(site: Site) -> WeightEntry:
    return WeightEntry("model", "model.pth", "MIT", "a test", url=site.url, sha256=SHA256, size=len(CONTENT))


def test_a_download_ends_complete_recorded_and_shows_progress(site: Site, folder: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = download(entry_for(site), lambda done, total: seen.append((done, total)))
    assert path == folder / "model.pth"
    assert path.read_bytes() == CONTENT
    assert recorded_sha256(path) == SHA256
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert sorted(file.name for file in folder.iterdir()) == ["model.pth", "model.pth.sha256.json"]
    download(entry_for(site))
    assert len(site.starts) == 1  # it is there: nothing is asked again


def test_a_broken_connection_goes_on_where_it_stopped(site: Site, folder: Path) -> None:
    site.cut_after = 400_000
    assert download(entry_for(site)).read_bytes() == CONTENT
    assert len(site.starts) == 3
    assert 0 == site.starts[0] < 300_000 < site.starts[1] <= 400_000 < site.starts[2] <= 800_000


def test_a_part_of_an_earlier_call_is_resumed(site: Site, folder: Path) -> None:
    site.cut_after = 100_000
    with pytest.raises(WeightsError, match="cannot download model"):
        download(entry_for(site))
    assert not (folder / "model.pth").exists()
    site.cut_after = None
    assert download(entry_for(site)).read_bytes() == CONTENT
    assert 150_000 < site.starts[-1] <= 300_000


def test_a_server_without_ranges_starts_again(site: Site, folder: Path) -> None:
    folder.mkdir()
    (folder / "model.pth.part").write_bytes(CONTENT[:1000])
    site.ranges = False
    assert download(entry_for(site)).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_of_unknown_size_starts_again(site: Site, folder: Path) -> None:
    folder.mkdir()
    (folder / "model.pth.part").write_bytes(CONTENT + b"more")
    assert download(replace(entry_for(site), size=None)).read_bytes() == CONTENT


def test_a_corrupt_file_is_named_removed_and_not_resumed(site: Site, folder: Path) -> None:
    site.body = CONTENT[:-1] + b"?"
    with pytest.raises(WeightsError, match=SHA256) as error:
        download(entry_for(site))
    assert hashlib.sha256(site.body).hexdigest() in str(error.value)
    assert list(folder.iterdir()) == []
    site.body = CONTENT
    assert download(entry_for(site)).read_bytes() == CONTENT


def test_a_refusal_is_reported_with_its_status(site: Site, folder: Path) -> None:
    site.status = 404
    with pytest.raises(WeightsError, match="answered 404"):
        download(entry_for(site))
    assert len(site.starts) == 1
    assert not (folder / "model.pth").exists()


def test_without_a_network_file_url_and_place_are_named(folder: Path) -> None:
    entry = WeightEntry("model", "model.pth", "MIT", "a test", url="http://127.0.0.1:1/model.pth")
    with pytest.raises(WeightsError) as error:
        download(entry)
    for part in ("model", entry.url, str(folder / "model.pth"), "HTTPS_PROXY"):
        assert str(part) in str(error.value)


def test_a_proxy_from_the_environment_is_used(site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", site.url.removesuffix("/model.pth"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    entry = replace(entry_for(site), url="http://weights.invalid/model.pth")  # resolves nowhere: only a proxy helps
    assert download(entry).read_bytes() == CONTENT


def test_a_model_of_the_hub_appears_only_when_it_is_complete(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client is replaced: what counts here is what becomes of an interrupted and of a finished download."""
    wanted = REGISTRY["grounding_dino_tiny"]

    def interrupted(_repository: str, *, local_dir: Path, **_: object) -> None:
        (local_dir / ".cache").mkdir(parents=True, exist_ok=True)
        (local_dir / "config.json").write_text("{}")
        raise OSError("the connection broke")

    monkeypatch.setattr("huggingface_hub.snapshot_download", interrupted)
    with pytest.raises(WeightsError, match="the connection broke"):
        download(wanted)
    assert not wanted.path.exists()

    def finished(_repository: str, *, local_dir: Path, **_: object) -> None:
        assert (local_dir / "config.json").is_file()  # what came before is still there to go on with
        (local_dir / "model.safetensors").write_bytes(CONTENT)

    monkeypatch.setattr("huggingface_hub.snapshot_download", finished)
    assert sorted(file.name for file in download(wanted).iterdir()) == ["config.json", "model.safetensors"]
    assert recorded_sha256(wanted.path) == sha256_of(wanted.path)


def test_hand_placed_weights_say_where_to_get_them(folder: Path) -> None:
    with pytest.raises(WeightsError, match="LANMNG/LQVG"):
        download(REGISTRY["lqvg"])


def test_registry_hashes_are_hashes_or_none() -> None:
    for entry in REGISTRY.values():
        assert entry.sha256 is None or (len(entry.sha256) == 64 and int(entry.sha256, 16))
        assert entry.shipped + (entry.url is not None) + (entry.hub is not None) + (entry.by_hand is not None) == 1


@pytest.mark.parametrize("name", [entry.name for entry in REGISTRY.values() if entry.shipped])
def test_shipped_weights_are_the_recorded_ones(name: str) -> None:
    path = REGISTRY[name].path
    assert path.is_relative_to(SHIPPED_FOLDER)
    assert recorded_sha256(path) == sha256_of(path), f"run: pslg weights add {path}"
    found = read_record(path)
    assert found is not None
    assert found.mtime_ns is None, "a checkout sets its own time"


def test_a_changed_file_loses_its_record(tmp_path: Path) -> None:
    file = tmp_path / "own.pth"
    file.write_bytes(b"one")
    assert recorded_sha256(file) is None
    digest = record(file)
    assert recorded_sha256(file) == digest == hashlib.sha256(b"one").hexdigest()
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert recorded_sha256(file) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_read_only_folder_gets_its_record_elsewhere(tmp_path: Path, folder: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "own.pth").write_bytes(b"one")
    mount.chmod(0o555)
    record(mount / "own.pth")
    assert recorded_sha256(mount / "own.pth") == hashlib.sha256(b"one").hexdigest()
    assert (folder / "records").is_dir()


def test_a_folder_is_hashed_by_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    first = sha256_of(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    assert sha256_of(tmp_path) != first


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    for name in ("grounder.safetensors", "segmenter.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    return PipelineConfig.model_validate(
        {
            "name": "mine",
            "grounder": {"kind": "compact", "weights": str(tmp_path / "grounder.safetensors")},
            "segmenter": {"kind": "compact-sam", "weights": str(tmp_path / "segmenter.safetensors")},
        }
    )


def test_the_version_is_the_config_s_name_and_eight_digits(config: PipelineConfig) -> None:
    name, _, digits = model_version(config).rpartition("-")
    assert name == "mine"
    assert len(digits) == 8
    assert int(digits, 16) >= 0


def test_the_version_changes_with_weights_and_with_keys_that_change_masks(config: PipelineConfig) -> None:
    before = model_version(config)
    assert model_version(config.ablated(boundary=False)) != before
    assert model_version(config.ablated(foreground_points=False)) != before
    assert model_version(config.model_copy(update={"threads": 7, "device": "cpu", "description": "x"})) == before
    Path(config.segmenter.weights).write_bytes(b"retrained")
    assert model_version(config) != before


def test_the_version_does_not_depend_on_where_a_file_lies(config: PipelineConfig, tmp_path: Path) -> None:
    before = model_version(config)
    elsewhere = tmp_path / "elsewhere.safetensors"
    elsewhere.write_bytes(Path(config.segmenter.weights).read_bytes())
    moved = config.segmenter.model_copy(update={"weights": str(elsewhere)})
    assert model_version(config.model_copy(update={"segmenter": moved})) == before


def test_a_version_without_reading_needs_the_record(config: PipelineConfig) -> None:
    with pytest.raises(WeightsError, match="pslg weights"):
        model_version(config, hash_missing=False)
    full = model_version(config)
    assert model_version(config, hash_missing=False) == full


def test_missing_weights_name_file_and_command(config: PipelineConfig, folder: Path) -> None:
    for weights_name, advice in (
        ("sam_vit_b", "pslg weights download sam_vit_b"),
        ("lqvg", "by hand"),
        ("/no", "path"),
    ):
        missing = config.model_copy(update={"segmenter": config.segmenter.model_copy(update={"weights": weights_name})})
        with pytest.raises(WeightsError, match=advice) as error:
            resolve(missing)
        assert str(weights.locate(weights_name)) in str(error.value)


def test_kinds_of_checkpoints_are_recognised(tmp_path: Path) -> None:
    tensor = torch.zeros(1)
    lqvg = {"text_encoder.embeddings.word_embeddings.weight": tensor, "query_embed.weight": tensor}
    torch.save(
        {"model": lqvg, "args": argparse.Namespace(a=1)}, tmp_path / "lqvg.pth", _use_new_zipfile_serialization=False
    )
    sam = ("image_encoder.pos_embed", "image_encoder.blocks.0.attn.qkv.weight", "mask_decoder.iou_token.weight")
    torch.save(dict.fromkeys(sam, tensor), tmp_path / "sam.pth")
    save_file(
        {"image_encoder.stem.0.weight": torch.zeros(2), "mask_decoder.iou_token.weight": tensor},
        tmp_path / "c.safetensors",
    )
    torch.save({"weight": tensor}, tmp_path / "other.pth")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "config.json").write_text('{"model_type": "sam2"}')
    assert checkpoint_kind(tmp_path / "lqvg.pth") == "lqvg"
    assert checkpoint_kind(tmp_path / "sam.pth") == "sam"
    assert checkpoint_kind(tmp_path / "c.safetensors") == "compact-sam"
    assert checkpoint_kind(tmp_path / "other.pth") == "unknown"
    assert checkpoint_kind(tmp_path / "hub") == "transformers sam2"


def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><title>Sign in</title>")
    with pytest.raises(WeightsError, match="web page"):
        checkpoint_kind(tmp_path / "page.pth")
    (tmp_path / "noise.pth").write_bytes(CONTENT[:1000])
    with pytest.raises(WeightsError, match="not a checkpoint"):
        checkpoint_kind(tmp_path / "noise.pth")
    (tmp_path / "noise.safetensors").write_bytes(CONTENT[:1000])
    with pytest.raises(WeightsError, match="safetensors"):
        checkpoint_kind(tmp_path / "noise.safetensors")


def test_the_commands(site: Site, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(REGISTRY["sam_vit_b"], url=site.url, sha256=SHA256, size=len(CONTENT))
    monkeypatch.setattr(weights, "REGISTRY", {**REGISTRY, "sam_vit_b": own})
    monkeypatch.setattr("backend.commands.weights.REGISTRY", weights.REGISTRY)

    def pslg(*arguments: str) -> str:
        result = CliRunner().invoke(weights_command, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    listing = pslg("list")
    assert "sam_vit_b" in listing
    assert "run `pslg weights download sam_vit_b`" in listing
    with pytest.raises(WeightsError, match="download sam_vit_b"):
        pslg("path", "sam_vit_b")
    assert "sha256 as recorded" in pslg("download", "sam_vit_b")
    assert pslg("path", "sam_vit_b").strip() == str(folder / "sam_vit_b_01ec64.pth")
    assert "as recorded" in pslg("verify", "sam_vit_b")
    (folder / "sam_vit_b_01ec64.pth").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="sam_vit_b"):
        pslg("verify")
    save_file({"x": torch.zeros(1)}, tmp_path / "mine.safetensors")
    assert sha256_of(tmp_path / "mine.safetensors") in pslg("add", str(tmp_path / "mine.safetensors"))
    assert "lqvg.pth" in pslg("add", str(tmp_path / "mine.safetensors"), "--as", "lqvg")
    assert (folder / "lqvg.pth").is_file()

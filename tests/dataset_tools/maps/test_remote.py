"""Scenes behind http addresses are read by ranges, through the guard that every image address goes through."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rasterio.shutil import copy

from dataset_tools.commands.inspect import tile_command
from dataset_tools.errors import DatasetError
from dataset_tools.maps import tiles
from dataset_tools.maps.scene import open_scene
from tests.dataset_tools.maps.geotiffs import UTM, noise, write
from tests.server.conftest import Reply, Site, other_site, site

__all__ = ["other_site", "site"]

SIDE = 1500


@pytest.fixture(scope="module")
def cog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cloud-optimised GeoTIFF of 7 MB."""
    folder = tmp_path_factory.mktemp("cog")
    plain = write(folder / "plain.tif", noise(3, SIDE, SIDE), UTM)
    copy(plain, folder / "city.tif", driver="COG", compress="deflate", blocksize=256)
    return folder / "city.tif"


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSLG_IMAGE_HOSTS", "127.0.0.1")
    monkeypatch.delenv("LABEL_STUDIO_URL", raising=False)


def ranges(content: bytes, spoil: Callable[[int, int, bytes], Reply | None] = lambda *_: None) -> object:
    """Answers ranges of ``content``; ``spoil(start, stop, body)`` may answer in its place."""

    def answer(headers: dict[str, str], _: bytes) -> Reply:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("Range", ""))
        assert found is not None, "the whole file was asked for"
        start, stop = int(found[1]), min(int(found[2]) + 1, len(content))
        body = content[start:stop]
        told = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}", "ETag": '"1"'}
        return spoil(start, stop, body) or Reply(body, 206, told)

    return answer


@pytest.mark.usefixtures("trusted")
def test_only_what_is_looked_at_is_fetched(site: Site, cog: Path) -> None:
    site.replies["/city.tif?signature=1"] = ranges(cog.read_bytes())  # type: ignore[assignment]
    window = (900, 700, 300, 200)
    with open_scene(cog) as here, open_scene(f"{site.url}/city.tif?signature=1") as there:
        assert (there.name, there.source) == ("city", "city.tif")
        assert (there.width, there.height, there.reference) == (SIDE, SIDE, here.reference)
        assert np.array_equal(there.read(window), here.read(window))
        small = (0, 0, SIDE, SIDE), (100, 100)
        assert np.array_equal(there.read(*small), here.read(*small))  # from an overview
    fetched = sum(
        int(end) - int(start) + 1
        for _, _, headers, _ in site.seen
        for start, end in [headers["Range"].removeprefix("bytes=").split("-")]
    )
    assert fetched < cog.stat().st_size / 3
    assert len(site.seen) < 30


@pytest.mark.usefixtures("trusted")
def test_tiles_of_an_address(site: Site, tmp_path: Path) -> None:
    values = noise(3, 130, 200)
    path = write(tmp_path / "city.tif", values, UTM)
    site.replies["/a/city.tif"] = ranges(path.read_bytes())  # type: ignore[assignment]
    arguments = [f"{site.url}/a/city.tif", "--out", str(tmp_path / "out"), "--side", "64", "--overlap", "8"]
    done = CliRunner().invoke(tile_command, arguments)
    assert done.exit_code == 0, done.output
    assert len(tiles.read_index(tmp_path / "out")) == 12
    again = tiles.tile(path, tmp_path / "out", 64, 8)  # the same scene from the disk: nothing is done twice
    assert len(again) == 12


def test_a_private_address_is_not_asked(
    site: Site, other_site: Site, monkeypatch: pytest.MonkeyPatch, cog: Path
) -> None:
    monkeypatch.delenv("PSLG_IMAGE_HOSTS", raising=False)
    site.replies["/city.tif"] = ranges(cog.read_bytes())  # type: ignore[assignment]
    with pytest.raises(DatasetError, match="private address 127"), open_scene(f"{site.url}/city.tif"):
        pass
    assert site.seen == []
    # A trusted host may not send us on to one that is not.
    monkeypatch.setenv("PSLG_LABEL_STUDIO_URL", site.url)
    site.replies["/city.tif"] = Reply(status=302, headers={"Location": f"{other_site.url}/city.tif"})
    with pytest.raises(DatasetError, match="private address 127"), open_scene(f"{site.url}/city.tif"):
        pass
    assert other_site.seen == []
    monkeypatch.setenv("PSLG_IMAGE_HOSTS", "images.example.org")
    with pytest.raises(DatasetError, match="PSLG_IMAGE_HOSTS names"), open_scene(f"{other_site.url}/city.tif"):
        pass


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("suffix", [".vrt", ".png", ""])
def test_of_addresses_only_some_kinds_are_read(site: Site, suffix: str) -> None:
    with pytest.raises(DatasetError, match="download it first"), open_scene(f"{site.url}/city{suffix}"):
        pass
    assert site.seen == []


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda _start, _stop, body: Reply(body, 200), "cannot be read by ranges"),
        (lambda *_: Reply(status=404), "answered 404"),
        (lambda *_: Reply(b"no picture", 206, {"Content-Range": "bytes 0-9/10"}), "city.tif"),
    ],
    ids=["whole", "gone", "wrong-range"],
)
def test_an_address_that_cannot_be_read_is_named(
    site: Site, cog: Path, spoil: Callable[[int, int, bytes], Reply], message: str
) -> None:
    site.replies["/city.tif"] = ranges(cog.read_bytes(), spoil)  # type: ignore[assignment]
    with pytest.raises(DatasetError, match=message), open_scene(f"{site.url}/city.tif"):
        pass


@pytest.mark.usefixtures("trusted")
def test_an_address_that_stops_half_way_leaves_no_half_tile(site: Site, cog: Path, tmp_path: Path) -> None:
    size = cog.stat().st_size
    stops: list[int] = []

    def half(start: int, stop: int, body: bytes) -> Reply | None:
        if start < size // 2:
            return None
        stops.append(start)
        told = {"Content-Range": f"bytes {start}-{stop - 1}/{size}", "ETag": '"1"'}
        return Reply(body[: len(body) // 2], 206, {**told, "Content-Length": str(len(body)), "Connection": "close"})

    site.replies["/city.tif"] = ranges(cog.read_bytes(), half)  # type: ignore[assignment]
    with pytest.raises(DatasetError, match="broke off"):
        tiles.tile(f"{site.url}/city.tif", tmp_path / "out", 256, 0)
    assert len(stops) == 3  # a dropped connection is tried again
    made = tiles.read_index(tmp_path / "out")
    assert 0 < len(made) < 36
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == set(made)
    site.replies["/city.tif"] = ranges(cog.read_bytes())  # type: ignore[assignment]
    assert len(tiles.tile(f"{site.url}/city.tif", tmp_path / "out", 256, 0)) == 36


@pytest.mark.usefixtures("trusted")
def test_a_file_that_changes_while_it_is_read_is_noticed(site: Site, cog: Path) -> None:
    seen: list[int] = []

    def newer(start: int, stop: int, body: bytes) -> Reply | None:
        seen.append(start)
        told = {"Content-Range": f"bytes {start}-{stop - 1}/{cog.stat().st_size}", "ETag": f'"{len(seen) > 3}"'}
        return Reply(body, 206, told)

    site.replies["/city.tif"] = ranges(cog.read_bytes(), newer)  # type: ignore[assignment]
    with pytest.raises(DatasetError, match="has changed while it was read"):
        read_diagonally(f"{site.url}/city.tif")


def read_diagonally(address: str) -> None:
    with open_scene(address) as scene:
        for place in range(0, SIDE - 300, 300):
            scene.read((place, place, 300, 300))

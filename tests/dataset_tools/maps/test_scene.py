"""Scenes are read as they are, by windows, and say what was done to their values."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from dataset_tools import image_files
from dataset_tools.errors import DatasetError
from dataset_tools.maps.scene import open_scene
from tests.dataset_tools.maps.geotiffs import DEGREES, PLACES, UTM, noise, write


def test_a_window_holds_the_bands_and_the_place(tmp_path: Path) -> None:
    values = noise()
    for name, place in PLACES.items():
        with open_scene(write(tmp_path / f"{name}.tif", values, place)) as scene:
            pixels = scene.read((20, 10, 100, 50))
            assert np.array_equal(pixels[..., :3], values[:, 10:60, 20:120].transpose(1, 2, 0))
            assert (pixels[..., 3] == 255).all()
            assert scene.reference is not None
            assert scene.reference.crs == place[0]
            assert scene.reference.shifted(20, 10).position(3, 4) == pytest.approx(place[1] * (23, 14), rel=1e-12)
            assert scene.notes == []


def test_first_three_of_many_bands_or_those_asked_for(tmp_path: Path) -> None:
    values = noise(12, top=10_000, kind=np.uint16)
    path = write(tmp_path / "sentinel.tif", values)
    with open_scene(path) as scene:
        assert scene.bands == (1, 2, 3)
        assert any("--bands 12,11,10" in sentence for sentence in scene.notes)
        assert any("uint16 values from" in sentence for sentence in scene.notes)
    with open_scene(path, bands=(4, 3, 2)) as scene:
        assert scene.stretch is not None
        low, high = scene.stretch
        expected = np.clip(np.round((values[3] - low) * 255 / (high - low)), 0, 255)
        assert np.abs(scene.read((0, 0, 200, 130))[..., 0] - expected).max() <= 1
        assert 20 < scene.read((0, 0, 200, 130))[..., :3].mean() < 235
    for wrong in ((0, 1, 2), (1, 2), (1, 2, 13)):
        with pytest.raises(DatasetError, match="one or three of 1 to 12"), open_scene(path, bands=wrong):
            pass


@pytest.mark.parametrize(
    ("kind", "top"), [(np.uint16, 2047), (np.int16, 3000), (np.uint32, 10**6), (np.float32, 1), (np.float64, 9000)]
)
def test_deep_values_are_stretched_and_never_black(tmp_path: Path, kind: type, top: int) -> None:
    values: npt.NDArray[Any] = (np.random.default_rng(0).random((1, 90, 120)) * top).astype(kind)
    with open_scene(write(tmp_path / "a.tif", values)) as scene:
        grey = scene.read((0, 0, 120, 90))
        assert (grey[..., 0] == grey[..., 2]).all()
        assert 110 < grey[..., :3].mean() < 145
        assert scene.stretch is not None


def test_one_stretch_for_the_whole_scene(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(400, dtype=np.uint16) * 20, (1, 100, 1))
    with open_scene(write(tmp_path / "ramp.tif", ramp)) as scene:
        left, right = scene.read((0, 0, 200, 100)), scene.read((200, 0, 200, 100))
    assert left[..., 0].max() < right[..., 0].min() + 3
    assert left[..., :3].mean() < 70
    assert right[..., :3].mean() > 185


def test_nothing_is_transparent(tmp_path: Path) -> None:
    values = noise()
    values[:, :, :50] = 0
    for name, nodata in {"nodata": 0.0, "nan": float("nan")}.items():
        given = values.astype(np.float32) if name == "nan" else values.copy()
        if name == "nan":
            given[:, :, :50] = np.nan
        with open_scene(write(tmp_path / f"{name}.tif", given, nodata=nodata)) as scene:
            alpha = scene.read((0, 0, 200, 130))[..., 3]
        assert (alpha[:, :50] == 0).all()
        assert (alpha[:, 50:] == 255).all()
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write(tmp_path / "mask.tif", noise())
        with rasterio.open(path, "r+") as file:
            file.write_mask(np.repeat(np.arange(200) >= 50, 130).reshape(200, 130).T)
    with open_scene(path) as scene:
        alpha = scene.read((0, 0, 200, 130))[..., 3]
    assert (alpha[:, :50] == 0).all()
    assert (alpha[:, 50:] == 255).all()


def test_a_fourth_band_tagged_as_transparency_is_believed_only_if_it_is(tmp_path: Path) -> None:
    colors = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    values = noise(4)
    with open_scene(write(tmp_path / "infrared.tif", values, colors=colors)) as scene:
        assert (scene.read((0, 0, 200, 130))[..., 3] == 255).all()
        assert any("taken for a band" in sentence for sentence in scene.notes)
    values[3] = 255
    values[3, :40] = 0
    with open_scene(write(tmp_path / "alpha.tif", values, colors=colors)) as scene:
        pixels = scene.read((0, 0, 200, 130))
    assert (pixels[:40, :, 3] == 0).all()
    assert np.array_equal(pixels[40:, :, :3], values[:3, 40:].transpose(1, 2, 0))


@pytest.mark.parametrize("kind", ["NON-PREMULTIPLIED", "PREMULTIPLIED"])
@pytest.mark.parametrize("top", [255, 65535])
def test_soft_transparency_stays_soft(tmp_path: Path, kind: str, top: int) -> None:
    """On white a scene looks as the same file does everywhere else in the project."""
    values = noise(4, 60, 80, np.uint8 if top == 255 else np.uint16, top)
    values[3] = top
    values[3, :5, :] = 0
    values[3, 5, :] = np.linspace(top // 4, top, 80)
    if kind == "PREMULTIPLIED":
        values[:3] = values[:3] * (values[3] / top)
    path = write(tmp_path / "soft.tif", values, photometric="RGB", ALPHA=kind)
    with open_scene(path) as scene:
        pixels = scene.read((0, 0, 80, 60))
    assert (pixels[:5, :, 3] == 0).all()
    assert (pixels[6:, :, 3] == 255).all()
    assert np.abs(pixels[5, :, 3] - np.linspace(255 // 4, 255, 80)).max() < 1.5
    opacity = pixels[..., 3:] / 255
    on_white = pixels[..., :3] * opacity + 255 * (1 - opacity)
    assert np.abs(on_white - image_files.read(path)).max() <= 2


def test_palettes_and_single_bits_are_colours(tmp_path: Path) -> None:
    values = np.tile(np.arange(4, dtype=np.uint8), (1, 20, 10))
    path = write(tmp_path / "palette.tif", values, photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (9, 8, 7, 255), 1: (200, 0, 0, 255), 2: (0, 200, 0, 255), 3: (0, 0, 200, 255)})
    with open_scene(path) as scene:
        assert scene.read((0, 0, 4, 1))[0, :, :3].tolist() == [[9, 8, 7], [200, 0, 0], [0, 200, 0], [0, 0, 200]]
    bits = write(tmp_path / "bits.tif", values % 2, nbits=1)
    with open_scene(bits) as scene:
        assert scene.read((0, 0, 4, 1))[0, :, 0].tolist() == [0, 255, 0, 255]


def test_jpeg_in_tiff_is_rgb(tmp_path: Path) -> None:
    values = np.zeros((3, 64, 64), np.uint8)
    values[0] = 220
    path = write(
        tmp_path / "jpeg.tif", values, compress="jpeg", photometric="ycbcr", tiled=True, blockxsize=64, blockysize=64
    )
    with open_scene(path) as scene:
        assert np.abs(scene.read((0, 0, 64, 64))[..., :3].astype(int) - [220, 0, 0]).max() < 6


def test_ground_sampling_resamples(tmp_path: Path) -> None:
    values = np.repeat(np.repeat(noise(3, 40, 60), 2, axis=1), 2, axis=2)  # 2 x 2 blocks of one value
    with open_scene(write(tmp_path / "a.tif", values, UTM), gsd=1.0) as scene:
        assert (scene.width, scene.height) == (60, 40)
        assert scene.reference is not None
        assert scene.reference.pixel == pytest.approx((1.0, 1.0))
        whole, part = scene.read((0, 0, 60, 40)), scene.read((10, 5, 30, 20))
        assert np.array_equal(whole[..., :3], noise(3, 40, 60).transpose(1, 2, 0))
        assert np.array_equal(part, whole[5:25, 10:40])
    with open_scene(write(tmp_path / "d.tif", values, DEGREES), gsd=1.0) as scene:
        # At 52.5 degrees north a degree of longitude is 0.61 degrees of latitude.
        assert scene.width / scene.height == pytest.approx(120 / 80 * 0.609, rel=0.03)
    plain = write(tmp_path / "p.tif", values, (None, None))
    with pytest.raises(DatasetError, match="no coordinate reference system"), open_scene(plain, gsd=1.0):
        pass


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "text.tif").write_text("no picture")
    whole = write(tmp_path / "whole.tif", noise(3, 500, 500)).read_bytes()
    (tmp_path / "half.tif").write_bytes(whole[: len(whole) // 2])
    for name, words in {"empty": "0 bytes", "text": "cannot be read", "gone": "does not exist"}.items():
        with pytest.raises(DatasetError, match=words), open_scene(tmp_path / f"{name}.tif"):
            pass
    with pytest.raises(DatasetError, match="cannot be read"), open_scene(tmp_path / "half.tif") as scene:
        scene.read((0, 400, 500, 100))
    flat = write(tmp_path / "flat.tif", noise(), ("EPSG:32633", Affine(0.5, 0, 1, 0, 0, 1)))
    with pytest.raises(DatasetError, match="repair its georeference"), open_scene(flat):
        pass
    with open_scene(write(tmp_path / "plain.tif", noise(), (None, None))) as scene:
        assert scene.reference is None
        assert any("no georeference" in sentence for sentence in scene.notes)


def test_a_mosaic_reads_below_its_own_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "city"
    folder.mkdir()
    values = noise()
    write(folder / "a.tif", values)
    write(tmp_path / "secret.tif", values)
    (folder / "wms.tif").write_text("<GDAL_WMS><Service name='TMS'/></GDAL_WMS>")

    def mosaic(source: str, relative: int = 1) -> Path:
        band = "".join(
            f'<VRTRasterBand dataType="Byte" band="{k}"><SimpleSource>'
            f'<SourceFilename relativeToVRT="{relative}">{source}</SourceFilename><SourceBand>{k}</SourceBand>'
            "</SimpleSource></VRTRasterBand>"
            for k in (1, 2, 3)
        )
        path = folder / "m.vrt"
        path.write_text(f'<VRTDataset rasterXSize="200" rasterYSize="130">{band}</VRTDataset>')
        return path

    with open_scene(mosaic("a.tif")) as scene:
        assert np.array_equal(scene.read((0, 0, 200, 130))[..., :3], values.transpose(1, 2, 0))
    for source, relative in (("../secret.tif", 1), (str(tmp_path / "secret.tif"), 0),
                             ("/vsicurl/http://127.0.0.1/a.tif", 0), ("http://127.0.0.1/a.tif", 1),
                             ("gone.tif", 1), ("wms.tif", 1)):  # fmt: skip
        with pytest.raises(DatasetError, match="names"), open_scene(mosaic(source, relative)):
            pass


def test_what_a_mosaic_may_not_say(tmp_path: Path) -> None:
    folder = tmp_path / "city"
    folder.mkdir()
    values = noise()
    write(folder / "a.tif", values)
    write(tmp_path / "secret.tif", values)
    (folder / "link.tif").symlink_to(tmp_path / "secret.tif")
    (folder / "numbers.txt").write_text("1 2 3")
    head = '<VRTDataset rasterXSize="200" rasterYSize="130">'
    source = '<SourceFilename relativeToVRT="1">{}</SourceFilename>'
    band = f'{head}<VRTRasterBand dataType="Byte" band="1"><SimpleSource>{source}</SimpleSource></VRTRasterBand>'
    warped = (
        '<VRTDataset subClass="VRTWarpedDataset"><GDALWarpOptions><SourceDataset relativeToVRT="1">{}</SourceDataset>'
    )
    raw = f'{head}<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">{source}</VRTRasterBand>'
    python = (
        f'{head}<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">'
        "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
        "<PixelFunctionCode>def f(a, out, *b, **c): out[:] = 7</PixelFunctionCode>"
        f"<SimpleSource>{source}</SimpleSource></VRTRasterBand>"
    )
    refused = {
        "a link": band.format("link.tif"),
        "a warped mosaic": f"{warped.format('../secret.tif')}</GDALWarpOptions>",
        "raw bytes": raw.format("numbers.txt"),
        "no mosaic": "<html/>",
        "no XML": "<VRTDataset",
    }
    for what, text in refused.items():
        (folder / "m.vrt").write_text(text if what in ("no XML", "no mosaic") else f"{text}</VRTDataset>")
        with pytest.raises(DatasetError, match=r"names|no VRT mosaic"), open_scene(folder / "m.vrt"):
            pass
    (folder / "m.vrt").write_text(
        f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://{tmp_path}/secret.tif">]>{band.format("&x;")}</VRTDataset>'
    )
    with pytest.raises(DatasetError, match="no VRT mosaic"), open_scene(folder / "m.vrt"):
        pass
    (folder / "m.vrt").write_text(f"{python.format('a.tif')}</VRTDataset>")
    with pytest.raises(DatasetError, match="cannot be read"), open_scene(folder / "m.vrt") as scene:
        scene.read((0, 0, 200, 130))


def test_mosaics_of_mosaics_end(tmp_path: Path) -> None:
    for number in range(6):
        source = f'<SourceFilename relativeToVRT="1">m{number + 1}.vrt</SourceFilename>'
        (tmp_path / f"m{number}.vrt").write_text(
            '<VRTDataset rasterXSize="200" rasterYSize="130"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
            f"{source}</SimpleSource></VRTRasterBand></VRTDataset>"
        )
    with pytest.raises(DatasetError, match="three deep"), open_scene(tmp_path / "m0.vrt"):
        pass


def test_without_the_extra_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tif", noise())
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(DatasetError, match=r"pip install 'pslg-sam\[geo\]'"), open_scene(path):
        pass

"""One small picture in every form that image files have, each with the RGB array that everything must see."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

RGB = npt.NDArray[np.uint8]
WIDTH, HEIGHT = 44, 32
CASES = Path(__file__).parent / "data" / "cases"


@dataclass(frozen=True)
class Picture:
    """A file and what must be seen of it."""

    file_name: str
    data: bytes
    seen: RGB


def scene(bands: int = 3, seed: int = 0) -> RGB:
    """Smooth uint8[HEIGHT, WIDTH, bands]; no two sides or bands alike."""
    small = np.random.default_rng(seed).integers(20, 230, (4, 5, bands)).astype(np.float32)
    return np.asarray(cv2.resize(small, (WIDTH, HEIGHT))).reshape(HEIGHT, WIDTH, bands).astype(np.uint8)


def stretched(values: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None = None) -> RGB:
    """As the rules say, by numpy alone; gray becomes RGB, what is not ``valid`` white."""
    values = (values if values.ndim == 3 else values[:, :, None]).astype(np.float64)
    valid = np.ones(values.shape[:2], bool) if valid is None else valid
    low, high = np.percentile(values[valid], (0.5, 99.5))
    result = np.clip(np.rint((np.nan_to_num(values) - low) * 255 / (high - low)), 0, 255).astype(np.uint8)
    result[~valid] = 255
    return np.repeat(result, 3, axis=2) if result.shape[2] == 1 else result


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(values: npt.NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **{"photometric": "minisblack", **options})
    return buffer.getvalue()


def on_white(rgb: RGB, alpha: npt.NDArray[np.uint8]) -> RGB:
    white = Image.new("RGBA", (rgb.shape[1], rgb.shape[0]), "white")
    return np.array(Image.alpha_composite(white, Image.fromarray(np.dstack([rgb, alpha]))).convert("RGB"))


def pictures() -> Iterator[Picture]:
    """All of them, every file name unlike the others."""
    rgb, gray = scene(), scene(1)[:, :, 0]
    of_gray = np.repeat(gray[:, :, None], 3, axis=2)
    image, gray_image = Image.fromarray(rgb), Image.fromarray(gray)
    yield Picture("rgb.png", encoded(image), rgb)
    yield Picture("rgb.tif", encoded(image, "TIFF"), rgb)
    yield Picture("rgb.webp", encoded(image, "WEBP", lossless=True), rgb)
    jpeg = encoded(image, "JPEG")
    yield Picture("rgb.jpg", jpeg, np.asarray(Image.open(io.BytesIO(jpeg))))
    yield Picture("gray.png", encoded(gray_image), of_gray)
    bit = gray_image.point(lambda value: 255 * (value > 128)).convert("1")
    yield Picture("one_bit.png", encoded(bit), np.where(of_gray > 128, np.uint8(255), np.uint8(0)))
    palette = image.quantize(16)
    of_palette = np.array(palette.convert("RGB"))
    yield Picture("palette.png", encoded(palette), of_palette)
    hidden = np.where(np.asarray(palette) == 3, np.uint8(0), np.uint8(255))
    yield Picture("palette_transparent.png", encoded(palette, transparency=3), on_white(of_palette, hidden))
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:8] = 0
    soft = alpha.copy()
    soft[8:20] = 90
    yield Picture("la.png", encoded(Image.merge("LA", (gray_image, Image.fromarray(soft)))), on_white(of_gray, soft))
    yield Picture("rgba.png", encoded(Image.fromarray(np.dstack([rgb, soft]))), on_white(rgb, soft))
    yield Picture("rgba.tif", encoded(Image.fromarray(np.dstack([rgb, alpha])), "TIFF"), on_white(rgb, alpha))
    cmyk = image.convert("CMYK")
    yield Picture("cmyk.tif", encoded(cmyk, "TIFF"), np.array(cmyk.convert("RGB")))

    deep = scene(1).astype(np.uint16)[:, :, 0] * 201 + 300
    deep_rgb = scene().astype(np.uint16) * 201 + 300
    yield Picture("gray16.png", encoded(Image.fromarray(deep)), stretched(deep))
    yield Picture("gray16.tif", tiff(deep, byteorder=">"), stretched(deep))
    yield Picture("rgb16.png", cv2.imencode(".png", deep_rgb[:, :, ::-1])[1].tobytes(), stretched(deep_rgb))
    lzw = cv2.imencode(".tif", deep_rgb[:, :, ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()
    yield Picture("rgb16_lzw.tif", lzw, stretched(deep_rgb))
    eleven = scene().astype(np.uint16) * 8
    yield Picture("eleven_bit.tif", tiff(eleven, photometric="rgb"), stretched(eleven))
    signed = scene(1).astype(np.int16)[:, :, 0] * 60 - 9000
    yield Picture("int16.tif", tiff(signed), stretched(signed))
    large = scene(1).astype(np.uint32)[:, :, 0] * 16_000_000 + 5
    yield Picture("uint32.tif", tiff(large), stretched(large))
    unit = (scene() / 255).astype(np.float32)
    yield Picture("float_1.tif", tiff(unit, photometric="rgb"), stretched(unit))
    reflectance = (scene(1)[:, :, 0] / 255 * 10_000).astype(np.float32)
    yield Picture("float_10000.tif", tiff(reflectance, tile=(16, 32), compression="zlib"), stretched(reflectance))
    measured = np.ones((HEIGHT, WIDTH), bool)
    measured[:, :6] = False
    lost = np.where(measured, reflectance, np.float32(np.nan))
    yield Picture("float_nan.tif", tiff(lost), stretched(lost, measured))
    filled = np.where(measured[:, :, None], deep_rgb, np.uint16(0))
    gdal = [(42113, "s", 0, "0", True)]
    yield Picture("nodata.tif", tiff(filled, photometric="rgb", extratags=gdal), stretched(filled, measured))

    near_infrared = np.dstack([rgb, scene(1, seed=1)])
    yield Picture("nir_as_alpha.tif", tiff(near_infrared, photometric="rgb", extrasamples=["unassalpha"]), rgb)
    yield Picture("four_bands.tif", tiff(near_infrared, planarconfig="contig"), rgb)
    many = scene(7)
    planes = np.ascontiguousarray(many.transpose(2, 0, 1))
    yield Picture("seven_bands.tif", tiff(planes, planarconfig="separate"), many[:, :, :3])
    deep_many = many.astype(np.uint16) * 40
    seven = tiff(deep_many, planarconfig="contig", compression="zlib", predictor=True)
    yield Picture("seven_bands_uint16.tif", seven, stretched(deep_many[:, :, :3]))

    for orientation, inverse in enumerate(INVERSE, start=1):
        stored = image if inverse is None else image.transpose(inverse)
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield Picture(f"exif{orientation}.png", encoded(stored, exif=exif.tobytes()), rgb)
    turned = tiff(np.ascontiguousarray(deep[:, ::-1].T), extratags=[(274, "H", 1, 8, True)])
    yield Picture("exif8_deep.tif", turned, stretched(np.ascontiguousarray(deep[:, ::-1].T)).swapaxes(0, 1)[::-1])
    for name in ("eleven_bit_in_16", "four_bands_minisblack", "nir_as_alpha"):
        path = CASES / f"{name}.tif"
        values = tifffile.imread(path)[:, :, :3]
        yield Picture(f"case_{name}.tif", path.read_bytes(), values if values.dtype == np.uint8 else stretched(values))


_T = Image.Transpose
INVERSE = (
    None, _T.FLIP_LEFT_RIGHT, _T.ROTATE_180, _T.FLIP_TOP_BOTTOM, _T.TRANSPOSE, _T.ROTATE_90, _T.TRANSVERSE,
    _T.ROTATE_270,
)  # fmt: skip
"""How an upright picture is stored under EXIF's orientations 1 to 8."""

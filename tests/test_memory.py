"""What a server holds: nothing of what it refused, no more than its caches may, and no more the longer it runs."""

from __future__ import annotations

import ctypes
import gc
import gzip
import io
import os
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.memory import MemoryTrimmer
from backend.server.protocol import PredictRequest, validate
from backend.server.service import LabelingService
from backend.settings import Settings
from tests.server.conftest import Site, batch, encode, interactive, make_site, png, task
from tests.server.tiny import tiny_pipeline

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ARENAS = """
import ctypes, sys, threading
from backend.memory import use_few_arenas
if sys.argv[1] == "few":
    assert use_few_arenas()
barrier = threading.Barrier(16)
def work():
    barrier.wait()
    blocks = [bytearray(200_000) for _ in range(50)]
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, file)
libc.fflush(file)
"""

HUGE_PAGES = """
import sys
from backend.pipeline.loading import load_pipeline
load_pipeline("compact")
import torch
tensor = torch.ones(64 << 18)
with open("/proc/self/smaps_rollup") as lines:
    print(next(line for line in lines if line.startswith("AnonHugePages")).split()[1])
"""


@pytest.fixture
def site() -> Iterator[Site]:
    yield from make_site()


@pytest.mark.skipif(not hasattr(__import__("os"), "confstr") or sys.platform != "linux", reason="of glibc")
def test_threads_share_two_arenas() -> None:
    def arenas(how: str) -> int:
        command = [sys.executable, "-c", ARENAS, how]
        return subprocess.run(command, check=True, capture_output=True, timeout=120).stdout.count(b"<heap nr=")

    many = arenas("many")
    if many <= 2:
        pytest.skip("this C library makes few arenas by itself")
    assert arenas("few") <= 2


@pytest.mark.skipif(
    not HUGE.exists() or "never" in HUGE.read_text().split("[")[1].split("]")[0], reason="the kernel has no huge pages"
)
def test_large_tensors_of_a_process_with_models_lie_in_huge_pages() -> None:
    def kilobytes(**environment: str) -> int:
        command = [sys.executable, "-c", HUGE_PAGES]
        inherited = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
        done = subprocess.run(
            command, check=True, capture_output=True, timeout=120, text=True, env={**inherited, **environment}
        )
        return int(done.stdout)

    if "[always]" not in HUGE.read_text():
        assert kilobytes(THP_MEM_ALLOC_ENABLE="0") < 32 << 10  # as somebody wished
    assert kilobytes() >= 32 << 10  # of 64 MB: not all of it is aligned to them


def test_free_memory_is_given_back_until_the_end() -> None:
    trimming = MemoryTrimmer(seconds=0.01)
    trimming.start()
    for _ in range(500):
        if trimming.times > 2:
            break
        time.sleep(0.01)
    assert trimming.times > 2 or not hasattr(ctypes.CDLL(None), "malloc_trim")
    trimming.close()
    time.sleep(0.1)
    times = trimming.times
    time.sleep(0.1)
    assert trimming.times == times


def service_of(folder: Path, **more: Any) -> LabelingService:
    settings = Settings(state_dir=folder, image_hosts=("127.0.0.1",), model_threads=1, speck_area=4, **more)
    service = LabelingService(settings, tiny_pipeline)
    service.start()
    assert service.model.wait(60)
    return service


def click(url: str, x: float = 50.0, number: int = 1) -> dict[str, Any]:
    value = {"x": x, "y": 50, "width": 0.3, "keypointlabels": ["building"]}
    item = {
        "id": "c", "type": "keypointlabels", "from_name": "point", "to_name": "image", "is_positive": True,
        "original_width": 80, "original_height": 60, "value": value,
    }  # fmt: skip
    return interactive(task(number, url), [item])


def held(service: LabelingService) -> dict[str, tuple[int, int]]:
    """Bytes held and bytes allowed of every cache that grows with use."""
    pipeline = service.model.pipeline()
    caches: dict[str, Any] = {
        "pixels": service.images._pixels,
        "unwritten": service.images._unwritten,
        "embeddings": service.embeddings._memory,
        "logits": service.clicks._kept.logits,
        "sights": service.clicks._kept.sights,
        "outlines": service.clicks._kept.outlines,
        "region hits": service.clicks._lookup._hits,
        "region masks": service.clicks._lookup._masks,
        "tokens": pipeline.segmenter._image_tokens,  # type: ignore[attr-defined]
    }
    return {name: (cache.size, cache.capacity) for name, cache in caches.items()}


@pytest.mark.parametrize("kind", ["too many bytes", "too many pixels", "damaged", "too large to decode"])
def test_a_refused_image_leaves_nothing_behind(tmp_path: Path, site: Site, kind: str) -> None:
    # What cannot be seen in the head: 6 MB that come compressed, or a picture that breaks off at its end.
    white = encode(Image.new("RGB", (1500, 1000), "white"))
    body, headers, options = {
        "too many bytes": (gzip.compress(bytes(6_000_000)), {"Content-Encoding": "gzip"}, {"image_bytes": 4_000_000}),
        "too many pixels": (white, {}, {"image_pixels": 1_000_000}),
        "damaged": (white[:-3000], {}, {}),
        "too large to decode": (white, {}, {"decode_memory": 4_000_000}),
    }[kind]
    service = service_of(tmp_path, **options)
    url = site.put("/a.png", body, **headers)
    gc.disable()
    tracemalloc.start()
    try:
        for round_ in range(7):
            assert service.predict(validate(PredictRequest, batch(task(1, url)))) == [[]]
            assert service.predict(validate(PredictRequest, click(url)))[0]["result"] == []  # type: ignore[call-overload]
            if round_ == 1:
                before = tracemalloc.get_traced_memory()[0]
        assert tracemalloc.get_traced_memory()[0] - before < 500_000
    finally:
        tracemalloc.stop()
        gc.enable()
        service.close()
    assert not any(bytes_ for name, (bytes_, _) in held(service).items() if name != "unwritten")


def anonymous() -> int:
    """Bytes of this process that no file stands behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_levels_off_however_many_images_are_clicked_on(tmp_path: Path, site: Site) -> None:
    service = service_of(tmp_path, image_memory=200_000, embedding_memory=100_000, embedding_disk=2_000_000)
    service.clicks._kept.logits.capacity = 100_000
    service.model.pipeline().segmenter._image_tokens.capacity = 100_000  # type: ignore[attr-defined]
    urls = [site.put(f"/{number}.png", png(seed=number)) for number in range(60)]

    def clicks(first: int, count: int) -> None:
        for number in range(first, first + count):
            url = urls[number % len(urls)]
            service.predict(validate(PredictRequest, click(url, 20 + number % 60, number % len(urls))))

    def crowd(first: int) -> None:
        threads = [threading.Thread(target=clicks, args=(first + 15 * part, 15)) for part in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)

    crowd(0)
    gc.collect()
    begin = anonymous()
    for round_ in range(1, 4):
        crowd(120 * round_)
    gc.collect()
    grown = anonymous() - begin
    for name, (bytes_, allowed) in held(service).items():
        assert bytes_ <= allowed, name
    assert grown < 25_000_000
    service.close()


def thin(width: int, height: int) -> bytes:
    """A PNG of one colour, made without its pixels being in memory."""
    row = b"\0" + bytes((width + 7) // 8)
    pack = zlib.compressobj(1)
    data = b"".join(pack.compress(row) for _ in range(height)) + pack.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(60_000_000, 1), (1, 40_000_000 // 100), (70_000, 10), (50_000, 50_000)])
def test_giant_images_are_refused_at_once(tmp_path: Path, site: Site, width: int, height: int) -> None:
    data = (
        thin(width, height)
        if height < 50_000 or width == 1
        else thin(width, 1).replace(
            width.to_bytes(4, "big") + (1).to_bytes(4, "big"), width.to_bytes(4, "big") + height.to_bytes(4, "big")
        )
    )
    assert Image.open(io.BytesIO(thin(3, 5))).size == (3, 5)
    service = service_of(tmp_path)
    url = site.put("/thin.png", data)
    other = site.put("/well.png", png())
    tracemalloc.start()
    try:
        slots = service.predict(validate(PredictRequest, batch(task(1, url), task(2, other))))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
        service.close()
    assert slots[0] == []
    assert isinstance(slots[1], dict)


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "L", "I;16", "turned"])
def test_decoding_takes_no_more_than_it_asks_for(kind: str) -> None:
    from contextlib import contextmanager

    from dataset_tools import image_files

    side = 1500
    values = np.random.default_rng(0).integers(0, 255, (side, side, 4), dtype=np.uint8)
    if kind == "turned":
        exif = Image.Exif()
        exif[0x112] = 6
        data = encode(Image.fromarray(values[:, :, :3]), "JPEG", exif=exif)
    elif kind == "I;16":
        data = encode(Image.fromarray(values[:, :, 0].astype(np.uint16) * 256))
    else:
        shown = values if kind == "RGBA" else values[:, :, :3] if kind == "RGB" else values[:, :, 0]
        data = encode(Image.fromarray(shown))
    del values
    asked: list[int] = []

    @contextmanager
    def admit(size: int) -> Iterator[None]:
        asked.append(size)
        tracemalloc.start()
        yield
        asked.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    image_files.decode(data, admit=admit)
    estimate, peak = asked
    # Pillow's own picture, up to four bytes a pixel, is not traced; the strips are of a fixed size.
    assert peak + 4 * side * side < estimate + 16_000_000

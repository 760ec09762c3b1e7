from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.pipeline.segmentation.embedding_store import Count, EmbeddingStore, embedding_address
from backend.pipeline.segmentation.sam import SamSegmenter
from backend.pipeline.segmentation.windows import window_for
from backend.pipeline.types import Box, Embedding, Image
from tests.conftest import REPOSITORY
from tests.pipeline.segmentation.small_sams import small_compact_sam

WINDOW = Box(-3.0, 0.0, 61.0, 64.0)


def address(number: int = 0) -> str:
    return embedding_address(f"image {number}", "encoder", WINDOW)


def embedding(number: int = 0, dtype: str = "float16") -> Embedding:
    features = np.random.default_rng(number).normal(size=(8, 16, 16)).astype(dtype)
    return Embedding(address(number), features, (600, 800), WINDOW)


def make(number: int = 0, calls: list[int] | None = None) -> Callable[[], Embedding]:
    def compute() -> Embedding:
        if calls is not None:
            calls.append(number)
        return embedding(number)

    return compute


def never() -> Embedding:
    raise AssertionError("computed although it was stored")


def same(a: Embedding, b: Embedding) -> bool:
    return (a.key, a.image_size, a.window) == (b.key, b.image_size, b.window) and (
        a.features.dtype == b.features.dtype and np.array_equal(a.features, b.features)
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_read_is_what_was_computed(tmp_path: Path, dtype: str) -> None:
    made = embedding(dtype=dtype)
    EmbeddingStore(tmp_path, 10**7, 10**7).get_or_compute(address(), lambda: made)
    read = EmbeddingStore(tmp_path, 10**7, 10**7).get_or_compute(address(), never)
    assert same(read, made)
    assert read.features.flags.writeable


def test_another_process_finds_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.pipeline.segmentation.test_embedding_store import address, embedding\n"
        "from backend.pipeline.segmentation.embedding_store import EmbeddingStore\n"
        "EmbeddingStore(Path(sys.argv[1]), 10**7, 10**7).get_or_compute(address(), embedding)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=REPOSITORY)
    assert same(EmbeddingStore(tmp_path, 10**7, 10**7).get_or_compute(address(), never), embedding())


def test_the_address_tells_image_encoder_and_window_apart() -> None:
    addresses = {
        embedding_address(image, encoder, window)
        for image in ("a", "b")
        for encoder in ("x", "y")
        for window in (Box(0, 0, 1, 1), Box(0, 0, 1, 2))
    }
    assert len(addresses) == 8
    assert embedding_address("a", "x", Box(0, 0, 1, 1)) == embedding_address("a", "x", Box(0.0, 0.0, 1.0, 1.0))


def counting(counted: Counter[str]) -> dict[Count, Callable[[], object]]:
    return {what: partial(counted.update, [what]) for what in get_args(Count)}


@given(st.data())
def test_damaged_files_are_noticed_and_made_again(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("store")
    EmbeddingStore(folder, 10**7, 0).get_or_compute(address(), embedding)
    (path,) = folder.glob("*/*.embedding")
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)

    counted: Counter[str] = Counter()
    store = EmbeddingStore(folder, 10**7, 0, counting(counted))
    found = store.get_or_compute(address(), embedding)
    assert same(found, embedding())
    assert counted == {"corrupt": 1, "computed": 1}
    assert same(EmbeddingStore(folder, 10**7, 0).get_or_compute(address(), never), embedding())


def test_ten_clicks_at_once_encode_once(tmp_path: Path) -> None:
    store, calls, started, found = EmbeddingStore(tmp_path, 10**7, 10**7), list[int](), threading.Barrier(10), []

    def slow() -> Embedding:
        calls.append(1)
        threading.Event().wait(0.2)
        return embedding()

    def click() -> None:
        started.wait()
        found.append(store.get_or_compute(address(), slow))

    threads = [threading.Thread(target=click) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(found) == 10


def test_a_failure_reaches_the_callers_and_is_not_kept(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, 10**7, 10**7)

    def fail() -> Embedding:
        raise MemoryError("no room")

    with pytest.raises(MemoryError):
        store.get_or_compute(address(), fail)
    assert same(store.get_or_compute(address(), embedding), embedding())


def test_the_disk_bound_holds_and_the_least_used_goes_first(tmp_path: Path) -> None:
    size = embedding().features.nbytes + 300
    counted: Counter[str] = Counter()
    store = EmbeddingStore(tmp_path, 10 * size, 0, counting(counted))
    for number in range(10):
        store.get_or_compute(address(number), make(number))
        if number:
            store.get_or_compute(address(0), never)  # in use all the time
    for number in range(10, 30):
        store.get_or_compute(address(number), make(number))
        store.get_or_compute(address(0), never)
        assert sum(path.stat().st_size for path in tmp_path.glob("*/*.embedding")) <= 10 * size
    assert counted["evicted-disk"] > 0
    assert address(0) in store
    assert address(1) not in store
    assert address(29) in store


def test_the_memory_bound_holds(tmp_path: Path) -> None:
    size = embedding().features.nbytes
    counted: Counter[str] = Counter()
    store = EmbeddingStore(tmp_path, 10**7, 3 * size, counting(counted))
    for number in range(10):
        store.get_or_compute(address(number), make(number))
    assert store.bytes_in_memory <= 3 * size
    assert counted["evicted-memory"] == 7


def test_a_bound_smaller_than_one_embedding_stores_nothing(tmp_path: Path) -> None:
    store, calls = EmbeddingStore(tmp_path, 10, 10), list[int]()
    for _ in range(2):
        store.get_or_compute(address(), make(0, calls))
    assert len(calls) == 2
    assert not list(tmp_path.glob("*/*"))


def test_a_folder_that_cannot_be_written_does_not_stop_clicks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = EmbeddingStore(tmp_path / "store", 10**7, 10**7)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / address()[:2]).write_text("a file where a folder should be")
    assert same(store.get_or_compute(address(), embedding), embedding())
    assert "not stored" in caplog.text


def test_leftovers_of_a_process_that_died_are_removed(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, 10**7, 10**7)
    store.get_or_compute(address(), embedding)
    part = tmp_path / address()[:2] / ".x.embedding.1-2.part"
    part.write_bytes(b"half")
    store.sweep()
    assert part.exists()  # its writer may be at work
    os.utime(part, (0, 0))
    store.sweep()
    assert not part.exists()
    assert address() in store


def test_an_image_is_embedded_under_its_name_and_fetched_only_for_that(tmp_path: Path) -> None:
    segmenter = SamSegmenter(small_compact_sam(), window_rule=window_for)
    store = EmbeddingStore(tmp_path, 10**8, 10**8)
    fetched: list[int] = []

    def pixels() -> Image:
        fetched.append(1)
        return np.zeros((60, 80, 3), np.uint8)

    window = Box(10.0, 10.0, 50.0, 50.0)
    first = store.embed(segmenter, "sha256 of the file", pixels, window)
    assert first.key == embedding_address("sha256 of the file", segmenter.encoder_hash, window)
    assert same(first, store.embed(segmenter, "sha256 of the file", pixels, window))
    assert fetched == [1]


def test_an_embedding_that_was_stored_under_another_key_has_the_name_it_is_found_by(tmp_path: Path) -> None:
    # Up to now the key inside the file was made of the pixels' hash, the file's name of the image file's.
    old = replace(embedding(), key="another")
    EmbeddingStore(tmp_path, 10**8, 10**8).get_or_compute(address(), lambda: old)
    found = EmbeddingStore(tmp_path, 10**8, 10**8).read(address())
    assert found is not None
    assert found.key == address()
    assert np.array_equal(found.features, old.features)

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from backend.server.answers.background import JobPool


class Work:
    """Jobs that wait to be released; ``begun`` are their names in the order in which threads took them."""

    def __init__(self, pool: JobPool) -> None:
        self.pool = pool
        self.begun: list[str] = []
        self.release = threading.Event()
        self.changed = threading.Condition()

    def job(self, name: str, *, waits: bool = True) -> Callable[[], str]:
        def run() -> str:
            with self.changed:
                self.begun.append(name)
                self.changed.notify_all()
            if waits:
                self.release.wait(60)
            return name

        return run

    def await_begun(self, count: int) -> list[str]:
        with self.changed:
            self.changed.wait_for(lambda: len(self.begun) >= count, 30)
        time.sleep(0.05)  # for one too many to begin
        return list(self.begun)


@pytest.fixture
def work() -> Iterator[Work]:
    found = Work(JobPool(4, "test"))
    yield found
    found.release.set()
    found.pool.close()


def test_a_host_that_hangs_never_has_all_fetchers(work: Work) -> None:
    for number in range(20):
        work.pool.submit(work.job(f"sick {number}"), project=1, host="sick.example")
    assert work.await_begun(2) == ["sick 0", "sick 1"]
    other = work.pool.submit(work.job("well", waits=False), project=2, host="well.example")
    assert other.result(30) == "well"
    for number in range(20):
        work.pool.submit(work.job(f"opened {number}"), project=3, host="sick.example")
    assert work.pool.submit(work.job("still", waits=False), host="well.example").result(30) == "still"


def test_projects_take_turns_however_much_each_has_asked_for() -> None:
    pool = JobPool(1, "test")
    work = Work(pool)
    first = pool.submit(work.job("first"), project=0)
    assert work.await_begun(1) == ["first"]
    futures = [pool.submit(work.job(f"long {n}"), project=1) for n in range(4)]
    futures += [pool.submit(work.job(f"short {n}"), project=2) for n in range(2)]
    work.release.set()
    for future in [first, *futures]:
        future.result(30)
    assert work.begun == ["first", "long 0", "short 0", "long 1", "short 1", "long 2", "long 3"]
    pool.close()


def test_an_error_keeps_nothing_that_was_in_hand() -> None:
    pool = JobPool(1, "test")
    seen: list[weakref.ref[np.ndarray]] = []  # type: ignore[type-arg]

    def fail() -> None:
        image = np.zeros((1000, 1000), np.uint8)
        seen.append(weakref.ref(image))
        try:
            raise ValueError("inner")
        except ValueError as error:
            raise RuntimeError("outer") from error

    gc.disable()
    try:
        future = pool.submit(fail)
        error = future.exception(30)
        assert isinstance(error, RuntimeError)
        assert error.__traceback__ is not None
        assert seen[0]() is None
    finally:
        gc.enable()
    pool.close()

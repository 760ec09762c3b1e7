from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import numpy as np
import pytest

from backend.turns import JobPool, Turns, Urgency


class Work:
    """What takes turns; the first one lasts until it is released."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.release = threading.Event()

    def begin(self, turns: Turns, name: str, urgency: Urgency) -> threading.Thread:
        def run() -> None:
            self.begun.append(name)
            self.release.wait(30)

        thread = threading.Thread(target=turns.run, args=(run, urgency))
        thread.start()
        return thread

    def await_begun(self) -> None:
        while not self.begun:
            time.sleep(0.01)


def test_the_most_urgent_is_next_and_equals_keep_their_order() -> None:
    turns, work = Turns(), Work()
    threads = [work.begin(turns, "first", (1, 0.0))]
    work.await_begun()
    asked = [("batch 1", (1, 0.0)), ("batch 2", (1, 0.0)), ("late click", (0, 9.0)), ("early click", (0, 2.0))]
    for number, (name, urgency) in enumerate(asked):
        threads.append(work.begin(turns, name, urgency))
        while len(turns._waiting) <= number:
            time.sleep(0.01)
    work.release.set()
    for thread in threads:
        thread.join(30)
    assert work.begun == ["first", "early click", "late click", "batch 1", "batch 2"]


def test_after_an_urgent_turn_the_next_urgent_one_goes_before_a_batch_that_waited() -> None:
    turns, work = Turns(grace=1.0), Work()
    first = work.begin(turns, "opened", (0, 0.0))
    work.await_begun()
    batch = work.begin(turns, "batch", (1, 0.0))
    while not turns._waiting:
        time.sleep(0.01)
    work.release.set()
    first.join(30)
    time.sleep(0.2)  # its image is fetched meanwhile
    work.begin(turns, "opened next", (0, 1.0)).join(30)
    batch.join(30)
    assert work.begun == ["opened", "opened next", "batch"]


def test_all_turns_are_of_one_thread_which_ends_when_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.turns._IDLE", 0.05)
    turns, who = Turns(), ContextVar("who", default="nobody")
    who.set("the caller")
    first, seen = turns.run(lambda: (threading.current_thread(), who.get()))
    assert seen == "the caller"
    assert first is not threading.current_thread()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: turns.run(threading.current_thread), range(20))) == {first}
    first.join(30)
    assert not first.is_alive()
    with pytest.raises(KeyError, match="3"):
        turns.run(lambda: {1: 2}[3])


class Jobs:
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
def jobs() -> Iterator[Jobs]:
    found = Jobs(JobPool(4, "test"))
    yield found
    found.release.set()
    found.pool.close()


def test_a_host_that_hangs_never_has_all_fetchers(jobs: Jobs) -> None:
    for number in range(20):
        jobs.pool.submit(jobs.job(f"sick {number}"), project=1, host="sick.example")
    assert jobs.await_begun(2) == ["sick 0", "sick 1"]
    other = jobs.pool.submit(jobs.job("well", waits=False), project=2, host="well.example")
    assert other.result(30) == "well"
    for number in range(20):
        jobs.pool.submit(jobs.job(f"opened {number}"), project=3, host="sick.example")
    assert jobs.pool.submit(jobs.job("still", waits=False), host="well.example").result(30) == "still"


def test_projects_take_turns_however_much_each_has_asked_for() -> None:
    pool = JobPool(1, "test")
    jobs = Jobs(pool)
    first = pool.submit(jobs.job("first"), project=0)
    assert jobs.await_begun(1) == ["first"]
    futures = [pool.submit(jobs.job(f"long {n}"), project=1) for n in range(4)]
    futures += [pool.submit(jobs.job(f"short {n}"), project=2) for n in range(2)]
    jobs.release.set()
    for future in [first, *futures]:
        future.result(30)
    assert jobs.begun == ["first", "long 0", "short 0", "long 1", "short 1", "long 2", "long 3"]
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

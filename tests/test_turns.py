from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest

from backend.turns import BytesInFlight, DecodeMemory, FairLock, Turns, Urgency
from dataset_tools.errors import ImageError


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


def test_a_fair_lock_is_had_in_the_order_of_coming() -> None:
    lock, had = FairLock(), []

    def take(number: int) -> None:
        with lock:
            had.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(5)]
    with lock:
        for number, thread in enumerate(threads):
            thread.start()
            while len(lock._line) < number + 2:
                time.sleep(0.01)
    for thread in threads:
        thread.join(30)
    assert had == [0, 1, 2, 3, 4]


def test_bytes_in_flight_are_bounded_together() -> None:
    budget = BytesInFlight(100)
    with budget.account() as alone:
        alone(90)
        alone(90)  # one image may be larger than the bound, if it is the only one
        with budget.account() as other, pytest.raises(ImageError, match="PSLG_IMAGE_BYTES"):
            other(1)
    with budget.account() as one, budget.account() as two:
        one(50)
        two(50)
        with pytest.raises(ImageError):
            one(1)
    assert budget._held == 0


def test_decoding_waits_for_memory_and_refuses_what_never_fits() -> None:
    memory = DecodeMemory(100)
    with pytest.raises(ImageError, match="PSLG_DECODE_MEMORY"), memory.holding(101):
        pass
    order: list[str] = []
    entered = threading.Event()

    def large() -> None:
        entered.set()
        with memory.holding(80):
            order.append("large")

    with memory.holding(60):
        thread = threading.Thread(target=large)
        thread.start()
        entered.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "large"]

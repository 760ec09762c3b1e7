from __future__ import annotations

import threading
import time

import pytest

from backend.turns import BodyBudget, BytesInFlight, DecodeMemory, Turns
from dataset_tools.errors import ImageError, UnavailableError


def test_the_most_urgent_is_next_and_equals_keep_their_order() -> None:
    turns = Turns()
    served: list[str] = []
    threads = []

    def wait(name: str, urgency: tuple[int, float]) -> None:
        with turns.turn(urgency):
            served.append(name)

    with turns.turn():
        asked = [("batch 1", (1, 0.0)), ("batch 2", (1, 0.0)), ("late click", (0, 9.0)), ("early click", (0, 2.0))]
        for name, urgency in asked:
            thread = threading.Thread(target=wait, args=(name, urgency))
            thread.start()
            threads.append(thread)
            while len(turns._waiting) < len(threads):
                time.sleep(0.01)
    for thread in threads:
        thread.join(30)
    assert served == ["early click", "late click", "batch 1", "batch 2"]


def test_after_an_urgent_turn_the_next_urgent_one_goes_before_a_batch_that_waited() -> None:
    turns = Turns(grace=30.0)
    served: list[str] = []

    def work(name: str, urgency: tuple[int, float]) -> None:
        with turns.turn(urgency):
            served.append(name)

    with turns.turn((1, 0.0)):
        pass
    with turns.turn((0, 0.0)):
        batch = threading.Thread(target=work, args=("batch", (1, 0.0)), daemon=True)
        batch.start()
        while not turns._waiting:
            time.sleep(0.01)
    time.sleep(0.05)  # for a batch that does not wait
    work("opened", (0, 1.0))
    assert served == ["opened"]
    turns._grace = 0.0
    work("opened", (0, 2.0))
    batch.join(30)
    assert served == ["opened", "opened", "batch"]


def test_large_bodies_are_held_within_a_budget() -> None:
    budget = BodyBudget(100, small=10)
    refused = pytest.raises(UnavailableError, match="ask later")
    with budget.holding(80), budget.holding(10), budget.holding(20), refused, budget.holding(11):
        pass
    with budget.holding(500):
        pass


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

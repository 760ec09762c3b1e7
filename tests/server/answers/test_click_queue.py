from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from backend.server.answers.clicks import ClickQueue
from dataset_tools.errors import UnavailableError


class Crowd:
    """Requests in threads of their own; each records its name when it is its turn, and waits to be released."""

    def __init__(self, queue: ClickQueue) -> None:
        self.queue = queue
        self.served: list[str] = []
        self.superseded: list[str] = []
        self.release = {}  # type: dict[str, threading.Event]
        self.changed = threading.Condition()
        self.threads: list[threading.Thread] = []

    def enter(self, name: str, task: int, prompts: Sequence[bytes]) -> None:
        before = len(self.queue)
        self.release[name] = threading.Event()

        def run() -> None:
            with self.queue.turn(task, prompts) as granted:
                with self.changed:
                    (self.served if granted else self.superseded).append(name)
                    self.changed.notify_all()
                if granted:
                    self.release[name].wait(60)

        thread = threading.Thread(target=run)
        self.threads.append(thread)
        thread.start()
        with self.changed:
            self.changed.wait_for(lambda: len(self.queue) > before or name in self.served + self.superseded, 30)

    def finish(self, name: str) -> None:
        done = len(self.served)
        self.release[name].set()
        with self.changed:
            self.changed.wait_for(lambda: len(self.served) > done or len(self.queue) == 0, 1)

    def end(self) -> None:
        for event in self.release.values():
            event.set()
        for thread in self.threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self.threads)


def test_the_newest_request_of_a_task_goes_first_and_tasks_take_turns() -> None:
    crowd = Crowd(ClickQueue(10, running=1))
    crowd.enter("running", 1, [b"a"])
    crowd.enter("task 2, old", 2, [b"x"])
    crowd.enter("task 3", 3, [b"z"])
    crowd.enter("task 2, new", 2, [b"y"])
    for name in ("running", "task 2, new", "task 2, old"):
        crowd.finish(name)
    crowd.end()
    assert crowd.served == ["running", "task 2, new", "task 2, old", "task 3"]


def test_a_waiting_beginning_of_a_newer_request_is_answered_at_once() -> None:
    crowd = Crowd(ClickQueue(10, running=1))
    crowd.enter("running", 1, [b"a"])
    crowd.enter("one click", 2, [b"x"])
    crowd.enter("other annotator", 2, [b"w"])
    crowd.enter("other task", 3, [b"x"])
    crowd.enter("two clicks", 2, [b"x", b"y"])
    with crowd.changed:
        assert crowd.changed.wait_for(lambda: crowd.superseded == ["one click"], 30)
    crowd.end()
    assert sorted(crowd.served) == ["other annotator", "other task", "running", "two clicks"]


def test_a_running_request_and_an_undo_are_not_superseded() -> None:
    crowd = Crowd(ClickQueue(10, running=1))
    crowd.enter("one click", 2, [b"x"])
    crowd.enter("two clicks", 2, [b"x", b"y"])
    crowd.enter("undone", 2, [b"x"])
    crowd.end()
    assert crowd.superseded == []
    assert len(crowd.served) == 3


def test_beyond_the_bound_requests_are_refused_and_places_come_back() -> None:
    crowd = Crowd(ClickQueue(2, running=1))
    crowd.enter("first", 1, [b"a"])
    crowd.enter("second", 2, [b"b"])
    with pytest.raises(UnavailableError, match="PSLG_CLICK_QUEUE"), crowd.queue.turn(3, [b"c"]):
        pass
    crowd.end()
    with crowd.queue.turn(3, [b"c"]) as granted:
        assert granted
    assert len(crowd.queue) == 0


def test_sixteen_annotators_are_all_served() -> None:
    crowd = Crowd(ClickQueue(32))
    for number in range(16):
        crowd.enter(str(number), number, [b"click"])
    crowd.end()
    assert len(crowd.served) == 16


def test_a_text_prompt_neither_waits_here_nor_holds_up_clicks() -> None:
    queue = ClickQueue(3, running=1)
    with (
        queue.turn(1, [b"text"], immediate=True) as first,
        queue.turn(1, [b"text", b"x"]) as click,
        queue.turn(2, [b"text"], immediate=True) as second,
    ):
        assert first
        assert click
        assert second
        with pytest.raises(UnavailableError), queue.turn(3, [b"c"]):
            pass


def test_an_error_in_a_turn_frees_the_place() -> None:
    queue = ClickQueue(1, running=1)
    with pytest.raises(ValueError, match="bad"), queue.turn(1, [b"a"]):
        raise ValueError("bad")
    with queue.turn(1, [b"a"]) as granted:
        assert granted


def test_who_waits_for_an_image_keeps_nobody_from_working_but_is_counted() -> None:
    queue = ClickQueue(3, running=1, most=4)
    leave = threading.Event()

    def absent(*, fetching: bool) -> threading.Thread:
        entered = threading.Event()

        def run() -> None:
            with queue.turn(object(), [b"x"]), queue.away(fetching=fetching):
                entered.set()
                leave.wait(60)

        thread = threading.Thread(target=run)
        thread.start()
        assert entered.wait(30)
        return thread

    threads = [absent(fetching=False), absent(fetching=True)]
    with queue.turn(1, [b"a"]) as granted:
        assert granted
    threads += [absent(fetching=True), absent(fetching=True)]
    with pytest.raises(UnavailableError, match="3 of them for images from elsewhere"), queue.turn(2, [b"b"]):
        pass
    leave.set()
    for thread in threads:
        thread.join(30)
    assert len(queue) == 0

from __future__ import annotations

import threading
import time

from backend.turns import Turns


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

"""What ordering a large project costs: ``python -m benchmarks.ranking``; CPU seconds and memory by strategy.

Candidates are drawn: random scores, categories and features, three tasks to an image, 500 labelled. The last row finds
near-duplicates by perceptual hash, which ``pslg rank`` does once before.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np

from backend.learning.ranking.image_features import ImageLook, same_look
from backend.learning.ranking.strategies import STRATEGIES, Candidate, order

_FEATURES = 256
_TO_AN_IMAGE = 3
_LABELLED = 500


def candidates(count: int) -> list[Candidate]:
    """Drawn candidates, the same in every run."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(count // _TO_AN_IMAGE + 1, _FEATURES)).astype(np.float32)
    return [
        Candidate(
            key=number,
            score=float(generator.random()),
            disagreement=float(generator.random()),
            category=f"category {number % 10}",
            features=features[number // _TO_AN_IMAGE],
            image_key=str(number // _TO_AN_IMAGE),
        )
        for number in range(count)
    ]


def measure(count: int) -> dict[str, float]:
    """Strategy -> CPU seconds; ``peak MB`` of the whole process at last."""
    drawn = candidates(count + _LABELLED)
    waiting, labelled = drawn[:count], drawn[count:]
    rows = {}
    for strategy in STRATEGIES:
        start = time.process_time()
        order(waiting, strategy, labelled)
        rows[strategy] = round(time.process_time() - start, 2)
    hashes = np.random.default_rng(1).integers(0, 256, (count // _TO_AN_IMAGE, 32), dtype=np.uint8)
    empty = np.zeros(0, np.float32)
    start = time.process_time()
    same_look({str(number): ImageLook(empty, bits) for number, bits in enumerate(hashes)})
    rows["perceptual hashes"] = round(time.process_time() - start, 2)
    rows["peak MB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", nargs="*", type=int, default=[20_000, 50_000], help="numbers of tasks")
    for count in parser.parse_args().counts:
        print(json.dumps({"tasks": count, **measure(count)}), flush=True)


if __name__ == "__main__":
    main()

"""Mutated requests and files against every door: ``python -m benchmarks.fuzz --count 100000``.

- ``routes``: the server's routes with bodies as Label Studio sends them, changed at random places (drafts with brush
  codes, polygons, clicks, boxes, strokes, texts, webhooks, set-ups). Wrong is a 500, an answer that takes more than ten
  seconds of CPU time, a slot too few, a region whose brush code cannot be read.
- ``importers``: every dataset format that is read, exports of Label Studio, pictures, weights, brush codes. Wrong is
  every error but the project's own, and more than ten seconds.

A crash of the process shows by its exit status; ``--keep`` writes the input at work, and those that went wrong, to a
folder. The same seed gives the same inputs.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fuzz_importers import fuzz_importers
from benchmarks.fuzz_routes import fuzz_routes
from benchmarks.mutations import Keep, Outcome

PARTS = {"routes": fuzz_routes, "importers": fuzz_importers}


def fuzz(parts: Sequence[str], count: int, seed: int, keep: Path | None = None) -> dict[str, Outcome]:
    """``count`` inputs to the ``parts`` together, in a folder that is removed."""
    found = {}
    for part in parts:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's and numpy's, on damaged files
            found[part] = PARTS[part](count // len(parts), seed, Path(folder), Keep(keep))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="inputs to all parts together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--keep", type=Path, help="folder for the inputs that went wrong")
    arguments = parser.parse_args()
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    begin = time.process_time()
    found = fuzz(arguments.parts, arguments.count, arguments.seed, arguments.keep)
    result = {part: outcome.shown() for part, outcome in found.items()}
    print(
        json.dumps({**result, "seed": arguments.seed, "cpu_seconds": round(time.process_time() - begin, 1)}, indent=1)
    )
    sys.exit(1 if any(outcome.wrong for outcome in found.values()) else 0)


if __name__ == "__main__":
    main()

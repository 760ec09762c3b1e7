"""CPU seconds from an image and an expression to its masks.

    python -m benchmarks.expressions --data DIR --split val

Each expression is answered twice: about an image of which nothing is known, and about the same image again, whose
detections and embeddings are then kept, as the server keeps them. Means, all cores together.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import cache, partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from backend.evaluation.expressions import read_questions
from backend.pipeline import PslgSam, load_pipeline
from backend.pipeline.types import Box, Embedding, Image
from dataset_tools.image_files import read
from dataset_tools.labelled import spread


def cpu_seconds(pipeline: PslgSam, image: Image, expression: str) -> tuple[float, float]:
    """For ``expression`` about an ``image`` that the pipeline has not seen yet, and about it once more."""
    embed_once = cache(partial(pipeline.embed, image))

    def embed(_: Image, window: Box | None) -> Embedding:
        return embed_once(window)

    moments = [time.process_time()]
    for _ in range(2):
        pipeline.prelabel(image, expression, embed=embed)
        moments.append(time.process_time())
    return moments[1] - moments[0], moments[2] - moments[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", default="compact")
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int, default=100, help="so many expressions, spread evenly")
    arguments = parser.parse_args()
    pipeline = load_pipeline(arguments.config)
    examples = spread(read_questions(arguments.data, arguments.split), arguments.limit)
    seconds = []
    for number, example in enumerate(tqdm(examples, unit="expression", mininterval=5)):
        image = read(example.image.path).copy()
        image[0, 0] = number % 256, number // 256, 0  # another image to the caches, the same to the networks
        seconds.append(cpu_seconds(pipeline, image, example.expression.text))
    first, again = np.mean(seconds, axis=0)
    report = {"n": len(seconds), "nothing known": round(float(first), 4), "all known": round(float(again), 4)}
    print(json.dumps({**report, "model_version": pipeline.model_version}, indent=1))


if __name__ == "__main__":
    main()

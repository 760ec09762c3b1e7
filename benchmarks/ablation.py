"""What CFPG and MBO are worth: every combination on one dataset, ``python -m benchmarks.ablation --data DIR``.

Variants: neither stage, CFPG alone, MBO alone, both for every category, and the config as it is (its skipped categories
included). Boxes and embeddings are computed once and shared, so that only the stages differ.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tqdm import tqdm

from backend.evaluation.expressions import Boxes, evaluate, read_questions
from backend.pipeline import PipelineConfig, PslgSam, load_config, load_pipeline
from backend.pipeline.types import Box, Embedding, GroundingResult, Image, hash_image
from dataset_tools import atomic
from dataset_tools.image_files import read
from dataset_tools.labelled import spread
from dataset_tools.metrics import CONVENTIONS


class Remembered:
    """A pipeline's models with their answers for the images seen so far; images are told apart by their pixels."""

    def __init__(self, pipeline: PslgSam) -> None:
        self._pipeline = pipeline
        self._groundings: dict[tuple[str, str], GroundingResult] = {}
        self._embeddings: dict[tuple[str, Box | None], Embedding] = {}

    @property
    def known_categories(self) -> frozenset[str] | None:
        return self._pipeline.grounder.known_categories

    def ground(
        self, image: Image, expression: str, *, key: str | None = None, labels: Collection[str] = ()
    ) -> GroundingResult:
        key = key or hash_image(image)
        if (key, expression) not in self._groundings:
            self._groundings[key, expression] = self._pipeline.ground(image, expression, key=key, labels=labels)
        return self._groundings[key, expression]

    def embed(self, image: Image, window: Box | None = None, *, key: str | None = None) -> Embedding:
        key = key or hash_image(image)
        if (key, window) not in self._embeddings:
            self._embeddings[key, window] = self._pipeline.segmenter.embed(image, window, key=key)
        return self._embeddings[key, window]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline.segmenter, name)


def variants(config: PipelineConfig) -> dict[str, PipelineConfig]:
    """Name -> config of each variant."""
    everywhere = config.model_copy(
        update={
            "foreground_points": config.foreground_points.model_copy(update={"enabled": True, "skip_categories": ()}),
            "boundary": config.boundary.model_copy(update={"enabled": True, "skip_categories": ()}),
        }
    )
    return {
        "neither": everywhere.ablated(foreground_points=False, boundary=False),
        "CFPG": everywhere.ablated(boundary=False),
        "MBO": everywhere.ablated(foreground_points=False),
        "both": everywhere,
        "as configured": config,
    }


def table(reports: dict[str, dict[str, Any]], part: str | None) -> str:
    """Markdown: one row per variant; ``part`` is a key of the report, None for its own figures."""
    chosen = {name: report[part] if part else report for name, report in reports.items()}
    categories = list(next(iter(chosen.values()))["by_category"])
    lines = ["| | n | mIoU | oIoU | P@0.5 | P@0.7 | P@0.9 | " + " | ".join(categories) + " |"]
    lines.append("|---" * (7 + len(categories)) + "|")
    for name, values in chosen.items():
        figures = [values[key] for key in ("mIoU", "oIoU", "P@0.5", "P@0.7", "P@0.9")]
        figures += [values["by_category"][category]["mIoU"] for category in categories]
        lines.append(f"| {name} | {values['n']} | " + " | ".join(f"{100 * figure:.1f}" for figure in figures) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", default="compact")
    parser.add_argument("--split")
    parser.add_argument("--limit", type=int)
    parser.add_argument(
        "--boxes", choices=["ground-truth", "predicted"], nargs="+", default=["ground-truth", "predicted"]
    )
    parser.add_argument("--out", type=Path, help="write all reports as JSON")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    loaded = load_pipeline(config)
    examples = spread(read_questions(arguments.data, arguments.split), arguments.limit)
    everything: dict[str, Any] = {}
    boxes: Boxes
    for boxes in arguments.boxes:
        models = Remembered(loaded)
        reports = {}
        for name, variant in variants(config).items():
            pipeline = PslgSam(models, models, variant, loaded.model_version)
            with tqdm(total=len(examples), desc=f"{boxes}, {name}", unit="expression", mininterval=10) as bar:
                result = evaluate(
                    pipeline, examples, read, boxes=boxes, convention=CONVENTIONS["native"], progress=bar.update
                )
            reports[name] = result.report()
        print(f"\n{boxes} boxes, {loaded.model_version}, split {arguments.split}, {len(examples)} expressions\n")
        print(table(reports, "instances" if boxes == "ground-truth" else None))
        everything[boxes] = reports
    if arguments.out is not None:
        atomic.write_text(arguments.out, json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()

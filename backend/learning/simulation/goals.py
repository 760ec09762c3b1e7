"""What a simulation's rounds do not show of the loop's goals: a category's first objects, and the time of a training.

Kept in the simulation's folder as they are measured: ``first_<seed>.json``, ``training.json``; ``table.md`` at the end.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from backend.learning.retraining.project import ProjectTrainingOptions, train_project
from backend.learning.retraining.replay import read_replay
from backend.learning.simulation.first_objects import accepted, first_objects, whole_objects
from backend.learning.simulation.report import read_results, table
from backend.learning.simulation.run import Simulation
from dataset_tools import atomic
from dataset_tools.labelled import LabelledImage

__all__ = ["measured_goals"]

_IMAGES = 24


def measured_goals(
    simulation: Simulation, pool: Sequence[LabelledImage], test: Sequence[LabelledImage], weights: Mapping[str, Path]
) -> list[str]:
    """The lines of ``report.table``; what an earlier call measured is not measured again.

    Args:
        simulation: which has run.
        pool, test: its images.
        weights: ``grounder`` and ``segmenter``: the files that its base models came from.
    """
    out, settings = simulation.out, simulation.settings
    named = {item.category for image in test for item in image.objects}
    unknown = sorted(named - simulation.known)
    first: list[Mapping[str, Any]] = []
    for seed in range(settings.seeds):
        path = out / f"first_{seed}.json"
        if not path.is_file():
            options = replace(settings.grounder, head=replace(settings.grounder.head, seed=seed))
            rows = []
            for row in first_objects(
                simulation.world, pool, test, simulation.replay, unknown, seed, options=options,
                decoder=None if settings.brief else ProjectTrainingOptions().decoder,
                expressions=settings.first_expressions,
            ):  # fmt: skip
                simulation.progress(
                    f"{row['category']} {seed}: P@0.5 {row['P@0.5']:.2f} after {row['objects']} objects on"
                    f" {row['images']} images, learnt in {row['learn_seconds']:.1f} CPU seconds"
                )
                rows.append(row)
            atomic.write_text(path, json.dumps(rows, indent=1) + "\n")
        first += json.loads(path.read_text(encoding="utf-8"))
    lines = table(read_results(out), first, _training_minutes(simulation, pool, unknown, weights), unknown)
    atomic.write_text(out / "table.md", "\n".join(lines) + "\n")
    return lines


def _training_minutes(
    simulation: Simulation, pool: Sequence[LabelledImage], unknown: Sequence[str], weights: Mapping[str, Path]
) -> float | None:
    """CPU minutes that a project's training takes after ``_IMAGES`` images of one new category, nothing kept before;
    None if the pool has too few images.
    """
    path = simulation.out / "training.json"
    if path.is_file():
        return float(json.loads(path.read_text(encoding="utf-8"))["minutes"])
    holding = {name: [image for image in pool if whole_objects(image, name)] for name in unknown}
    category = max(unknown, key=lambda name: len(holding[name]), default=None)
    if category is None or len(holding[category]) < _IMAGES:
        return None
    folder = simulation.out / "training"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    values = simulation.world.config.model_dump(mode="json")
    for section, file in weights.items():
        values[section]["weights"] = str(file.resolve())
    config = folder / "base.yaml"
    atomic.write_text(config, yaml.safe_dump(values, sort_keys=False))
    every = 10**6
    images = [accepted([image], category, every)[0] for image in holding[category][:_IMAGES]]
    replay = read_replay(None, simulation.out / "replay")
    options = ProjectTrainingOptions()
    if simulation.settings.brief:
        options = replace(options, grounder=simulation.settings.grounder, decoder=None, least_replay=2)
    started = time.process_time()
    train_project(config, images, replay.training, folder / "version", options)
    minutes = (time.process_time() - started) / 60
    atomic.write_text(path, json.dumps({"minutes": minutes, "images": len(images), "category": category}) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    return minutes

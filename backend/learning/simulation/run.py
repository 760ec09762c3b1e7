"""Active learning simulated: strategies choose tasks, an oracle labels them, the model learns, the test part measures.

Layout of the folder, every file written atomically; a run that was killed goes on from it::

    settings.json                   what the simulation was started with
    base.json                       figures of the base models
    features/                       what the frozen detector makes of images; may be deleted
    windows/                        embeddings that mask decoders are tuned on; may be deleted
    <strategy>_<seed>/round_N.json  tasks labelled in round N, what they cost, figures after it
    <strategy>_<seed>/decoder_N.safetensors the mask decoder after the last round
    results.json, curves.png        ``simulation_report``
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from backend.learning.ranking.strategies import STRATEGIES, Candidate, disagreement, order
from backend.learning.retraining.decoder_part import project_decoder, tune_for_project
from backend.learning.simulation.world import (
    ACCEPTED,
    ImageRun,
    LearntModel,
    Measured,
    OracleTask,
    World,
    measure_all,
    tasks_of,
    training_set,
    with_decoder,
)
from backend.pipeline.grounding.exemplars import lessons_of
from backend.pipeline.segmentation.embedding_store import EmbeddingStore
from backend.training.adapter.adaptation import AdaptationOptions, adapt_grounder
from backend.training.adapter.training import AdapterOptions
from backend.training.decoder.samples import stored
from backend.training.decoder.training import DecoderOptions
from backend.training.run import read_weights, save_weights
from dataset_tools import atomic
from dataset_tools.errors import ConfigError
from dataset_tools.expressions import parser as expression_parser
from dataset_tools.labelled import LabelledImage, spread

__all__ = ["Simulation", "SimulationSettings"]

_NO_FEATURES = np.zeros(0, np.float32)
_STORE_BYTES = 8_000_000_000


@dataclass(frozen=True)
class SimulationSettings:
    """What is simulated; the budget.

    Attributes:
        strategies: of ``ranking.STRATEGIES``.
        rounds: after each of them the model is trained and measured.
        seeds: repetitions of every strategy.
        labels: tasks labelled per round.
        candidates: tasks per round that are pre-labelled and ranked, drawn at random; None: all.
        replay: images of the base models' training in every training.
        test_known: test tasks about categories that the base knows, at even distances; None: all.
        clicked: objects of the test part, of each kind, for which clicks are counted.
        cap: most clicks per object.
        oracle_objects: objects of a labelled task for which the oracle's clicks are counted; the others count as much
            as these on average.
        grounder: how the compact grounder learns.
        decoder: how the mask decoder learns in every round, from the base model's; None: not at all.
        first_expressions: that measure what a new category's first objects are worth, of each category, at most.
        brief: trainings are next to none, so that their time means nothing.
        words: category -> what it is called here (``words.renamed``).
    """

    strategies: tuple[str, ...] = ("random", "uncertainty", "balance", "mix")
    rounds: int = 6
    seeds: int = 3
    labels: int = 20
    candidates: int | None = 60
    replay: int = 20
    test_known: int | None = 60
    clicked: int = 16
    cap: int = 10
    oracle_objects: int = 1
    grounder: AdaptationOptions = field(
        default_factory=lambda: AdaptationOptions(
            head=AdapterOptions(mined=20), views=2, replay_views=1, calibration_steps=80, least_known=None
        )
    )
    decoder: DecoderOptions | None = field(default_factory=lambda: project_decoder(100))
    first_expressions: int = 24
    brief: bool = False
    words: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := set(self.strategies) - set(STRATEGIES):
            raise ConfigError(f"no strategy {', '.join(sorted(unknown))}; choose from {', '.join(STRATEGIES)}")
        for name in ("rounds", "seeds", "labels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")

    def full(self) -> SimulationSettings:
        """The same with everything measured and thorough training."""
        grounder = AdaptationOptions(views=4, least_known=None)
        return replace(self, candidates=None, test_known=None, clicked=200, oracle_objects=100, grounder=grounder)

    def quick(self) -> SimulationSettings:
        """The same with next to no training."""
        head = replace(self.grounder.head, steps=40, rows=256, mined=2)
        decoder = None if self.decoder is None else replace(self.decoder, steps=1, batch=2)
        grounder = replace(self.grounder, head=head, width=16, views=1, least_objects=1)
        return replace(
            self,
            candidates=12,
            replay=4,
            test_known=8,
            clicked=3,
            cap=3,
            grounder=grounder,
            decoder=decoder,
            first_expressions=4,
            brief=True,
        )

    def plain(self) -> dict[str, Any]:
        """Plain values, for ``settings.json``."""
        values = asdict(self)
        values["decoder"] = None if self.decoder is None else self.decoder.plain()
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain


class Simulation:
    """One simulation.

    Args:
        world: images, base models and everything made once.
        pool: images whose tasks are labelled, with the truth.
        test: images that measure.
        known: categories that the base models know; replay holds labels of no others.
        out: the folder.
        settings: see ``SimulationSettings``.
        progress: called with a line about each round.

    Raises:
        ConfigError: ``out`` holds a simulation with other settings.
    """

    def __init__(
        self,
        world: World,
        pool: Sequence[LabelledImage],
        test: Sequence[LabelledImage],
        known: frozenset[str],
        out: Path,
        settings: SimulationSettings,
        progress: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.world, self.known, self.out, self.settings, self.progress = world, known, out, settings, progress
        self.pool = tasks_of(pool)
        self.labels = frozenset(item.category for image in pool for item in image.objects)
        self.replay = [_without(image, known) for image in spread(pool, settings.replay)]
        easy = [task for task in tasks_of(test) if task.category in known]
        strange = [task for task in tasks_of(test) if task.category not in known]
        self.shares = {"known": len(easy), "unknown": len(strange)}
        self.test = [*spread(easy, settings.test_known), *strange]
        self.clicked = self._clicked()
        store = EmbeddingStore(out / "windows", _STORE_BYTES, 0)  # of all strategies and seeds
        self._embed = stored(world.segmenter, store)
        self.base = LearntModel(world.cache.detector, world.calibration, world.segmenter)
        self._begin()

    def _begin(self) -> None:
        path = self.out / "settings.json"
        about = {**self.settings.plain(), "pool": len(self.pool), "test": [task.key for task in self.test]}
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != about:
            raise ConfigError(f"{self.out} holds a simulation with other settings or data: choose another --out")
        atomic.write_text(path, json.dumps(about, indent=1) + "\n")

    def run(self) -> None:
        """Everything that is not done yet; all strategies of a seed before the next seed."""
        path = self.out / "base.json"
        if not path.is_file():
            _write(path, {"round": 0, "labelled": [], "objects": {}, "figures": self._figures(self.base)})
        self.progress(f"base: {_line(_read(path)['figures'])}")
        for seed in range(self.settings.seeds):
            for strategy in self.settings.strategies:
                self._run_one(strategy, seed)

    def _run_one(self, strategy: str, seed: int) -> None:
        folder = self.out / f"{strategy}_{seed}"
        by_key = {task.key: task for task in self.pool}
        labelled: list[OracleTask] = []
        model = None if self._done(folder, self.settings.rounds) else self.base
        for number in range(1, self.settings.rounds + 1):
            if self._done(folder, number):
                labelled += [by_key[item["task"]] for item in _read(folder / f"round_{number}.json")["labelled"]]
                model = None
                continue
            started = time.process_time()
            if model is None:
                model = self._learnt(labelled, self._decoder(folder, number - 1), seed)
            chosen = self._choose(model, strategy, seed, number, labelled)
            costs = self._label(model, chosen, labelled)
            labelled += chosen
            tensors = self._tune(labelled, seed, number)
            if tensors:
                save_weights(folder / f"decoder_{number}.safetensors", tensors)
            model = self._learnt(labelled, tensors, seed)
            figures = self._figures(model)
            seconds = round(time.process_time() - started, 1)
            result = {"round": number, "labelled": costs, "objects": _objects(labelled), "figures": figures}
            _write(folder / f"round_{number}.json", {**result, "seconds": seconds})
            (folder / f"decoder_{number - 2}.safetensors").unlink(missing_ok=True)
            self.progress(f"{strategy} {seed}, round {number}: {_line(figures)}, {seconds:.0f} CPU seconds")

    def _done(self, folder: Path, number: int) -> bool:
        return (folder / f"round_{number}.json").is_file()

    def _decoder(self, folder: Path, number: int) -> dict[str, Tensor]:
        path = folder / f"decoder_{number}.safetensors"
        return read_weights(path) if path.is_file() else {}

    def _learnt(self, labelled: Sequence[OracleTask], tensors: dict[str, Tensor], seed: int) -> LearntModel:
        """The model that these labels and this decoder make."""
        options = self.settings.grounder
        options = replace(options, head=replace(options.head, seed=seed))
        cache, calibration = self.world.cache, self.world.calibration
        project, replay = self._taught_by(labelled)
        adapted = adapt_grounder(cache, calibration, project, replay, options)
        detector, calibration = adapted or (cache.detector, calibration)
        segmenter = self.world.segmenter
        if tensors:
            segmenter = with_decoder(segmenter, tensors)
        lessons = lessons_of(self.world.matcher, project, detector.config.categories)
        return LearntModel(detector, calibration, segmenter, lessons)

    def _choose(
        self, model: LearntModel, strategy: str, seed: int, number: int, labelled: Sequence[OracleTask]
    ) -> list[OracleTask]:
        """The tasks to label in a round."""
        have = {task.key for task in labelled}
        waiting = [task for task in self.pool if task.key not in have]
        rng = np.random.default_rng((seed, number))
        count = len(waiting) if self.settings.candidates is None else min(len(waiting), self.settings.candidates)
        waiting = [waiting[index] for index in sorted(rng.permutation(len(waiting))[:count])]
        if strategy == "random":
            places = [Candidate(task.key, None, 0.0, None, _NO_FEATURES, task.image.key) for task in waiting]
            ranking = order(places, strategy, seed=int(rng.integers(1 << 31)))
        else:
            candidates = [self._candidate(task, model) for task in waiting]
            known = [self._place(task, None, 0.0) for task in labelled]
            ranking = order(candidates, strategy, known, seed=int(rng.integers(1 << 31)))
        return [waiting[index] for index in ranking[: self.settings.labels]]

    def _candidate(self, task: OracleTask, model: LearntModel) -> Candidate:
        found = ImageRun(self.world, task.image, model).prelabel(task.expression.text)
        if not found:
            return self._place(task, None, 0.0)
        agreements = [item.scores.get("boundary_agreement") for item in found]
        return self._place(task, min(item.score for item in found), disagreement(*agreements))

    def _place(self, task: OracleTask, score: float | None, disputed: float) -> Candidate:
        # What the words name is all that a strategy may know of the category.
        named = expression_parser.parse(task.expression.text, self.labels).category
        return Candidate(task.key, score, disputed, named, self.world.features(task.image), task.image.key)

    def _label(
        self, model: LearntModel, chosen: Sequence[OracleTask], labelled: Sequence[OracleTask]
    ) -> list[dict[str, Any]]:
        """What the oracle does: takes a pre-label that is good enough, else clicks; objects already there are free."""
        have = {(task.image.key, index) for task in labelled for index in task.expression.objects}
        costs = []
        for task in chosen:
            new = [k for k, index in enumerate(task.expression.objects) if (task.image.key, index) not in have]
            have |= {(task.image.key, index) for index in task.expression.objects}
            looked = new[: self.settings.oracle_objects]
            measured = ImageRun(self.world, task.image, model).measure(
                task, objects=looked, cap=self.settings.cap, spare=ACCEPTED
            )
            accepted = measured.iou >= ACCEPTED
            clicks = 0.0 if accepted or not looked else float(np.mean(measured.clicks)) * len(new)
            costs.append({"task": task.key, "accepted": accepted, "iou": round(measured.iou, 4), "clicks": clicks})
        return costs

    def _taught_by(self, labelled: Sequence[OracleTask]) -> tuple[list[LabelledImage], list[LabelledImage]]:
        """What the project holds, and the replay images that it does not label."""
        project = training_set(labelled)
        here = {image.key for image in project}
        return project, [image for image in self.replay if image.key not in here]

    def _tune(self, labelled: Sequence[OracleTask], seed: int, number: int) -> dict[str, Tensor]:
        options = self.settings.decoder
        if options is None:
            return {}
        labels, reminders = self._taught_by(labelled)
        options = replace(options, seed=1000 * seed + number)
        return tune_for_project(self.world.segmenter, labels, reminders, options, embed=self._embed).tensors

    def _clicked(self) -> dict[str, set[int]]:
        """Task -> positions of the objects for which clicks are counted: as many of known as of unknown categories."""
        chosen: dict[str, set[int]] = {}
        for known in (True, False):
            objects = [
                (task, k)
                for task in self.test
                if (task.category in self.known) == known
                for k in range(len(task.expression.objects))
            ]
            for task, k in spread(objects, self.settings.clicked):
                chosen.setdefault(task.key, set()).add(k)
        return chosen

    def _figures(self, model: LearntModel) -> dict[str, Any]:
        """What the test part says of a model; each figure for all tasks, known and unknown categories."""
        measured = measure_all(
            self.world, model, self.test, lambda task: self.clicked.get(task.key, ()), self.settings.cap
        )
        parts = {
            "known": [one for one in measured if one.category in self.known],
            "unknown": [one for one in measured if one.category not in self.known],
        }
        figures = {name: _summary(part) for name, part in parts.items() if part}
        weights = np.array([self.shares[name] for name in figures], float)
        figures["all"] = {
            key: float(np.average([figures[name][key] for name in parts if parts[name]], weights=weights))
            for key in ("mIoU", "P@0.5", "accepted", "clicks")
        }
        return figures


def _summary(measured: Sequence[Measured]) -> dict[str, float]:
    ious = np.array([one.iou for one in measured])
    clicks = [count for one in measured for count in one.clicks]
    return {
        "mIoU": float(ious.mean()),
        "P@0.5": float((ious >= 0.5).mean()),
        "accepted": float((ious >= ACCEPTED).mean()),
        "clicks": float(np.mean(clicks)) if clicks else 0.0,
        "tasks": len(measured),
    }


def _objects(labelled: Sequence[OracleTask]) -> dict[str, int]:
    """Labelled objects by category."""
    return dict(Counter(item.category for image in training_set(labelled) for item in image.objects))


def _without(image: LabelledImage, known: frozenset[str]) -> LabelledImage:
    """The labels that the base models saw."""
    objects = tuple(item for item in image.objects if item.category in known)
    return replace(image, objects=objects, expressions=(), complete=image.complete & known)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    atomic.write_text(path, json.dumps(content, indent=1) + "\n")


def _line(figures: dict[str, Any]) -> str:
    parts = [f"{name} {figures[name]['mIoU']:.3f}" for name in ("all", "known", "unknown") if name in figures]
    return f"mIoU {', '.join(parts)}; {figures['all']['clicks']:.2f} clicks"

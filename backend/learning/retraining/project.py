"""Training on a project's accepted masks: the compact grounder's adapter and the segmenter's mask decoder.

Layout of the folder, which is a model version: ``load_pipeline(folder / "config.yaml")`` loads it::

    config.yaml            the base config, with the weights beside it
    grounder.safetensors   where the grounder learnt something
    segmenter.safetensors  the segmenter with its tuned decoder (``.pth`` for the SAMs of segment-anything)
    training.json          seed, options, keys of the images, figures; written last
    work/                  what a killed training goes on from; removed at the end

Each part is written as a whole or not at all, and what is drawn depends on seed and step alone: a training that was
killed gives the same files as one that was not, where no time limit cuts it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from backend.learning.retraining.decoder_part import project_decoder, tune_for_project
from backend.pipeline.config import PipelineConfig, load_config
from backend.pipeline.grounding.compact.detector_file import load_detector, save_adapted
from backend.pipeline.loading import load_segmenter
from backend.pipeline.segmentation.embedding_store import EmbeddingStore
from backend.pipeline.segmentation.sam import SamSegmenter
from backend.pipeline.weights import locate, require
from backend.training.adapter.adaptation import (
    AdaptationOptions,
    adapt_grounder,
    categories_to_learn,
    core_categories,
)
from backend.training.adapter.views import FeatureCache
from backend.training.decoder.run import write_segmenter
from backend.training.decoder.samples import stored
from backend.training.decoder.training import DecoderOptions
from dataset_tools import atomic
from dataset_tools.errors import ConfigError, DatasetError
from dataset_tools.labelled import LabelledImage

__all__ = ["ProjectTrainingOptions", "TrainedModel", "train_project"]

_DECODERS = ("compact-sam", "sam")
_STORE_BYTES = 4_000_000_000


@dataclass(frozen=True)
class ProjectTrainingOptions:
    """How to train on a project.

    Attributes:
        seed: of all draws.
        threads: of torch; None leaves them alone.
        replay_share: replay images per image of the project, at most.
        least_replay: replay images at least, as far as there are any.
        grounder: how the compact grounder learns; None leaves it as it is.
        decoder: how the mask decoder learns; None leaves it as it is.
        minutes: time that the decoder's steps may take, at most.
        features: folder that keeps what the frozen parts make of images, for the next training; None: below ``work``.
        disk: bytes that the grounder's readings may take there, what is there already included. Embeddings of windows
            are work in progress: as many as the decoder's training needs are kept until it ends.
    """

    seed: int = 0
    threads: int | None = None
    replay_share: float = 1.0
    least_replay: int = 40
    grounder: AdaptationOptions | None = field(default_factory=AdaptationOptions)
    decoder: DecoderOptions | None = field(default_factory=lambda: project_decoder(100))
    minutes: float | None = None
    features: Path | None = None
    disk: int = 6_000_000_000

    def plain(self) -> dict[str, Any]:
        """Plain values, for ``training.json``: everything that the result depends on."""
        return {
            "seed": self.seed,
            "replay_share": self.replay_share,
            "least_replay": self.least_replay,
            "grounder": None if self.grounder is None else asdict(self.grounder),
            "decoder": None if self.decoder is None else self.decoder.plain(),
            "minutes": self.minutes,
        }


@dataclass(frozen=True)
class TrainedModel:
    """A trained version: its folder, its config, and what ``training.json`` says."""

    folder: Path
    config: Path
    record: Mapping[str, Any]


def train_project(
    base_config: Path,
    training: Sequence[LabelledImage],
    replay: Sequence[LabelledImage],
    out: Path,
    options: ProjectTrainingOptions | None = None,
    progress: Callable[[float, str], None] = lambda *_: None,
) -> TrainedModel:
    """Train a new version on a project's labels; called again with the same ``out`` it goes on.

    Args:
        base_config: the pipeline config to start from (a file, or a shipped config's name).
        training: the project's labels; nothing that the gate measures with.
        replay: labels of other images, so that nothing known is forgotten: of the base model's own training, or drawn
            scenes (``replay.drawn_scenes``).
        out: folder of the version.
        options: how to train.
        progress: called with the share done, in [0, 1], and a line about it.

    Raises:
        ConfigError: ``out`` holds a training on something else.
        DatasetError: nothing is labelled, or an image cannot be read.
        WeightsError: the base config's weights are missing or damaged.
    """
    options = options or ProjectTrainingOptions()
    training = [image for image in training if image.objects]
    if not training:
        raise DatasetError("there is nothing to train on: the project has no accepted mask yet")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    base = load_config(base_config)
    return _Training(base, training, replay, out, options, progress).run()


class _Training:
    """One call of ``train_project``."""

    def __init__(
        self,
        base: PipelineConfig,
        training: Sequence[LabelledImage],
        replay: Sequence[LabelledImage],
        out: Path,
        options: ProjectTrainingOptions,
        progress: Callable[[float, str], None],
    ) -> None:
        self.base, self.out, self.options, self.progress = base, out, options, progress
        self.training = sorted(training, key=lambda image: image.key)
        here = {image.key for image in training}  # replay does not know what the project labelled there
        self.replay = _drawn([image for image in replay if image.key not in here], options, len(training))
        self.work = out / "work"
        self.about = {
            "base": base.model_dump(mode="json"),
            "options": options.plain(),
            "training": [image.key for image in self.training],
            "labels": _digest(self.training),
            "replay": [image.key for image in self.replay],
            "replay_labels": _digest(self.replay),
        }

    def run(self) -> TrainedModel:
        done = self._begin()
        config = self.out / "config.yaml"
        if done is not None:
            return TrainedModel(self.out, config, done)
        figures: dict[str, Any] = {}
        grounder = self._part("grounder", self._learn_grounder)
        figures["grounder"] = grounder
        figures["decoder"] = self._part("decoder", self._learn_decoder)
        values = self.base.model_dump(mode="json")
        for section, pattern in (("grounder", "grounder.safetensors"), ("segmenter", "segmenter.*")):
            found = sorted(self.out.glob(pattern))
            found = [path for path in found if not path.name.endswith(".json")]
            values[section]["weights"] = f"./{found[0].name}" if found else _portable(self.base, section)
        atomic.write_text(config, yaml.safe_dump(values, sort_keys=False))
        record = {**self.about, "figures": figures}
        atomic.write_text(self.out / "training.json", json.dumps(record, indent=1) + "\n")
        shutil.rmtree(self.work, ignore_errors=True)
        self.progress(1.0, "trained")
        return TrainedModel(self.out, config, record)

    def _begin(self) -> dict[str, Any] | None:
        """Claims the folder; what ``training.json`` says if everything is done already."""
        finished, begun = self.out / "training.json", self.work / "about.json"
        for path in (finished, begun):
            if not path.is_file():
                continue
            before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            wanted = json.loads(json.dumps(self.about))
            changed = sorted(key for key in wanted if before.get(key) != wanted[key])
            if changed:
                raise ConfigError(
                    f"{self.out} holds a training on something else ({', '.join(changed)} differ): give another folder"
                )
            if path == finished:
                return before
        self.work.mkdir(parents=True, exist_ok=True)
        atomic.write_text(begun, json.dumps(self.about))
        return None

    def _part(self, name: str, learn: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The figures of a part: those kept by an earlier call, or ``learn``'s."""
        path = self.work / f"{name}.json"
        if path.is_file():
            kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return kept
        figures = learn()
        atomic.write_text(path, json.dumps(figures))
        return figures

    def _learn_grounder(self) -> dict[str, Any]:
        options = self.options.grounder
        named = self.base.grounder.weights
        if options is None or named is None or self.base.grounder.kind != "compact":
            return {}
        weights = require(named)
        detector, calibration = load_detector(weights)
        folder = self.options.features or self.work / "features"
        cache = FeatureCache(detector, folder, limit_bytes=self.options.disk)
        report = self._reporting(0.0, 0.5, "the grounder learns")
        learnt = adapt_grounder(cache, calibration, self.training, self.replay, options, report)
        if learnt is None:
            return {"learnt": [], "learnt_further": []}
        adapted, thresholds = learnt
        save_adapted(weights, adapted, thresholds, self.out / "grounder.safetensors")
        known = core_categories(detector)
        new, further = categories_to_learn(known, self.training, options)
        return {
            "learnt": list(new),
            "learnt_further": list(further),
            "even": {name: thresholds.even[name] for name in (*new, *further)},
        }

    def _learn_decoder(self) -> dict[str, Any]:
        options = self.options.decoder
        if options is None or self.base.segmenter.kind not in _DECODERS:
            return {}
        segmenter = load_segmenter(self.base.segmenter, device=self.base.device)
        if not isinstance(segmenter, SamSegmenter):
            raise TypeError(f"{self.base.segmenter.kind} gave a {type(segmenter).__name__}")
        store = EmbeddingStore((self.options.features or self.work) / "windows", _STORE_BYTES, 0)
        count = len(self.training) + sum(1 for image in self.replay if image.objects)
        embedded = 0

        def done(_: LabelledImage) -> None:
            nonlocal embedded
            embedded += 1
            self.progress(0.5 + 0.15 * embedded / count, f"embedded {embedded} of {count} images")

        settings = replace(options, seed=self.options.seed, minutes=self.options.minutes)
        tuned = tune_for_project(
            segmenter,
            self.training,
            self.replay,
            settings,
            seed=self.options.seed,
            embed=stored(segmenter, store),
            embedded=done,
            progress=lambda share, line: self.progress(0.65 + 0.34 * share, line),
            folder=self.work / "decoder",
        )
        if tuned.step == 0 and tuned.after:
            return {"step": 0, "before": tuned.before, "after": tuned.after}
        write_segmenter(self.base.segmenter, tuned.tensors, self.out)
        return {"step": tuned.step, "before": tuned.before, "after": tuned.after}

    def _reporting(self, start: float, end: float, line: str) -> Callable[[float], None]:
        return lambda share: self.progress(start + (end - start) * share, line)


def _drawn(replay: Sequence[LabelledImage], options: ProjectTrainingOptions, images: int) -> list[LabelledImage]:
    """The replay images that go with so many of the project's; a function of their keys and the seed."""
    ordered = sorted(replay, key=lambda image: image.key)
    count = min(len(ordered), max(options.least_replay, round(options.replay_share * images)))
    chosen = np.random.default_rng(options.seed).permutation(len(ordered))[:count]
    return [ordered[index] for index in sorted(chosen)]


def _digest(images: Sequence[LabelledImage]) -> str:
    """16 hex digits over everything that is labelled in ``images``."""
    digest = hashlib.sha256()
    for image in images:
        labels = [[item.category, item.rle["counts"]] for item in image.objects]
        digest.update(json.dumps([image.key, labels, sorted(image.complete)], default=_text).encode())
    return digest.hexdigest()[:16]


def _text(value: object) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


def _portable(base: PipelineConfig, section: str) -> str | None:
    """A weights value that means the same from any folder: a registry name, or an absolute path; None stays."""
    value: str | None = getattr(base, section).weights
    if value is None:
        return None
    path = locate(value)
    return value if str(path) != str(Path(value).expanduser()) else str(path.resolve())

"""Puts a fine-tuning of a mask decoder together: masks of a dataset, embeddings on disk, weights, pipeline config.

Layout of the folder, beside the files of ``TrainingRun``::

    embeddings/        the frozen encoder's features, made once; may be deleted afterwards
    segmenter.*        the whole segmenter with its tuned decoder, under the names and in the container of its kind
    pipeline.yaml      the pipeline config that was tuned, with these weights
    figures.json       {"before": {...}, "after": {...}, "step": int, "masks": int, "images": int} on the held-out masks
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from backend.pipeline.config import PipelineConfig, SegmenterConfig, load_config
from backend.pipeline.loading import load_segmenter
from backend.pipeline.segmentation.embedding_store import EmbeddingStore
from backend.pipeline.segmentation.sam import SamSegmenter
from backend.pipeline.weights import require
from backend.training.decoder.samples import DecoderSample, decoder_samples, stored
from backend.training.decoder.training import DecoderOptions, TunedDecoder, tune_decoder
from backend.training.run import TrainingRun, read_weights, save_weights
from dataset_tools import atomic
from dataset_tools.errors import ConfigError, DatasetError
from dataset_tools.labelled import LabelledImage, read
from dataset_tools.progress import Bar

__all__ = ["kept_share", "run_decoder_training", "write_segmenter"]

_FILES = {"compact-sam": "segmenter.safetensors", "sam": "segmenter.pth"}
_UNBOUNDED = 1 << 60


def run_decoder_training(
    config: str | Path,
    data: Path,
    out: Path,
    options: DecoderOptions,
    *,
    split: str | None = "train",
    validation: str | None = "val",
    share: float = 1.0,
    views: int | None = None,
    threads: int | None = None,
    embeddings: Path | None = None,
    resume: bool = False,
) -> tuple[Path, TunedDecoder]:
    """Fine-tune the mask decoder of a pipeline config on the masks of a dataset.

    Args:
        config: a shipped config's name or a YAML file; its segmenter must be ``compact-sam`` or ``sam``.
        data: a folder of any format that ``dataset_tools.labelled`` reads.
        out: folder of the run.
        options: how to train.
        split: of ``data``, to train on; None takes every image.
        validation: of ``data``, selects the best weights; None holds a share of the training images out.
        share: of the training masks to use, in (0, 1]; smaller shares are parts of larger ones.
        views: augmented views, see ``decoder_samples``.
        threads: of torch.
        embeddings: folder to keep the features in, for several runs together; None: ``out/embeddings``.
        resume: go on from the run's last checkpoint; embeddings are always kept.

    Returns:
        ``out/pipeline.yaml`` and the result.

    Raises:
        ConfigError: the config's segmenter has no mask decoder of this form, or ``out`` holds another run.
        DatasetError: the data is missing, damaged or holds no mask.
        WeightsError: the config's weights are missing or of another kind.
    """
    settings = load_config(config)
    if settings.segmenter.kind not in _FILES:
        raise ConfigError(
            f"the segmenter of {settings.name} is of kind {settings.segmenter.kind!r}; decoders are fine-tuned for "
            f"{' and '.join(_FILES)} (configs compact, sam_vit_b, sam_vit_l, sam_vit_h and those built on them)"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    segmenter = load_segmenter(settings.segmenter, device=settings.device)
    if not isinstance(segmenter, SamSegmenter):
        raise TypeError(f"{settings.segmenter.kind} gave a {type(segmenter).__name__}")
    started_with = {
        **options.plain(),
        "pipeline": settings.mask_relevant()["segmenter"],
        "encoder": segmenter.encoder_hash,
        "data": str(data),
        "split": split,
        "validation": validation,
        "share": share,
        "views": views,
    }
    run = TrainingRun(out, started_with, criterion="score", resume=resume)  # refused before annotations are read
    training = kept_share(_with_masks(data, split), share, options.seed)
    held_out = None if validation is None else _with_masks(data, validation)
    store = EmbeddingStore(embeddings or out / "embeddings", _UNBOUNDED, 0)

    def embedded(images: Sequence[LabelledImage], count: int | None, what: str) -> list[DecoderSample]:
        with Bar(total=len(images), desc=f"embedding {what}", unit="image") as bar:
            return decoder_samples(
                segmenter,
                images,
                views=count,
                seed=options.seed,
                embed=stored(segmenter, store),
                progress=lambda _: bar.update(),
            )

    samples = embedded(training, views, "training masks")
    validating = None if held_out is None else embedded(held_out, 0, "validation masks")
    with Bar(total=100, desc="mask decoder", unit="%") as bar:

        def progress(share_done: float, line: str) -> None:
            bar.update(round(100 * share_done) - bar.n)
            bar.set_postfix_str(line)

        tuned = tune_decoder(segmenter, samples, validating, options, progress=progress, run=run)
    weights = write_segmenter(settings.segmenter, tuned.tensors, out)
    figures = {
        "before": tuned.before,
        "after": tuned.after,
        "step": tuned.step,
        "masks": sum(len(image.objects) for image in training),
        "images": len(training),
    }
    atomic.write_text(out / "figures.json", json.dumps(figures, indent=1) + "\n")
    return write_pipeline(settings, weights, out), tuned


def _with_masks(data: Path, split: str | None) -> list[LabelledImage]:
    """The images of a split of ``data`` that have masks; raises DatasetError if none has."""
    images = [image for image in read(data, split) if image.objects]
    if not images:
        raise DatasetError(f"{data} has no masks" + (f" in the split {split!r}" if split else ""))
    return images


def kept_share(images: Sequence[LabelledImage], share: float, seed: int) -> list[LabelledImage]:
    """``images`` with ``share`` of the masks of each category, at least one; images without any are left out.

    With the same seed a smaller share is a part of a larger one.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"the share of the masks must lie in (0, 1], got {share}")
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, image in enumerate(images):
        for index, item in enumerate(image.objects):
            places[item.category].append((number, index))
    kept: set[tuple[int, int]] = set()
    rng = np.random.default_rng(seed)
    for category in sorted(places):
        order = rng.permutation(len(places[category]))
        kept |= {places[category][index] for index in order[: max(1, round(share * len(order)))]}
    chosen = [
        replace(image, objects=tuple(o for index, o in enumerate(image.objects) if (number, index) in kept))
        for number, image in enumerate(images)
    ]
    return [image for image in chosen if image.objects]


def write_segmenter(config: SegmenterConfig, tensors: Mapping[str, Tensor], folder: Path) -> Path:
    """Write the weights of ``config`` with ``tensors`` put in to ``folder``, as its loader reads them.

    Returns:
        ``segmenter.safetensors`` in half precision (compact-sam), or ``segmenter.pth`` under segment-anything's names.
    """
    base = require(config.weights)
    path = folder / _FILES[config.kind]
    if config.kind == "compact-sam":
        from safetensors import safe_open

        with safe_open(base, framework="pt") as file:
            metadata = dict(file.metadata())
        save_weights(path, {**read_weights(base), **tensors}, torch.float16, metadata)
        return path
    state = torch.load(base, map_location="cpu", weights_only=True, mmap=True)
    with atomic.open_bytes(path) as file:
        torch.save({**state, **tensors}, file)
    return path


def write_pipeline(config: PipelineConfig, weights: Path, folder: Path) -> Path:
    """Write ``folder/pipeline.yaml``: ``config`` with other segmenter weights, named ``<config>_tuned``."""
    values = config.model_dump(mode="json")
    values["name"] = f"{config.name}_tuned"
    values["description"] = f"{config.name} with a fine-tuned mask decoder"
    values["segmenter"]["weights"] = str(weights.resolve())
    path = folder / "pipeline.yaml"
    atomic.write_text(path, yaml.safe_dump(values, sort_keys=False))
    return path

"""What the first accepted objects of a new category are worth: measured after one, a few, and enough to train on.

After few objects lessons serve ("more like this"), as they do between a project's trainings; from ``TRAINED`` on the
adapter and the mask decoder that a training makes of the same labels.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from backend.learning.retraining.decoder_part import tune_for_project
from backend.learning.simulation.world import LearntModel, World, measure_all, tasks_of, with_decoder
from backend.pipeline.grounding.exemplars import lessons_of
from backend.training.adapter.adaptation import AdaptationOptions, adapt_grounder
from backend.training.decoder.training import DecoderOptions
from dataset_tools.labelled import LabelledImage, spread

__all__ = ["COUNTS", "TRAINED", "accepted", "first_objects", "whole_objects"]

COUNTS = (1, 5, 10, 40)
TRAINED = 40


def whole_objects(image: LabelledImage, category: str) -> list[int]:
    """Places of the objects of a category that no border cuts."""
    return [n for n, item in enumerate(image.objects) if item.category == category and not item.truncated]


def accepted(images: Sequence[LabelledImage], category: str, count: int) -> list[LabelledImage]:
    """The first images with ``count`` whole objects of a category in all, labelled with those alone; an image whose
    objects of the category are all among them is complete.
    """
    found: list[LabelledImage] = []
    missing = count
    for image in images:
        chosen = whole_objects(image, category)[:missing]
        if not chosen:
            continue
        every = sum(item.category == category for item in image.objects)
        complete = frozenset({category}) if len(chosen) == every else frozenset()
        objects = tuple(image.objects[index] for index in chosen)
        found.append(replace(image, objects=objects, expressions=(), complete=complete))
        missing -= len(chosen)
        if not missing:
            break
    return found


def first_objects(
    world: World,
    pool: Sequence[LabelledImage],
    test: Sequence[LabelledImage],
    replay: Sequence[LabelledImage],
    unknown: Sequence[str],
    seed: int,
    *,
    options: AdaptationOptions,
    decoder: DecoderOptions | None = None,
    counts: Sequence[int] = COUNTS,
    expressions: int = 24,
) -> Iterator[Mapping[str, Any]]:
    """A row for each unknown category and number of accepted objects: P@0.5 and mIoU end to end on unseen images.

    A number of which the pool has too few gives no row.

    Args:
        world: images and base models.
        pool: images whose objects are accepted, in an order that ``seed`` draws.
        test: images that measure.
        replay: images of what the base model knows, for trainings.
        unknown: the new categories.
        seed: of the order.
        options: of trainings.
        decoder: of trainings, the mask decoder's part; None leaves it as it is.
        counts: numbers of accepted objects; from ``TRAINED`` on the model is trained.
        expressions: of each category that measure, at most.
    """
    detector, calibration = world.cache.detector, world.calibration
    for category in unknown:
        holding = [image for image in pool if whole_objects(image, category)]
        order = np.random.default_rng(seed).permutation(len(holding))
        tasks = spread([task for task in tasks_of(test) if task.category == category], expressions)
        for count in counts if tasks else ():
            shown = accepted([holding[index] for index in order], category, count)
            if sum(len(image.objects) for image in shown) < count:
                continue
            started = time.process_time()
            if count >= TRAINED:
                here = {image.key for image in shown}
                others = [image for image in replay if image.key not in here]
                adapted = adapt_grounder(world.cache, calibration, shown, others, options)
                segmenter = world.segmenter
                if decoder is not None:
                    tuned = tune_for_project(segmenter, shown, others, replace(decoder, seed=seed))
                    segmenter = with_decoder(segmenter, tuned.tensors)
                model = LearntModel(*(adapted or (detector, calibration)), segmenter)
            else:
                lessons = lessons_of(world.matcher, shown, detector.config.categories)
                model = LearntModel(detector, calibration, world.segmenter, lessons)
            learnt = time.process_time() - started
            ious = np.array([one.iou for one in measure_all(world, model, tasks)])
            yield {
                "category": category,
                "seed": seed,
                "objects": count,
                "images": len(shown),
                "n": len(ious),
                "P@0.5": float((ious >= 0.5).mean()),
                "mIoU": float(ious.mean()),
                "answered": float((ious > 0).mean()),
                "learn_seconds": round(learnt, 2),
            }

"""From labelled images to a compact grounder that knows their categories: adapter, thresholds, weights file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from backend.pipeline.grounding.compact.network import Calibration, Detector
from backend.training.adapter.calibration import FIRST_EVEN, cross_fitted
from backend.training.adapter.training import AdapterData, AdapterOptions, train_adapter, with_adapter
from backend.training.adapter.views import FeatureCache, FeatureView, training_views
from dataset_tools.labelled import LabelledImage

__all__ = ["AdaptationOptions", "adapt_grounder", "categories_to_learn"]


@dataclass(frozen=True)
class AdaptationOptions:
    """How the compact grounder learns from a project.

    Attributes:
        head: training of the adapter.
        width: hidden channels of the adapter.
        views: of each of the project's images.
        replay_views: of each replay image; the images begin in turns with one of the sizes that inference reads.
        least_objects: a new category with fewer labelled objects is not learnt yet.
        least_known: a category that the detector knows is learnt further from so many labelled objects on, those of
            images in which all of its objects are labelled; with fewer it got worse (docs/active_learning.md). None:
            never.
        calibration_steps: of each half's training (``adapter.calibration``); 0: ``FIRST_EVEN`` for what is new.
    """

    head: AdapterOptions = field(default_factory=AdapterOptions)
    width: int = 64
    views: int = 3
    replay_views: int = 1
    least_objects: int = 3
    least_known: int | None = 25
    calibration_steps: int = 100


def categories_to_learn(
    known: Sequence[str], training: Sequence[LabelledImage], options: AdaptationOptions
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Categories with enough labelled objects in ``training``, sorted: those not ``known``, and those that are."""
    counts = Counter(item.category for image in training for item in image.objects)
    new = sorted(name for name, count in counts.items() if name not in known and count >= options.least_objects)
    whole = Counter(item.category for image in training for item in image.objects if item.category in image.complete)
    least = options.least_known
    further = sorted(name for name in known if least is not None and whole[name] >= least)
    return tuple(new), tuple(further)


def core_categories(detector: Detector) -> tuple[str, ...]:
    """What the detector knows without its adapter."""
    return detector.config.categories[: len(detector.config.categories) - detector.config.adapted]


def adapt_grounder(
    cache: FeatureCache,
    calibration: Calibration,
    training: Sequence[LabelledImage],
    replay: Sequence[LabelledImage],
    options: AdaptationOptions,
    progress: Callable[[float], None] = lambda _: None,
) -> tuple[Detector, Calibration] | None:
    """The detector with an adapter for what the project labels, and what its scores mean.

    An adapter that the detector has already is learnt anew: labels add up, and a category whose labels were deleted
    is forgotten.

    Args:
        cache: of the detector.
        calibration: the detector's.
        training: the project's labels.
        replay: images of the detector's own training, with labels of what it knows.
        options: see ``AdaptationOptions``.
        progress: called with the share done.

    Returns:
        None if there is no category to learn.
    """
    detector = cache.detector
    known = core_categories(detector)
    new, further = categories_to_learn(known, training, options)
    learnt = (*new, *further)
    if not learnt:
        return None
    calibration = replace(calibration, even={name: calibration.even[name] for name in known})
    project = _seen(training, training_views(calibration.scales, options.views))
    replayed = _seen_in_turns(replay, calibration.scales, options.replay_views)
    adapted = with_adapter(detector, new, options.width, options.head.seed)
    data = AdapterData(
        cache, adapted.config.categories, learnt, project, replayed, options.head, lambda share: progress(0.4 * share)
    )
    train_adapter(adapted, data, range(len(data.views)), options.head.steps, lambda s: progress(0.4 + 0.3 * s))
    if options.calibration_steps:
        calibration = cross_fitted(detector, calibration, data, new, further, options.width, options.calibration_steps)
    else:
        even = {**calibration.even, **dict.fromkeys(new, FIRST_EVEN)}
        calibration = replace(calibration, even=even)
    progress(1.0)
    return adapted, calibration


def _seen(images: Sequence[LabelledImage], views: Sequence[FeatureView]) -> list[tuple[LabelledImage, FeatureView]]:
    return [(image, view) for image in images for view in views]


def _seen_in_turns(
    images: Sequence[LabelledImage], scales: Sequence[int], count: int
) -> list[tuple[LabelledImage, FeatureView]]:
    views = training_views(scales, max(2, count))
    return [(image, views[(n + k) % len(views)]) for n, image in enumerate(images) for k in range(count)]

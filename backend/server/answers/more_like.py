"""More like this: an annotator points at a region, and what looks like it on the same image is suggested.

Label Studio does not say which region is selected. "This" is the region that the text was typed for, where the labeling
config has a text field per region; the one that was clicked with a label that says "more like this"; else the newest
region of the kind that the text names ("more like this building"), or the newest of all. All regions with its label
are examples, and those of other labels are none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from backend.pipeline import PslgSam
from backend.pipeline.segmentation.embedding_store import EmbeddingStore
from backend.pipeline.segmentation.mask_cleaning import clean_mask
from backend.pipeline.types import Box, NamedImage
from backend.server.answers.predictions import note_region
from backend.server.editor.labeling_config import LabelingConfig
from backend.server.editor.prompts import MoreLike
from backend.server.editor.regions import FoundRegion, RegionLookup, RegionWriter, visible_results
from backend.server.metrics import Metrics
from backend.server.protocol import Region, Task
from backend.settings import Settings
from dataset_tools.categories import category_name
from dataset_tools.errors import PslgError
from dataset_tools.label_studio.notes import Note

__all__ = ["MoreLikeThis"]

logger = logging.getLogger(__name__)
_LIKELY = 0.5
"""Probability from which an object is suggested: an annotator accepts all suggestions of an answer at once."""
_KNOWN = 0.3
"""IoU with a region of the image from which a find is that region again."""


class MoreLikeThis:
    """Answers one wish at a time. Thread-safe."""

    def __init__(self, settings: Settings, embeddings: EmbeddingStore, lookup: RegionLookup, metrics: Metrics) -> None:
        self._settings = settings
        self._embeddings = embeddings
        self._lookup = lookup
        self._metrics = metrics

    def regions(
        self, pipeline: PslgSam, wanted: MoreLike, task: Task, config: LabelingConfig, image: NamedImage
    ) -> tuple[list[Region], float]:
        """The objects that are like what ``wanted`` means, as regions with its label, and their mean score.

        A note where there are none, or it cannot be told what is meant.
        """
        shown = self._lookup.shown(visible_results(task), config, image.size)
        meant = _meant(wanted, shown, config)
        if meant is None:
            what = f" called {wanted.noun!r}" if wanted.noun and shown else ""
            message = f"There is no region{what} on this image yet that others could be like: outline one first."
            return self._noted(task, wanted, "absent", message, config), 0.0
        label = meant[0]
        positive = [Box.of_mask(region.mask) for name, region in (meant, *shown) if name == label]
        positive = list(dict.fromkeys(positive))
        negative = [Box.of_mask(region.mask) for name, region in shown if name != label]
        pixels = image.pixels()
        try:
            found = pipeline.find_like(pixels, positive, negative, noun=category_name(label), key=image.identity)
        except PslgError as error:
            return self._noted(task, wanted, "unknown-category", str(error), config), 0.0
        there = [*positive, *negative]
        new = tuple(one for one in found if one.score >= _LIKELY and all(one.box.iou(box) < _KNOWN for box in there))
        outlined = pipeline.segment(
            pixels,
            new,
            key=image.identity,
            embed=self._embeddings.embedder(pipeline.segmenter, image.identity),
            most=self._settings.max_objects,
            until=time.monotonic() + self._settings.deadline,
        )
        if not outlined:
            message = f"Nothing else on this image looks like the {len(positive)} region(s) labelled {label!r}."
            return self._noted(task, wanted, "absent", message, config), 0.0
        version = pipeline.version_by_examples(positive, negative)
        writer = RegionWriter.of(config, version, self._settings, self._metrics.brush_bytes.observe)
        regions: list[Region] = []
        for item in outlined:
            mask = clean_mask(item.mask, self._settings.speck_area, self._settings.hole_area)
            regions += writer.regions(mask, label, [meant[1].control], score=item.score)
        logger.info("task %s: %d objects like %d of %r", task.id, len(outlined), len(positive), label)
        return regions, outlined.score

    def _noted(self, task: Task, wanted: MoreLike, reason: str, message: str, config: LabelingConfig) -> list[Region]:
        logger.info("task %s: %r: %s", task.id, wanted.text, message)
        return note_region([Note(wanted.text, reason, message)], config)


def _meant(
    wanted: MoreLike, shown: Sequence[tuple[str, FoundRegion]], config: LabelingConfig
) -> tuple[str, FoundRegion] | None:
    """Label and region of "this"; None where there is none."""
    if wanted.point is not None:
        x, y = int(wanted.point.x), int(wanted.point.y)
        return next((one for one in reversed(shown) if one[1].mask[y, x]), None)
    typed_for = next((one for one in shown if one[1].id == wanted.region), None)
    if typed_for is not None or not wanted.noun:
        return typed_for or (shown[-1] if shown else None)
    label = wanted.label(config)
    return next((one for one in reversed(shown) if one[0] == label), None)

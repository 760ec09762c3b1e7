"""The compact grounder: detections of the categories it knows, then a relation program over the expression.

Coarse localization without a language model: ``expression_parser`` turns the words into a query, the detector finds
every object of the categories it knows, ``relations`` picks the ones that the query describes.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from backend.bounded_cache import BoundedCache
from backend.pipeline.devices import multiplies_bfloat16
from backend.pipeline.grounding.box_colors import color_in_box
from backend.pipeline.grounding.compact.answering import AskedOf, answer
from backend.pipeline.grounding.compact.detections import LARGEST_WHOLE, Detection, detect_anywhere
from backend.pipeline.grounding.compact.detector_file import load_detector
from backend.pipeline.grounding.compact.network import Calibration, Detector
from backend.pipeline.scores import log_odds
from backend.pipeline.types import Abstention, GroundingResult, Image, NamedImage, hash_image
from dataset_tools.categories import category_name, category_named, kind_of
from dataset_tools.expressions import parser as expression_parser
from dataset_tools.expressions.candidates import Candidates
from dataset_tools.expressions.explanation import Explanation, explain, in_words
from dataset_tools.expressions.query import Query
from dataset_tools.geometry import Box, Point

_LOWEST_SCORE = 0.05
"""Detections below this score are never looked at."""
_DETECTION_BYTES = 256
"""What a kept detection takes in memory, about."""
_WORTH_A_CLICK, _OFF_MIDDLE = 0.1, 6.0
"""Probability from which a detection may be what a click means, and what the click's way from the middle, in sides of
the box, counts against that in log odds. Chosen on 490 objects of the validation parts."""
_WIDER_CONFIG = "grounding_dino_sam_vit_b"


class CompactGrounder:
    """Implements ``Grounder`` and ``ObjectFinder`` for ``known_categories``; safe to call from several threads.

    Args:
        detector: in evaluation mode.
        calibration: its thresholds and the scales it reads images at.
        cache_bytes: how much memory the detections of past images may take; many expressions share an image.
        bfloat16: compute in bfloat16; None: where the CPU multiplies it natively.
    """

    def __init__(
        self,
        detector: Detector,
        calibration: Calibration,
        *,
        cache_bytes: int = 4_000_000,
        bfloat16: bool | None = None,
    ) -> None:
        self.detector = detector
        self.calibration = calibration
        device = detector.mean.device
        self.bfloat16 = bfloat16 if bfloat16 is not None else device.type == "cpu" and multiplies_bfloat16(device)
        self._cache: BoundedCache[str, tuple[Detection, ...]] = BoundedCache(cache_bytes)
        self._looks = threading.Lock()  # two at once would only take each other's cores and memory

    @property
    def known_categories(self) -> frozenset[str]:
        """The detector's categories: canonical names, and a project's own labels where it learnt them."""
        return frozenset(self.detector.config.categories)

    def detections(self, image: Image, *, key: str | None = None) -> tuple[Detection, ...]:
        """Everything found in ``image`` uint8[H, W, 3] RGB, best first, however weak; kept for the next expression.

        Kept under ``key``, which names the image's content; None hashes its pixels.
        """
        key = key or hash_image(image)
        with self._looks:
            found = self._cache.get(key)
            if found is None:
                found = tuple(
                    detect_anywhere(
                        self.detector,
                        image,
                        self.calibration.scales,
                        _LOWEST_SCORE,
                        mirrored=self.calibration.mirrored,
                        bfloat16=self.bfloat16,
                    )
                )
                self._cache.put(key, found, _DETECTION_BYTES * (1 + len(found)))
        return found

    def ground(
        self, image: Image, expression: str, *, key: str | None = None, labels: Collection[str] = ()
    ) -> GroundingResult:
        """The boxes that ``expression`` describes in ``image`` uint8[H, W, 3] RGB, or why there are none.

        ``key`` names the image's content, see ``detections``; ``labels`` as of ``Grounder.ground``.
        """
        query = expression_parser.parse(expression, self.known_categories.union(labels))
        refusal = self.refusal(query)
        if refusal is not None:
            return GroundingResult((), refusal)
        size = (image.shape[0], image.shape[1])
        colors = partial(color_in_box, image)
        return answer(query, self.detections_for(query, image, key=key), self.calibration, size, colors, image)

    def detections_for(self, query: Query, image: Image, *, key: str | None = None) -> tuple[Detection, ...]:  # noqa: ARG002
        """Of ``detections`` at least those that ``query`` may be about."""
        return self.detections(image, key=key)

    def object_at(self, point: Point, names: Iterable[str], image: NamedImage) -> Box | None:
        """As of ``ObjectFinder``. Scenes that would be read in tiles are not looked at for the sake of a click."""
        known = self.known_categories
        meant = (name for label in names for name in (kind_of(label), category_name(label)))
        category = next((name for name in meant if name in known), None)
        if category is None or max(image.size) > LARGEST_WHOLE:
            return None
        seen = self._cache.get(image.identity)
        if seen is None:
            seen = self.detections(image.pixels(), key=image.identity)
        return _likeliest_at(point, [found for found in seen if found.category == category], self.calibration)

    def explain(self, image: Image, expression: str) -> Explanation:
        """How ``ground`` reads ``expression`` and how each detection fares."""
        query = expression_parser.parse(expression, self.known_categories)
        refusal = self.refusal(query)
        if refusal is not None:
            return Explanation((f"understood: {in_words(query)}", f"no answer ({refusal.code}): {refusal.message}"), {})
        size = (image.shape[0], image.shape[1])
        asked = AskedOf(query, self.calibration, size, partial(color_in_box, image), image)
        groundings = asked.groundings(self.detections_for(query, image))
        made = asked.choose(groundings)
        explained = explain(query, made[0], asked.labelled(made[1]), size, asked.view)
        steady = asked.steadiness(groundings, asked.result(made))
        if steady == 1.0:
            return explained
        doubt = f"score times {steady:.2f}: another object may be meant if the detector is wrong about a doubtful one"
        return replace(explained, lines=(*explained.lines, doubt))

    def refusal(self, query: Query) -> Abstention | None:
        """An abstention for what no image could change: nothing asked for, or a category that is not known."""
        if query.is_empty:
            return Abstention("empty-expression", "The expression is empty: say what to look for, e.g. 'the ship'.")
        if self.known_categories.intersection(Candidates.categories_of(query)) or (
            query.category is None and not query.unknown_words
        ):
            return None
        unknown = category_named(query.category).display if query.category else " ".join(query.unknown_words)
        return Abstention(
            "unknown-category",
            f"The compact grounder does not know {_shortened(unknown)!r}. It knows "
            f"{_listed(category_named(name).display for name in self.detector.config.categories)}. "
            f"The config {_WIDER_CONFIG} knows more: it takes any word.",
        )


def _likeliest_at(point: Point, found: Iterable[Detection], calibration: Calibration) -> Box | None:
    """Which of the objects ``found`` is meant by a click at ``point``, its box; None if none of them."""
    under: list[tuple[float, Box]] = []
    for one in found:
        probability, box = calibration.probability(one.category, one.score), one.box
        if probability >= _WORTH_A_CLICK and box.contains(point):
            middle = box.center
            off = max(abs(point.x - middle.x) / box.width, abs(point.y - middle.y) / box.height)
            under.append((log_odds(probability) - _OFF_MIDDLE * off, box))
    return max(under)[1] if under else None


def load_compact_grounder(
    weights: Path, *, device: str = "cpu", cache_bytes: int = 4_000_000, bfloat16: bool | None = None
) -> CompactGrounder:
    """The grounder of the weights file ``weights``.

    Args:
        weights: written by ``pslg train compact-grounder``.
        device: where the detector runs.
        cache_bytes: see ``CompactGrounder``.
        bfloat16: see ``CompactGrounder``.

    Raises:
        WeightsError: the file is missing, damaged, or holds something else.
    """
    detector, calibration = load_detector(weights)
    return CompactGrounder(detector.to(torch.device(device)), calibration, cache_bytes=cache_bytes, bfloat16=bfloat16)


def _shortened(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _listed(names: Iterable[str]) -> str:
    *rest, last = names
    return f"{', '.join(rest)} and {last}"

"""The compact grounder: detections of the categories it knows, then a relation program over the expression.

Coarse localization without a language model: ``expression_parser`` turns the words into a query, the detector finds
every object of the categories it knows, ``relations`` picks the ones that the query describes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from backend.bounded_cache import BoundedCache
from backend.pipeline.devices import multiplies_bfloat16
from backend.pipeline.grounding.box_colors import color_in_box
from backend.pipeline.grounding.compact.detections import LARGEST_WHOLE, Detection, detect_anywhere
from backend.pipeline.grounding.compact.detector_file import load_detector
from backend.pipeline.grounding.compact.network import Calibration, Detector
from backend.pipeline.scores import log_odds
from backend.pipeline.types import Abstention, Grounding, GroundingResult, Image, hash_image
from dataset_tools.categories import KINDS, category_name, category_named, kind_of
from dataset_tools.colors import Rgb
from dataset_tools.expressions import parser as expression_parser
from dataset_tools.expressions import relations
from dataset_tools.expressions.appearance import View, look_at, view_of
from dataset_tools.expressions.candidates import Candidates
from dataset_tools.expressions.certainty import ENOUGH
from dataset_tools.expressions.explanation import Explanation, explain, in_words
from dataset_tools.expressions.landmarks import mentions_surroundings
from dataset_tools.expressions.query import Query
from dataset_tools.geometry import Box, Point

_LOWEST_SCORE = 0.05
"""Detections below this score are never looked at."""
_DETECTION_BYTES = 256
"""What a kept detection takes in memory, about."""
_PLAUSIBLE = 0.08
"""Probability from which a detection is considered for a place in an order or as what a relation refers to."""
_EVEN = 0.42
"""Probability from which an object belongs to "all the ..."; as ``_PLAUSIBLE``, chosen on training and validation."""
_CERTAIN = 0.9
"""Objects that fit alike make an expression ambiguous if at least two of them are this probable."""
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

    def object_at(
        self,
        point: Point,
        names: Iterable[str],
        image_size: tuple[int, int],
        pixels: Callable[[], Image],
        *,
        key: str | None = None,
    ) -> Box | None:
        """As of ``ObjectFinder``. Scenes that would be read in tiles are not looked at for the sake of a click."""
        known = self.known_categories
        meant = (name for label in names for name in (kind_of(label), category_name(label)))
        category = next((name for name in meant if name in known), None)
        if category is None or max(image_size) > LARGEST_WHOLE:
            return None
        seen = self._cache.get(key) if key else None
        if seen is None:
            seen = self.detections(pixels(), key=key)
        return _likeliest_at(point, [found for found in seen if found.category == category], self.calibration)

    def explain(self, image: Image, expression: str) -> Explanation:
        """How ``ground`` reads ``expression`` and how each detection fares."""
        query = expression_parser.parse(expression, self.known_categories)
        refusal = self.refusal(query)
        if refusal is not None:
            return Explanation((f"understood: {in_words(query)}", f"no answer ({refusal.code}): {refusal.message}"), {})
        size = (image.shape[0], image.shape[1])
        colors = partial(color_in_box, image)
        choice, groundings, _ = chosen(query, self.detections_for(query, image), self.calibration, size, colors, image)
        boxes = _labelled(query, groundings, colors, image)
        return explain(query, choice, boxes, size, _view(query, image))

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


def answer(
    query: Query,
    detections: Sequence[Detection],
    calibration: Calibration,
    image_size: tuple[int, int],
    color_of: Callable[[Box], Rgb | None] | None = None,
    image: Image | None = None,
) -> GroundingResult:
    """Pick the detections that ``query`` describes; pure, so that it can be measured with true boxes.

    Args:
        query: its category is one of the detector's, or None where the words name none ("the upper one").
        detections: everything found in the image, best first.
        calibration: what their scores mean.
        image_size: (height, width) in pixels.
        color_of: colour of what is in a box; None to pass over colour words.
        image: where further looks and the surroundings are measured, if the words ask for them; None not to.
    """
    choice, candidates, considered = chosen(query, detections, calibration, image_size, color_of, image)
    alike = choice.code == "ambiguous" and choice.chance >= ENOUGH
    if alike and sum(candidates[i].score >= _CERTAIN for i in choice.indices) < 2:
        # "the airplane" says that there is one: of a good detection and doubtful ones the good one is meant.
        return GroundingResult((candidates[choice.indices[0]],), None, considered)
    if choice.code is not None:
        closest = tuple(candidates[i] for i in choice.indices) or considered
        unread = choice.unread if choice.code == "unknown-word" else ()
        return GroundingResult((), Abstention(choice.code, choice.message, closest, unread), considered)
    certainty = choice.chance if choice.unread else 1.0
    found = (replace(candidates[i], score=candidates[i].score * certainty) for i in choice.indices)
    return GroundingResult(tuple(found), None, considered)


def chosen(
    query: Query,
    detections: Sequence[Detection],
    calibration: Calibration,
    image_size: tuple[int, int],
    color_of: Callable[[Box], Rgb | None] | None = None,
    image: Image | None = None,
) -> tuple[relations.Choice, list[Grounding], tuple[Grounding, ...]]:
    """As :func:`answer`: the choice, the candidates that its indices mean, and all detections of the category."""

    named = Candidates.categories_of(query)
    referred = query.target_categories
    wanted = {*named, *referred}
    # A kind is found once more as what it is a kind of: without its word it is no object of its own.
    groundings = [
        Grounding(d.box, calibration.probability(d.category, d.score), d.category)
        for d in detections
        if d.category not in KINDS or d.category in wanted
    ]
    subjects = [g for g in groundings if (not named or g.category in named) and g.score >= _PLAUSIBLE]
    considered = tuple(subjects)
    enough = [g for g in subjects if g.score >= calibration.answer]
    if query.is_all or query.category is None:
        # Orders weigh doubtful objects by their probability; a list of objects has to draw the line, and draws it
        # lower only where it would be empty though "the ..." had an answer.
        even = [g for g in enough if g.score >= _EVEN]
        subjects = even or (enough if query.is_all else [])
    elif not enough:
        subjects = []
    targets = [g for g in groundings if g.category in referred - set(named) and g.score >= _PLAUSIBLE]
    candidates = subjects + targets
    labelled = _labelled(query, candidates, color_of, image)
    return relations.choose(query, labelled, image_size, _view(query, image)), candidates, considered


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


def _labelled(
    query: Query, groundings: Sequence[Grounding], color_of: Callable[[Box], Rgb | None] | None, image: Image | None
) -> list[relations.LabelledBox]:
    """The candidates with as much measured of them as the words ask for."""
    name_color = color_of if color_of is not None and query.mentions_color else None
    seen = image if query.mentions_looks else None
    return [
        relations.LabelledBox(
            g.box,
            g.category or "",
            g.score,
            name_color(g.box) if name_color else None,
            look=None if seen is None else look_at(seen, g.box),
        )
        for g in groundings
    ]


def _view(query: Query, image: Image | None) -> View | None:
    return view_of(image) if image is not None and mentions_surroundings(query) else None


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

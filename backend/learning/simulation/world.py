"""The world of ``pslg simulate``: tasks as Label Studio has them, an oracle that knows the masks, and what is measured.

Everything that does not depend on what was learnt is made once and shared by all strategies and seeds: the detector's
features, the boxes of categories that the base model knows, and embeddings of windows.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from backend.evaluation.clicks import HOLE_AREA, SPECK_AREA, clicks_to, supposing
from backend.pipeline.config import PipelineConfig
from backend.pipeline.grounding.compact.detections import Detection, find, reading_sides
from backend.pipeline.grounding.compact.exemplars import CompactMatcher, GrounderWithExemplars
from backend.pipeline.grounding.compact.grounder import CompactGrounder
from backend.pipeline.grounding.compact.network import Calibration, Detector, DetectorOutput
from backend.pipeline.grounding.exemplars import Lessons
from backend.pipeline.pslg_sam import PslgSam
from backend.pipeline.segmentation.compact_sam import CLICK_RADIUS
from backend.pipeline.segmentation.mask_cleaning import clean_mask
from backend.pipeline.segmentation.sam import SamSegmenter
from backend.pipeline.segmentation.windows import window_for
from backend.pipeline.types import Box, Embedding, Image, Mask, NamedImage, Prelabels
from backend.training.adapter.views import FeatureCache, FeatureView, Reading, adapted_output, outputs_of
from dataset_tools.expressions import parser as expression_parser
from dataset_tools.expressions.query import Query
from dataset_tools.image_files import read
from dataset_tools.labelled import LabelledExpression, LabelledImage
from dataset_tools.metrics import iou

__all__ = [
    "ACCEPTED",
    "ImageRun",
    "LearntModel",
    "Measured",
    "OracleTask",
    "World",
    "measure_all",
    "tasks_of",
    "training_set",
    "with_decoder",
]

ACCEPTED = 0.85
"""IoU from which the oracle takes a pre-label as it is."""
_LOWEST_SCORE = 0.05
_SHIFT = 0.06
"""Windows whose centres are closer than this share of their side, along each axis, are about the same."""


@dataclass(frozen=True)
class OracleTask:
    """A task: one expression about one image, and the objects that it names."""

    image: LabelledImage
    number: int

    @property
    def key(self) -> str:
        """Names the task; the same in every run."""
        return f"{self.image.key[:16]}:{self.number}"

    @property
    def expression(self) -> LabelledExpression:
        """What the task asks for."""
        return self.image.expressions[self.number]

    @property
    def category(self) -> str:
        """Of its objects."""
        return self.image.objects[self.expression.objects[0]].category

    def masks(self) -> list[Mask]:
        """The masks of its objects, bool[H, W] each."""
        return [self.image.objects[index].mask() for index in self.expression.objects]


@dataclass(frozen=True, eq=False)
class LearntModel:
    """A state of what was learnt: detector with adapter, thresholds, segmenter; lessons of what the detector does not
    know, which serve as they do between a project's trainings.
    """

    detector: Detector
    calibration: Calibration
    segmenter: SamSegmenter
    lessons: Lessons = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """How one task went: IoU of the pre-label with the target, whether it was answered, and clicks per object asked."""

    task: str
    category: str
    iou: float
    clicks: tuple[int, ...] = ()


def tasks_of(images: Sequence[LabelledImage]) -> list[OracleTask]:
    """The tasks whose expression names something that is there."""
    return [OracleTask(image, k) for image in images for k, one in enumerate(image.expressions) if one.objects]


def training_set(labelled: Sequence[OracleTask]) -> list[LabelledImage]:
    """What the project holds once ``labelled`` are: per image the objects that its tasks named, and nothing else.

    "all the ships" says that there are no other ships, and so does "the ship" where one was outlined; every other
    expression leaves that open. Labels are words of the project, whether or not the lexicon knows them.
    """
    own = frozenset(item.category for task in labelled for item in task.image.objects)
    by_image: dict[str, list[OracleTask]] = {}
    for task in labelled:
        by_image.setdefault(task.image.key, []).append(task)
    result = []
    for tasks in by_image.values():
        image = tasks[0].image
        kept = sorted({index for task in tasks for index in task.expression.objects})
        place = {index: number for number, index in enumerate(kept)}
        queries = [(task, expression_parser.parse(task.expression.text, own)) for task in tasks]
        counts = Counter(image.objects[index].category for index in kept)
        complete = frozenset(
            task.category
            for task, query in queries
            if (query.is_all and not query.constraints)
            or (query.says_one and len(task.expression.objects) == counts[task.category] == 1)
        )
        expressions = tuple(
            LabelledExpression(task.expression.text, tuple(place[index] for index in task.expression.objects))
            for task in tasks
        )
        objects = tuple(image.objects[index] for index in kept)
        result.append(replace(image, objects=objects, expressions=expressions, complete=complete))
    return result


class World:
    """Images with what is known about them, and the models that look at them.

    Args:
        cache: of the base detector.
        calibration: its own.
        segmenter: whose encoder all models share.
        config: stages of the pipeline.
        windows: embeddings kept in memory; some hundred kilobytes each.
    """

    def __init__(
        self,
        cache: FeatureCache,
        calibration: Calibration,
        segmenter: SamSegmenter,
        config: PipelineConfig,
        *,
        windows: int = 6000,
    ) -> None:
        self.cache = cache
        self.calibration = calibration
        self.segmenter = segmenter
        self.config = config
        self.matcher = CompactMatcher(CompactGrounder(cache.detector, calibration))
        self._windows = _Windows(segmenter, windows)
        self._known: dict[str, tuple[Detection, ...]] = {}

    def known_boxes(self, image: LabelledImage) -> tuple[Detection, ...]:
        """What the base detector finds, best first."""
        if image.key not in self._known:
            outputs = self._outputs(image, self._base_output)
            size = (image.height, image.width)
            self._known[image.key] = tuple(find(outputs, size, self.cache.detector.config.categories, _LOWEST_SCORE))
        return self._known[image.key]

    def own_boxes(self, image: LabelledImage, detector: Detector) -> list[Detection]:
        """What the adapter of ``detector`` alone can find: the categories that the base does not know."""
        new = detector.config.adapted
        if not new:
            return []

        def own(reading: Reading) -> DetectorOutput:
            output = adapted_output(detector, reading)
            heat = [level[:, -new:] for level in output.heat]
            return DetectorOutput(heat, [level[:, -4:] for level in output.sides], None)

        size = (image.height, image.width)
        return find(self._outputs(image, own), size, detector.config.categories[-new:], _LOWEST_SCORE)

    def features(self, image: LabelledImage) -> npt.NDArray[np.float32]:
        """float32[D] of unit length: what the image looks like to the base detector, coarsest level, pooled."""
        maps = self.cache.reading(image, FeatureView(self._sides(image)[0])).features[-1].astype(np.float32)
        pooled = np.concatenate([maps.mean(axis=(0, 1)), maps.max(axis=(0, 1))])
        return np.asarray(pooled / max(float(np.linalg.norm(pooled)), 1e-6), np.float32)

    def embed(self, image: LabelledImage, pixels: Image, window: Box, *, about: bool = False) -> Embedding:
        """Features of a window, or, if ``about`` that is enough, of one kept that is about the same."""
        return self._windows.get(image.key, pixels, window, _SHIFT if about else 0.0)

    def _sides(self, image: LabelledImage) -> list[int]:
        return reading_sides(self.calibration.scales, max(image.height, image.width))

    def _outputs(
        self, image: LabelledImage, output_of: Callable[[Reading], DetectorOutput]
    ) -> dict[int, DetectorOutput]:
        return outputs_of(self.cache, image, self.calibration.scales, self.calibration.mirrored, output_of)

    def _base_output(self, reading: Reading) -> DetectorOutput:
        heat, sides = (
            [torch.from_numpy(np.asarray(level, np.float32)).permute(2, 0, 1)[None] for level in part]
            for part in (reading.heat, reading.sides)
        )
        return DetectorOutput(heat, sides, None, self.cache.detector.config.groups)


class ImageRun:
    """One image through one model."""

    def __init__(self, world: World, image: LabelledImage, model: LearntModel) -> None:
        self.world, self.image, self.model = world, image, model
        grounder: CompactGrounder = _Grounder(self)
        if model.lessons:
            grounder = GrounderWithExemplars(grounder, world.matcher, model.lessons)
        self.pipeline = PslgSam(grounder, model.segmenter, world.config, "simulation")

    @cached_property
    def pixels(self) -> Image:
        """uint8[H, W, 3] RGB."""
        return read(self.image.path)

    @cached_property
    def own_boxes(self) -> list[Detection]:
        """See ``World.own_boxes``."""
        return self.world.own_boxes(self.image, self.model.detector)

    def prelabel(self, text: str) -> Prelabels:
        """The model's answer to an expression."""
        return self.pipeline.prelabel(
            self.pixels,
            text,
            key=self.image.key,
            embed=self._embed,
        )

    def _embed(self, pixels: Image, window: Box | None) -> Embedding:
        whole = Box(0.0, 0.0, float(self.image.width), float(self.image.height))
        return self.world.embed(self.image, pixels, window or whole, about=True)

    def measure(self, task: OracleTask, *, objects: Sequence[int] = (), cap: int = 10, spare: float = 2.0) -> Measured:
        """The pre-label of ``task`` against its target.

        Args:
            task: of this image.
            objects: positions in ``task.expression.objects`` for which the clicks to ``ACCEPTED`` are counted.
            cap: most clicks per object.
            spare: no clicks are counted where the pre-label's IoU is at least this.
        """
        found = self.prelabel(task.expression.text)
        masks = task.masks()
        predicted = np.zeros((self.image.height, self.image.width), np.bool_)
        for item in found:
            predicted |= item.mask
        score = iou(predicted, np.logical_or.reduce(masks))
        counted = objects if score < spare else ()
        clicks = tuple(self._clicks(masks[k], task.category, [item.mask for item in found], cap) for k in counted)
        return Measured(task.key, task.category, score, clicks)

    def _clicks(self, target: Mask, category: str, offered: Sequence[Mask], cap: int) -> int:
        shown = [clean_mask(mask, SPECK_AREA, HOLE_AREA) for mask in offered]
        start = max(shown, key=lambda mask: iou(mask, target), default=None)
        if start is not None and not (start & target).any():
            start = None
        embed = partial(self.world.embed, self.image, self.pixels)
        supposed = supposing(self.pipeline, NamedImage.of(self.pixels, self.image.key), category)
        return clicks_to(self.model.segmenter, embed, target, start, enough=ACCEPTED, cap=cap, supposed=supposed)


class _Grounder(CompactGrounder):
    """The compact grounder on kept boxes; the adapter is asked only where the expression needs what it knows."""

    def __init__(self, look: ImageRun) -> None:
        super().__init__(look.model.detector, look.model.calibration, bfloat16=False)
        self._look = look

    def detections_for(self, query: Query, image: Image, *, key: str | None = None) -> tuple[Detection, ...]:
        config = self.detector.config
        own = set(config.categories[len(config.categories) - config.adapted :])
        if query.category is None or own & {query.category, *query.target_categories}:
            return self.detections(image, key=key)
        return self._look.world.known_boxes(self._look.image)

    def detections(self, image: Image, *, key: str | None = None) -> tuple[Detection, ...]:  # noqa: ARG002 - the interface's
        found = [*self._look.world.known_boxes(self._look.image), *self._look.own_boxes]
        return tuple(sorted(found, key=lambda detection: -detection.score))


class _Windows:
    """Embeddings by image and window; one whose window is about the same serves as well.

    A box that moves by a pixel from round to round would otherwise cost an embedding every time, and masks differ by
    less than between two annotators.
    """

    def __init__(self, segmenter: SamSegmenter, most: int) -> None:
        self._segmenter = segmenter
        self._left = most
        self._kept: dict[str, list[Embedding]] = {}

    def get(self, key: str, pixels: Image, window: Box, shift: float) -> Embedding:
        kept = self._kept.setdefault(key, [])
        for embedding in kept:
            if _alike(embedding.window, window, shift):
                return embedding
        embedding = self._segmenter.embed(pixels, window, key=key)
        if self._left > 0:
            self._left -= 1
            kept.append(embedding)
        return embedding


def _alike(a: Box, b: Box, shift: float) -> bool:
    limit = shift * min(a.width, b.width)
    return abs(a.width - b.width) <= 2 * limit and all(
        abs(p - q) <= limit for p, q in zip(a.center, b.center, strict=True)
    )


def measure_all(
    world: World,
    model: LearntModel,
    tasks: Sequence[OracleTask],
    clicked: Callable[[OracleTask], Collection[int]] = lambda _: (),
    cap: int = 10,
) -> list[Measured]:
    """``ImageRun.measure`` of all tasks, image by image; ``clicked`` says of which objects clicks are counted."""
    by_image: dict[str, list[OracleTask]] = {}
    for task in tasks:
        by_image.setdefault(task.image.key, []).append(task)
    found = []
    for members in by_image.values():
        look = ImageRun(world, members[0].image, model)
        found += [look.measure(task, objects=sorted(clicked(task)), cap=cap) for task in members]
    return found


def with_decoder(segmenter: SamSegmenter, tensors: Mapping[str, Tensor]) -> SamSegmenter:
    """A compact segmenter with another mask decoder; embeddings of the given one fit it."""
    sam = copy.deepcopy(segmenter.sam)
    sam.load_state_dict(dict(tensors), strict=False)
    return SamSegmenter(
        sam,
        window_rule=window_for,
        click_radius=CLICK_RADIUS,
        mask_threshold=segmenter.mask_threshold,
        half_turn=segmenter.half_turn,
    )

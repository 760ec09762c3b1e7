"""What the pipeline's stages hand to one another. Coordinates are pixels of the original image, x before y."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from dataset_tools.geometry import Box, Point

__all__ = [
    "Abstention",
    "AbstentionCode",
    "Box",
    "Embedding",
    "GroundedMask",
    "Grounding",
    "GroundingResult",
    "Image",
    "Likeness",
    "Mask",
    "MaskPrediction",
    "NamedImage",
    "Point",
    "Prelabel",
    "Prelabels",
    "Prompts",
    "hash_image",
]

Image = npt.NDArray[np.uint8]
"""uint8[H, W, 3], RGB."""
Mask = npt.NDArray[np.bool_]
"""bool[H, W], True on the object."""


def hash_image(image: Image) -> str:
    """sha256 in hex over size and pixels of ``image`` uint8[H, W, 3]: names its content where nothing else does.

    An image of a file or a task has a name already, by which it is not hashed again; 4096 x 4096 pixels take 30 ms.
    """
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class NamedImage:
    """An image that is known by name and size; its pixels are fetched when somebody wants them.

    Attributes:
        identity: names the content in every cache, so that no pixels are hashed: the sha256 of its file's bytes in hex,
            or ``hash_image`` where there is no file.
        size: (height, width) in pixels as shown, orientation applied.
        pixels: gives its uint8[H, W, 3] RGB; ImageError where it cannot be fetched any more, or its address holds
            another image by now.
    """

    identity: str
    size: tuple[int, int]
    pixels: Callable[[], Image] = field(repr=False, compare=False)

    @classmethod
    def of(cls, pixels: Image, identity: str | None = None) -> NamedImage:
        """Of ``pixels`` uint8[H, W, 3] that are there already; hashed where they have no ``identity``."""
        return cls(identity or hash_image(pixels), (pixels.shape[0], pixels.shape[1]), lambda: pixels)


AbstentionCode = Literal["absent", "ambiguous", "unknown-category", "unknown-word", "empty-expression"]


@dataclass(frozen=True, eq=False)
class GroundedMask:
    """An object's outline as a grounder sees it that finds masks as well as boxes.

    Attributes:
        mask: bool[H, W] at the original image's size.
        predicted_iou: how sure the grounder is of the outline, in [0, 1].
        stability: as that of ``MaskPrediction``.
    """

    mask: Mask
    predicted_iou: float
    stability: float


@dataclass(frozen=True)
class Likeness:
    """What is known of an object that was found because it looks like given examples.

    Attributes:
        place: (x, y) of its middle.
        sizes: (width, height) of the examples in pixels, at least one, each at least 1.
    """

    place: Point
    sizes: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Grounding:
    """One box found by coarse localization.

    Attributes:
        box: where the object is, clipped to the image.
        score: the grounder's confidence in [0, 1].
        category: canonical category name (``dataset_tools.categories``), None if the grounder returns none.
        outline: makes the object's outline, of grounders that see it and only for what they chose; never stored.
        like: of an object that was found by examples; its box says where it is, and less surely how large.
    """

    box: Box
    score: float
    category: str | None = None
    outline: Callable[[], GroundedMask] | None = field(default=None, compare=False, repr=False)
    like: Likeness | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Abstention:
    """Why an expression got no mask.

    Attributes:
        code: ``absent`` (the category is known, no such object in the image), ``ambiguous`` (several objects fit
            an expression that asks for one),
            ``unknown-category`` (no known category word), ``unknown-word`` (a word that was not understood leaves
            several objects open) or ``empty-expression``.
        message: for the annotator: what was looked for, what was seen, what to write instead.
        candidates: the boxes that came closest, best first.
        unread: for ``unknown-word``: the words that were not understood.
    """

    code: AbstentionCode
    message: str
    candidates: tuple[Grounding, ...] = ()
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroundingResult:
    """Answer of a grounder: the chosen boxes, or an abstention; never both, never neither.

    Attributes:
        groundings: the chosen boxes, best first (several for "all the ...").
        abstention: set if and only if ``groundings`` is empty.
        candidates: every box considered, best first (for overlays and for ranking by disagreement).
    """

    groundings: tuple[Grounding, ...]
    abstention: Abstention | None = None
    candidates: tuple[Grounding, ...] = ()


@dataclass(frozen=True)
class Prompts:
    """Prompts for one object, all in pixels of the original image.

    Attributes:
        points: float32[N, 2], x before y.
        point_labels: int64[N], 1 foreground, 0 background.
        box: at most one box.
        mask_logits: float32[h, w], low-resolution logits of an earlier prediction on the SAME embedding.
    """

    points: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    point_labels: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((0,), np.int64))
    box: Box | None = None
    mask_logits: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1:] != (2,):
            raise ValueError(f"points must have shape [N, 2], got {self.points.shape}")
        if self.point_labels.shape != self.points.shape[:1]:
            raise ValueError(
                f"point_labels must have shape [{len(self.points)}] like points, got {self.point_labels.shape}"
            )


@dataclass(frozen=True, eq=False)
class Embedding:
    """Image-side features of a segmenter for an image or a window of it; everything a decode needs.

    Attributes:
        key: content address (``embedding_store.embedding_address``): changes with what is in the window, the encoder,
            the storage dtype and the window.
        features: storage dtype (fp16 unless the config says fp32) [C, h, w]; already rounded, so that a decode from
            memory, from disk and in another process gives the same mask.
        image_size: (height, width) of the original image in pixels.
        window: the part of the image that was embedded, in pixels; the whole image is (0, 0, width, height). May
            reach over the image's border, where the encoder saw padding.
    """

    key: str
    features: npt.NDArray[np.floating]
    image_size: tuple[int, int]
    window: Box


@dataclass(frozen=True, eq=False)
class MaskPrediction:
    """A decoded mask.

    Attributes:
        mask: bool[H, W] at the original image's size.
        predicted_iou: the decoder's own estimate of its IoU, in [0, 1].
        low_res_logits: float32[h, w] in the embedding's frame, to be passed back as ``Prompts.mask_logits``.
        measure_stability: counts what ``stability`` is made of; clicks never ask for it.
    """

    mask: Mask
    predicted_iou: float
    low_res_logits: npt.NDArray[np.float32]
    measure_stability: Callable[[], float]

    @cached_property
    def stability(self) -> float:
        """IoU between the masks at a raised and a lowered logit threshold, in [0, 1]."""
        return self.measure_stability()


@dataclass(frozen=True, eq=False)
class Prelabel:
    """One labelled object: the pipeline's result.

    Attributes:
        mask: bool[H, W] at the original image's size, never empty.
        box: the box from coarse localization (x0, y0, x1, y1); the mask's where examples led to it.
        point: the foreground point (x, y) that went into the prompt, None when the point generator is off.
        category: canonical name, None only if neither expression nor caller gives one.
        score: in [0, 1]; with a calibrated config the probability that the mask is accepted unchanged
            (``backend.pipeline.scores``). Orders the annotators' queue.
        scores: ``grounding``, ``predicted_iou``, ``stability``, ``boundary_agreement``, each in [0, 1].
        expression: what was asked for.
    """

    mask: Mask
    box: Box
    point: Point | None
    category: str | None
    score: float
    scores: Mapping[str, float]
    expression: str


@dataclass(frozen=True, eq=False)
class Prelabels(Sequence[Prelabel]):
    """The objects of one expression, best first; empty if and only if ``abstained`` is set.

    ``left_out``: how many more boxes were found, less certain ones, and not outlined because a caller set a bound.
    ``candidates``: of an answer that abstained, the objects of which one may be meant, where a caller asked for them.
    They are no answer: nothing that measures looks at them.
    """

    items: tuple[Prelabel, ...]
    abstained: Abstention | None = None
    left_out: int = 0
    candidates: tuple[Prelabel, ...] = ()

    @property
    def score(self) -> float:
        """That of the least certain object: one bad mask is enough to change the answer. 0.0 without an object."""
        return min((item.score for item in self.items), default=0.0)

    @overload
    def __getitem__(self, index: int) -> Prelabel: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Prelabel, ...]: ...
    def __getitem__(self, index: int | slice) -> Prelabel | tuple[Prelabel, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Prelabel]:
        return iter(self.items)

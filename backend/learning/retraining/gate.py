"""The promotion gate: a trained version is promoted only if it is better for the project and has forgotten nothing.

Better is measured on a share of the project's own images that training never sees: which they are depends on the
project's number and the image's hash alone, so it never changes. Forgetting is measured on replay images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from backend.evaluation.expressions import evaluate
from backend.pipeline.pslg_sam import PslgSam
from dataset_tools.image_files import read
from dataset_tools.labelled import LabelledImage, questions, spread
from dataset_tools.metrics import CONVENTIONS

__all__ = ["GateReport", "compare", "decide", "is_held_out"]

TOLERANCE = 0.01
"""How much mIoU a version may lose on replay."""
MOST_EXPRESSIONS = 200
"""Of each set so many expressions are asked at most, at even distances."""


@dataclass(frozen=True)
class GateReport:
    """End-to-end mIoU of both versions in [0, 1], and the decision; None where there was nothing to measure."""

    held_out_old: float | None
    held_out_new: float | None
    replay_old: float | None
    replay_new: float | None
    promoted: bool
    reason: str

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def is_held_out(project_id: int | str, image_key: str, share: float) -> bool:
    """Whether an image measures instead of trains: a ``share`` of a project's images, the same for ever.

    Args:
        project_id: Label Studio's number of the project.
        image_key: sha256 of the image.
        share: in [0, 1]; what a smaller share holds out a larger one does too.
    """
    digest = hashlib.sha256(f"{project_id}:{image_key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def compare(
    old: PslgSam,
    new: PslgSam,
    held_out: Sequence[LabelledImage],
    replay: Sequence[LabelledImage],
    *,
    tolerance: float = TOLERANCE,
    limit: int | None = MOST_EXPRESSIONS,
    progress: Callable[[int], object] = lambda _: None,
) -> GateReport:
    """Measure both versions end to end: every expression from its words to the union of its masks.

    An expression about something absent counts 1 if it got no mask, else 0.

    Args:
        old: the version that is served.
        new: the version that wants to be.
        held_out: the project's images that neither was trained on (``is_held_out``).
        replay: images of what was known before.
        tolerance: how much mIoU the new version may lose on ``replay``.
        limit: most expressions asked of each set; None asks all.
        progress: called with the number of expressions done since the last call.
    """
    before, after = (_quality(pipeline, held_out, limit, progress) for pipeline in (old, new))
    kept_before, kept_after = (_quality(pipeline, replay, limit, progress) for pipeline in (old, new))
    promoted, reason = decide(before, after, kept_before, kept_after, tolerance)
    return GateReport(before, after, kept_before, kept_after, promoted, reason)


def _quality(
    pipeline: PslgSam, images: Sequence[LabelledImage], limit: int | None, progress: Callable[[int], object]
) -> float | None:
    """Mean IoU over the expressions of ``images``; the grounder keeps an image's boxes from one to the next."""
    asked = spread(questions(images), limit)
    if not asked:
        return None
    convention = CONVENTIONS["native"]
    found = evaluate(pipeline, asked, read, convention=convention, progress=progress)
    return sum(outcome.iou(convention) for outcome in found.outcomes) / len(found.outcomes)


def decide(
    before: float | None, after: float | None, kept_before: float | None, kept_after: float | None, tolerance: float
) -> tuple[bool, str]:
    """Whether to promote, and why: by mIoU on held-out images (before, after) and on replay; None: not measured."""
    if before is None or after is None:
        return False, "no held-out image is labelled yet, so that nothing says whether the new version is better"
    held_out = f"held-out mIoU {before:.3f} -> {after:.3f}"
    if after <= before:
        return False, f"{held_out}: not better"
    if kept_before is None or kept_after is None:
        return True, f"{held_out}; nothing to measure forgetting with"
    replay = f"replay mIoU {kept_before:.3f} -> {kept_after:.3f}"
    if kept_after < kept_before - tolerance:
        return False, f"{held_out}, but {replay}: more than {tolerance:g} lost"
    return True, f"{held_out}, {replay}"

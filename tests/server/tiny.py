"""A real pipeline small enough for tests: a Sam with random weights behind a grounder that reads the words only."""

from __future__ import annotations

import torch

from backend.pipeline import PslgSam
from backend.pipeline.config import PipelineConfig
from backend.pipeline.segmentation.compact_sam import build_compact_sam
from backend.pipeline.segmentation.sam import SamSegmenter
from backend.pipeline.segmentation.windows import window_for
from backend.pipeline.types import Abstention, Box, Grounding, GroundingResult, Image
from dataset_tools import categories

VERSION = "tiny-0123abcd"


class WordGrounder:
    """Grounds every known category in the middle of the image, "two" of them side by side, and nothing else."""

    known_categories = frozenset(categories.CATEGORIES)

    def ground(self, image: Image, expression: str, *, key: str | None = None, labels: object = ()) -> GroundingResult:
        height, width = image.shape[:2]
        mentions = categories.find_mentions(expression.lower().split())
        if not mentions:
            return GroundingResult((), Abstention("unknown-category", f"no category word in {expression!r}"))
        if "absent" in expression:
            return GroundingResult((), Abstention("absent", "there is none"))
        category = mentions[0].category
        middle = Box(width * 0.25, height * 0.25, width * 0.75, height * 0.75)
        boxes = [middle]
        if "two" in expression:
            boxes = [Box(0, 0, width * 0.4, height), Box(width * 0.6, 0, width, height)]
        return GroundingResult(tuple(Grounding(box, 0.9, category) for box in boxes))


def tiny_pipeline(seed: int = 7, version: str = VERSION, *, windows: bool = True) -> PslgSam:
    torch.manual_seed(seed)
    sam = build_compact_sam(img_size=64, embed_dim=32, widths=(8, 8, 16, 16, 16), depths=(1, 1, 1, 1), mlp_dim=32)
    with torch.no_grad():  # untrained, it would rate all masks near 0
        sam.mask_decoder.iou_prediction_head.layers[-1].bias.fill_(0.7)
    segmenter = SamSegmenter(sam, window_rule=window_for if windows else None)
    config = PipelineConfig.model_validate(
        {
            "name": "tiny",
            "grounder": {"kind": "compact", "weights": "none"},
            "segmenter": {"kind": "compact-sam", "weights": "none"},
            "foreground_points": {"enabled": False},
            "boundary": {"enabled": False},
        }
    )
    return PslgSam(WordGrounder(), segmenter, config, version)

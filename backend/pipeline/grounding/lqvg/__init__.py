"""LQVG, the paper's coarse localization network: ResNet-50, RoBERTa, cross-modal gates, deformable DETR."""

from __future__ import annotations

from backend.pipeline.grounding.lqvg.checkpoint import load_lqvg
from backend.pipeline.grounding.lqvg.inference import LqvgGrounder, load_lqvg_grounder

__all__ = ["LqvgGrounder", "load_lqvg", "load_lqvg_grounder"]

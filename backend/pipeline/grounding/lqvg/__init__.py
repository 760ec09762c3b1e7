"""LQVG, the paper's coarse localization network: ResNet-50, RoBERTa, cross-modal gates, deformable DETR."""

from __future__ import annotations

from backend.pipeline.grounding.lqvg.checkpoint import load_lqvg

__all__ = ["load_lqvg"]

"""A language model that points at what a sentence describes, over HTTP or in this process."""

from backend.pipeline.grounding.vlm.grounder import VlmGrounder, load_vlm

__all__ = ["VlmGrounder", "load_vlm"]

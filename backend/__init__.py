"""Label Studio ML backend that pre-labels overhead images from referring expressions (PSLG-SAM)."""

__version__ = "0.1.0"

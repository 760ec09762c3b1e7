"""Clicks that hold: a click that the decoder ignores is written into the logits.

The compact decoder has seen few thin parts; a click on a wing tip that changes nothing would leave an annotator no way
to finish. segment-anything's own models are used as published, without this.
"""

from __future__ import annotations

from torch import Tensor, arange, float32

__all__ = ["hold_clicks"]

CLICK_MARGIN = 1.0
"""Logit that a contradicted click's own pixel gets."""


def hold_clicks(logits: Tensor, points: Tensor, labels: Tensor, scale: float, radius: float) -> Tensor:
    """``logits`` with every click that they contradict made to hold.

    A contradicted click shifts the logits around it so far that its own pixel changes sides, fully within half of
    ``radius`` and fading to nothing at one and a half; clicks are taken in order. A mask that agrees with all clicks
    stays as it is.

    Args:
        logits: float32[h, w].
        points: float32[N, 2], (x, y) in pixels of the network's input.
        labels: int[N], 1 foreground, 0 background.
        scale: low-resolution pixels per input pixel.
        radius: in low-resolution pixels.
    """
    height, width = logits.shape
    rows = arange(height, device=logits.device, dtype=float32)[:, None]
    columns = arange(width, device=logits.device, dtype=float32)[None]
    held = logits
    for (x, y), label in zip(((points + 0.5) * scale - 0.5).tolist(), labels.tolist(), strict=True):
        sign = 1.0 if label == 1 else -1.0
        row, column = min(max(round(y), 0), height - 1), min(max(round(x), 0), width - 1)
        missing = CLICK_MARGIN - sign * float(held[row, column])
        if missing > CLICK_MARGIN:
            distance = ((rows - y) ** 2 + (columns - x) ** 2).sqrt()
            held = held + sign * missing * (1.5 - distance / radius).clamp(0, 1)
    return held

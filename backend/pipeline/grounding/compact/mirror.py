"""An image and its mirror image read together: what stands left and right in an overhead image means nothing.

Both say the same but for what the network learnt by chance, which their mean takes out: objects that one of them sees
weakly are answered, and shapes that only one takes for an object are not. A reading twice costs twice; the coarsest
reading costs least, and gains most.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backend.pipeline.grounding.compact.network import Detector, DetectorOutput

__all__ = ["averaged", "read_mirrored"]

_LEAST = 1e-6
"""Heat is kept this far from 0 and 1, where logits end."""
_EXCHANGED = (2, 1, 0, 3)
"""Left, top, right and bottom in the mirror."""


def read_mirrored(detector: Detector, inputs: Tensor) -> DetectorOutput:
    """What ``detector`` says of ``inputs`` float32[1, 3, H, W] and of their mirror image, averaged.

    The padding is mirrored with the image, so that the cells of both lie on each other.
    """
    both = torch.cat([inputs, inputs.flip(-1)]).contiguous(memory_format=torch.channels_last)
    output = detector(both)
    of_image, of_mirror = (
        DetectorOutput(
            [level[place : place + 1] for level in output.heat],
            [level[place : place + 1] for level in output.sides],
            None,
            output.groups,
        )
        for place in range(2)
    )
    return averaged(of_image, of_mirror)


def averaged(of_image: DetectorOutput, of_mirror: DetectorOutput) -> DetectorOutput:
    """The mean of two outputs for the image: of the heat (not its logits) and of the distances to the sides.

    Args:
        of_image: what the network said of its input.
        of_mirror: what it said of that input's mirror image.
    """
    heat = [
        ((one.float().sigmoid() + other.float().flip(-1).sigmoid()) / 2).clamp(_LEAST, 1 - _LEAST).logit()
        for one, other in zip(of_image.heat, of_mirror.heat, strict=True)
    ]
    sides = [
        ((one.float().exp() + _exchanged(other.float().flip(-1)).exp()) / 2).log()
        for one, other in zip(of_image.sides, of_mirror.sides, strict=True)
    ]
    return DetectorOutput(heat, sides, None, of_image.groups, of_image.looks + of_mirror.looks)


def _exchanged(sides: Tensor) -> Tensor:
    """Sides [B, 4 * G, h, w] with left and right exchanged in each group."""
    count, _, height, width = sides.shape
    return sides.view(count, -1, 4, height, width)[:, :, _EXCHANGED].reshape(sides.shape)

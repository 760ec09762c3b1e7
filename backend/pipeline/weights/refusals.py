"""Why a checkpoint is not loaded, without torch's advice to load it all the same: that would run what stands in it."""

from __future__ import annotations

import re
from pathlib import Path

from dataset_tools.errors import WeightsError

__all__ = ["refusal"]


def refusal(path: Path, error: Exception) -> WeightsError:
    """The error for a file of which ``torch.load(weights_only=True)`` raised ``error``."""
    text = str(error)
    if "weights_only" in text or "Weights only load failed" in text:
        named = re.search(r"Unsupported \w+:? (?:GLOBAL )?([\w.]+)|GLOBAL ([\w.]+)", text)
        what = f" ({named[1] or named[2]})" if named else ""
        return WeightsError(
            f"{path} is not a checkpoint of plain tensors: it holds Python objects{what}, which could run code of"
            " whoever made the file, and is not loaded. Ask for its tensors alone, as safetensors or a state_dict"
        )
    reason = text.strip().splitlines()[0] if text.strip() else "no reason given"
    return WeightsError(
        f"{path} is not a checkpoint of plain tensors: {type(error).__name__}: {reason[:200]}. It may be damaged or cut"
        " short: compare its size and download it again"
    )

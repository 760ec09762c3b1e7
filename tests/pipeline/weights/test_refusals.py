"""A checkpoint that would run code is refused in words of ours: torch's own advise to run it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from backend.pipeline.grounding.lqvg.checkpoint import load_lqvg
from backend.pipeline.segmentation.vit_sam import load_sam
from backend.pipeline.weights.kinds import checkpoint_kind
from dataset_tools.errors import WeightsError


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("load", [checkpoint_kind, load_sam, load_lqvg])
def test_a_checkpoint_that_would_run_code(tmp_path: Path, load: Callable[[Path], object]) -> None:
    path, mark = tmp_path / "sam_vit_b.pth", tmp_path / "ran"
    torch.save({"model": {"a": torch.zeros(1)}, "args": Evil(mark)}, path)
    with pytest.raises(WeightsError) as refused:
        load(path)
    message = str(refused.value)
    assert message.startswith(f"{path} is not a checkpoint of plain tensors: it holds Python objects (posix.system)")
    for advice in ("weights_only", "add_safe_globals", "safe_globals", "torch.load"):
        assert advice not in message
    assert not mark.exists()


@pytest.mark.parametrize("load", [checkpoint_kind, load_sam, load_lqvg])
def test_a_checkpoint_that_is_cut_short(tmp_path: Path, load: Callable[[Path], object]) -> None:
    path = tmp_path / "sam_vit_b.pth"
    torch.save({"model": {"a": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(WeightsError, match=r"cut short: compare its size") as refused:
        load(path)
    assert "weights_only" not in str(refused.value)

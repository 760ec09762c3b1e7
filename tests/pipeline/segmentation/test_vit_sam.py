from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backend.errors import WeightsError
from backend.pipeline.segmentation.vit_sam import load_sam


def test_wrong_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is missing"):
        load_sam(tmp_path / "sam_vit_b.pth")
    (tmp_path / "page.pth").write_text("<html>")
    with pytest.raises(WeightsError, match="download it again"):
        load_sam(tmp_path / "page.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="no ViT-B, ViT-L or ViT-H"):
        load_sam(tmp_path / "other.pth")
    torch.save({"image_encoder.patch_embed.proj.weight": torch.zeros(768, 3, 16, 16)}, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match="not a complete vit_b"):
        load_sam(tmp_path / "part.pth")

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.build_sam import _build_sam

from backend.pipeline.segmentation.vit_sam import _build, load_sam
from dataset_tools.errors import WeightsError


def test_wrong_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is missing"):
        load_sam(tmp_path / "sam_vit_b.pth")
    (tmp_path / "page.pth").write_text("<html>")
    with pytest.raises(WeightsError, match="download it again"):
        load_sam(tmp_path / "page.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="no SAM of segment-anything"):
        load_sam(tmp_path / "other.pth")
    part = {"image_encoder.patch_embed.proj.weight": torch.zeros(768, 3, 16, 16)}
    torch.save({**part, "image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match="not a complete SAM"):
        load_sam(tmp_path / "part.pth")


def test_sizes_are_read_from_the_checkpoint_as_segment_anything_builds_it(tmp_path: Path) -> None:
    """A narrow encoder under the official builder's other sizes: 1024 px input, 64 x 64 embedding, four mask tokens."""
    torch.manual_seed(0)
    theirs = _build_sam(encoder_embed_dim=32, encoder_depth=3, encoder_num_heads=2, encoder_global_attn_indexes=[1])
    torch.save(theirs.state_dict(), tmp_path / "sam.pth")
    ours = load_sam(tmp_path / "sam.pth").sam
    assert str(ours) == str(theirs)
    assert [block.window_size for block in ours.image_encoder.blocks] == [14, 0, 14]
    for one, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_the_published_sizes_come_out_right(name: str) -> None:
    with torch.device("meta"):  # shapes only: ViT-H has 2.5 GB
        theirs = sam_model_registry[name]()
        ours = _build(theirs.state_dict())
    assert str(ours) == str(theirs)
    assert ours.image_encoder.img_size == theirs.image_encoder.img_size

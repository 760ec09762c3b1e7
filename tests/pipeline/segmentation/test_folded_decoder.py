from __future__ import annotations

import pytest
import torch
from segment_anything.modeling import Sam

from backend.pipeline.segmentation.folded_decoder import FoldedDecoder
from tests.pipeline.segmentation.small_sams import small_compact_sam, small_vit_sam


@pytest.mark.parametrize("sam", [small_vit_sam(), small_compact_sam()], ids=["vit", "compact"])
@pytest.mark.parametrize("clicks", [0, 1, 4, 20])
@pytest.mark.parametrize("with_mask", [False, True])
@torch.inference_mode()
def test_logits_equal_those_of_the_published_decoder(sam: Sam, clicks: int, with_mask: bool) -> None:
    torch.manual_seed(clicks)
    side = sam.prompt_encoder.image_embedding_size[0]
    dim = sam.prompt_encoder.embed_dim
    features = torch.randn(1, dim, side, side)
    points = (torch.rand(1, clicks, 2) * sam.image_encoder.img_size, torch.randint(0, 2, (1, clicks)))
    logits = torch.randn(1, 1, 4 * side, 4 * side) * 4 if with_mask else None
    sparse, dense = sam.prompt_encoder(points=points if clicks else None, boxes=None, masks=logits)
    masks, ious = sam.mask_decoder.predict_masks(features, sam.prompt_encoder.get_dense_pe(), sparse, dense)

    folded = FoldedDecoder(sam)
    image = folded.image_tokens(features[0].flatten(1).T, logits)
    folded_masks, folded_ious = folded(image, folded.prompt_tokens(sparse[0]))

    assert torch.allclose(folded_masks, masks[0], rtol=1e-4, atol=1e-5)
    assert torch.allclose(folded_ious, ious[0], rtol=1e-4, atol=1e-5)

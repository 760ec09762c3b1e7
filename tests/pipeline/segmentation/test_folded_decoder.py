from __future__ import annotations

import pytest
import torch
from segment_anything.modeling import Sam

from backend.pipeline.segmentation.folded_decoder import FirstLook, FoldedDecoder, first_look, two_way
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


@pytest.mark.parametrize("sam", [small_vit_sam(), small_compact_sam()], ids=["vit", "compact"])
@pytest.mark.parametrize("with_mask", [False, True])
@torch.inference_mode()
def test_what_was_projected_before_gives_the_same(sam: Sam, with_mask: bool) -> None:
    torch.manual_seed(1)
    folded, transformer = FoldedDecoder(sam), sam.mask_decoder.transformer
    image = torch.randn(folded.image_pe.shape)
    dense, mixing = torch.randn(len(image), 5) * with_mask, torch.randn(image.shape[1], 5)
    prompts = folded.prompt_tokens(torch.randn(3, image.shape[1]))
    known = FirstLook(*first_look(transformer, image, folded.image_pe), dense, mixing)
    seen = image + dense @ mixing.T
    for again, afresh in zip(
        two_way(transformer, seen, folded.image_pe, prompts, 4, known),
        two_way(transformer, seen, folded.image_pe, prompts, 4),
        strict=True,
    ):
        assert torch.allclose(again, afresh, rtol=1e-4, atol=1e-5)

"""The LQVG network (github LANMNG/LQVG) with the names of its published checkpoint."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d
from transformers import RobertaConfig, RobertaModel

from backend.pipeline.grounding.lqvg.architecture import LEVELS, Architecture
from backend.pipeline.grounding.lqvg.fusion import CrossModalGate, SentencePool, TextResizer
from backend.pipeline.grounding.lqvg.position import image_position_code, text_position_code
from backend.pipeline.grounding.lqvg.transformer import DeformableTransformer, FeatureLevel


class Backbone(nn.Module):
    """A ResNet (stride in the 3x3 convolution) with frozen batch norms, without its classifier."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.body = ResNet(
            Bottleneck,
            list(architecture.resnet_blocks),
            width_per_group=architecture.resnet_width,
            norm_layer=FrozenBatchNorm2d,
        )
        del self.body.avgpool, self.body.fc

    def forward(self, images: Tensor) -> list[Tensor]:
        """float32[B, 3, H, W] -> C3, C4, C5 with 512, 1024, 2048 channels at strides 8, 16, 32."""
        body = self.body
        x = body.layer1(body.maxpool(body.relu(body.bn1(body.conv1(images)))))
        features = []
        for layer in (body.layer2, body.layer3, body.layer4):
            x = layer(x)
            features.append(x)
        return features


class BoxHead(nn.Module):
    """A perceptron with two hidden layers (ReLU): float32[..., D] -> the box's change in logits [..., 4]."""

    def __init__(self, hidden_dim: int, size_bias: float = 0.0) -> None:
        super().__init__()
        last = nn.Linear(hidden_dim, 4)
        _fill(last.weight, 0.0)
        _fill(last.bias[:2], 0.0)
        _fill(last.bias[2:], size_bias)
        self.layers = nn.ModuleList((nn.Linear(hidden_dim, hidden_dim), nn.Linear(hidden_dim, hidden_dim), last))

    def forward(self, x: Tensor) -> Tensor:
        """float32[..., D] -> float32[..., 4]."""
        first, second, last = self.layers
        out: Tensor = last(second(first(x).relu()).relu())
        return out


class LqvgNetwork(nn.Module):
    """Language queries on a deformable DETR whose image features and words gate one another."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        D = architecture.hidden_dim
        self.architecture = architecture
        self.backbone = nn.Sequential(Backbone(architecture))
        self.text_encoder = RobertaModel(
            RobertaConfig(
                vocab_size=architecture.vocabulary,
                hidden_size=architecture.text_dim,
                num_hidden_layers=architecture.text_layers,
                num_attention_heads=architecture.text_heads,
                intermediate_size=architecture.text_feedforward_dim,
                max_position_embeddings=architecture.text_positions,
                type_vocab_size=1,
                layer_norm_eps=1e-5,
                pad_token_id=1,
                bos_token_id=0,
                eos_token_id=2,
            )
        )
        self.resizer = TextResizer(architecture.text_dim, D, architecture.dropout)
        self.fusion_module = CrossModalGate(D, architecture.heads)
        self.fusion_module_text = CrossModalGate(D, architecture.heads)
        self.poolout_module = SentencePool(D)
        projections = [nn.Conv2d(channels, D, kernel_size=1) for channels in (512, 1024, 2048)]
        projections.append(nn.Conv2d(2048, D, kernel_size=3, stride=2, padding=1))
        for projection in projections:
            nn.init.xavier_uniform_(projection.weight)
            _fill(projection.bias, 0.0)
        self.input_proj = nn.ModuleList(nn.Sequential(conv, nn.GroupNorm(32, D)) for conv in projections)
        self.query_embed = nn.Embedding(architecture.queries, D)
        self.transformer = DeformableTransformer(architecture)
        scores = [nn.Linear(D, 1) for _ in range(architecture.decoder_layers)]
        for score in scores:
            _fill(score.bias, -math.log((1 - 0.01) / 0.01))  # every query starts as 1 % object
        self.class_embed = nn.ModuleList(scores)
        first_boxes_are_small = -2.0
        self.bbox_embed = nn.ModuleList(
            BoxHead(D, size_bias=0.0 if layer else first_boxes_are_small)
            for layer in range(architecture.decoder_layers)
        )

    def forward(
        self, images: Tensor, image_padding: Tensor, token_ids: Tensor, text_attention: Tensor
    ) -> dict[str, Any]:
        """Propose one box per language query.

        Args:
            images: float32[B, 3, H, W], RGB, normalised with ImageNet's mean and deviation; any H and W.
            image_padding: bool[B, H, W], True = padding.
            token_ids: int64[B, L], RoBERTa's tokens.
            text_attention: int64[B, L], 1 = token, 0 = padding.

        Returns:
            ``pred_logits`` float32[B, 1, Q, 1] (raw), ``pred_boxes`` float32[B, 1, Q, 4] (cx, cy, w, h) in 0..1 of
            the network's input, and ``aux_outputs``: the same two of each earlier decoder layer. The axis of length 1
            is the original's time axis.
        """
        words = self.resizer(self.text_encoder(token_ids, attention_mask=text_attention).last_hidden_state)
        levels, sentence = self._align(self.backbone(images), image_padding, words, text_attention != 1)
        hidden, boxes = self.transformer(levels, sentence, self.query_embed.weight, self.bbox_embed)
        outputs = [
            {"pred_logits": head(state).float().unsqueeze(1), "pred_boxes": box.unsqueeze(1)}
            for head, state, box in zip(self.class_embed, hidden, boxes, strict=True)
        ]
        return {**outputs[-1], "aux_outputs": outputs[:-1]}

    def _align(
        self, features: list[Tensor], image_padding: Tensor, words: Tensor, text_padding: Tensor
    ) -> tuple[list[FeatureLevel], Tensor]:
        """Multi-scale cross-modal alignment: the gated levels and the sentence vector.

        The image is gated by the original words on every level; the words are gated by one level after the other.
        """
        text_position = text_position_code(text_padding, words.shape[-1])
        gated_words = words
        levels = []
        for level, projection in enumerate(self.input_proj):
            visual = projection(features[min(level, LEVELS - 2)])
            padding = functional.interpolate(image_padding[None].float(), size=visual.shape[-2:])[0].bool()
            position = image_position_code(padding, visual.shape[1])
            cells, cell_position = visual.flatten(2).transpose(1, 2), position.flatten(2).transpose(1, 2)
            gated_words = self.fusion_module_text(gated_words, cells, cell_position, padding.flatten(1))
            gated = self.fusion_module(cells, words, text_position, text_padding)
            levels.append(FeatureLevel(gated.transpose(1, 2).view_as(visual), padding, position))
        return levels, self.poolout_module(gated_words)


def _fill(parameter: Tensor | None, value: float) -> None:
    assert parameter is not None  # noqa: S101 - the layers above have a bias
    nn.init.constant_(parameter, value)

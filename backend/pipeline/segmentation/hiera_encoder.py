"""SAM 2's image encoder (Hiera) with its tokens kept in the order of their windows: the same algebra, fewer copies.

The library cuts the image's tokens into windows before every attention and puts them together after it, pads windows
at the border with tokens that it throws away, and pools queries over the picture's rows and columns. Nothing of Hiera
but the attention's windows and the pooling depends on where a token is. So tokens lie window by window here, in each
window 2 x 2 by 2 x 2 down to single ones: windows are slices, pooling takes four neighbours, and what pads a window is
its bias alone. The order changes where a stage has windows of another size. The finer features that the decoder adds
need one product each, since nothing lies between the two layers that make them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["HieraRows", "is_hiera"]

_PARTS = 4
"""In so many parts the windows of the first stages are worked off: what lies between fits the caches, and memory."""

_Order = npt.NDArray[np.int64]
"""int64[N]: which token of the image, counted row by row, stands at each place."""


@dataclass(frozen=True)
class _WindowRun:
    """Windows of one size that follow each other.

    Attributes:
        count: how many.
        tokens: of the image, in each.
        padding: further tokens of the library's windows, which lie outside the image.
    """

    count: int
    tokens: int
    padding: int = 0


def is_hiera(model: Any) -> bool:
    """Whether ``HieraRows`` can stand in for the encoder of ``model``: for every published SAM 2 and 2.1 it can."""
    backbone: Any = getattr(getattr(model, "vision_encoder", None), "backbone", None)
    if not hasattr(backbone, "blocks") or not hasattr(model, "no_memory_embedding"):
        return False
    height, width = backbone.config.image_size
    if height != width or len(backbone.stage_ends) != 4 or backbone.config.num_query_pool_stages != 3:
        return False
    if sorted(model.vision_encoder.neck.fpn_top_down_levels) != [2, 3]:
        return False
    side = _grid(backbone)
    for block in backbone.blocks:
        if block.query_stride:
            if tuple(block.query_stride) != (2, 2) or side % 2 or block.window_size % 2 or not block.window_size:
                return False
            side //= 2
    return True


class HieraRows(nn.Module):
    """The encoder of ``model`` and all else of it that no prompt changes, as ``ImageSide`` gives it.

    Args:
        model: a ``Sam2Model`` for which ``is_hiera`` holds; parameters are shared with it.
    """

    position: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        encoder = model.vision_encoder
        backbone = encoder.backbone
        self.patches = backbone.patch_embed.projection
        self.blocks = backbone.blocks
        self.stage_ends = list(backbone.stage_ends)
        self.laterals = nn.ModuleList(list(encoder.neck.convs)[::-1])  # of the first stage first
        self.after = nn.ModuleList([model.mask_decoder.conv_s0, model.mask_decoder.conv_s1])
        self.no_memory = model.no_memory_embedding
        side = _grid(backbone)
        order: _Order = np.arange(side * side)
        self.windows: list[list[_WindowRun]] = []
        self.together: dict[str, int] = {}
        ends: list[_Order] = []
        for number, block in enumerate(self.blocks):
            wanted = _window_order(side, block.window_size) if block.window_size else order
            self._move("patches" if number == 0 else f"before_{number}", order, wanted)
            self.windows.append(
                _windows(side, block.window_size) if block.window_size else [_WindowRun(1, side * side)]
            )
            order = wanted
            if number == 0:
                with torch.no_grad():
                    placed = backbone._get_pos_embed((side, side))[0].flatten(0, 1)[torch.from_numpy(order)]
                self.register_buffer("position", placed, persistent=False)
            if block.query_stride:
                order, side = _pooled(order, side), side // 2
            if number in self.stage_ends:
                ends.append(order)
        # Up to the first change of order all windows are for themselves: a part after the other needs less memory.
        moves = [number for number in range(1, len(self.blocks)) if f"before_{number}" in self.together]
        self.apart = min([*moves, *(n for n, block in enumerate(self.blocks) if not block.window_size)])
        self.parts = math.gcd(_PARTS, *(each.count for group in self.windows[: self.apart] for each in group))
        side *= 2  # of the third stage, whose tokens are the embedding's
        for stage, name in enumerate(("finest", "finer", "image")):
            self._move(name, ends[stage], _in_fours(side, 2 - stage))
        rows, columns = np.divmod(np.arange(side * side), side)
        self._move("coarse", ends[3], rows // 2 * (side // 2) + columns // 2)

    def _move(self, name: str, order: _Order, wanted: _Order) -> None:
        """Keep how tokens in ``order`` come to lie as ``wanted``, under ``name``."""
        place = np.empty(order.max() + 1, np.int64)
        place[order] = np.arange(len(order))
        places = place[wanted]
        if not np.array_equal(places, np.arange(len(order))):
            length = self.together[name] = _run_length(places, len(order))
            self.register_buffer(f"move_{name}", torch.from_numpy(places[::length] // length), persistent=False)

    def _moved(self, name: str, tokens: Tensor, part: int = 0, parts: int = 1) -> Tensor:
        """float[N, C] in its new order, in as long pieces as stay together; of ``parts`` equal ones that ``part``."""
        if name not in self.together:
            return tokens.chunk(parts)[part]
        width = tokens.shape[1]
        pieces = tokens.reshape(-1, self.together[name] * width)
        places = cast(Tensor, getattr(self, f"move_{name}"))
        return pieces.index_select(0, places.chunk(parts)[part]).view(-1, width)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """float32[1, 3, S, S] -> what ``ImageSide`` gives."""
        patches = self.patches(pixel_values).permute(0, 2, 3, 1).flatten(0, 2)
        parts = []
        for number, position in enumerate(self.position.chunk(self.parts)):
            part = self._moved("patches", patches, number, self.parts) + position
            parts.append(self._blocks(part, 0, self.apart, self.parts))
        tokens = torch.cat([part for part, _ in parts])
        stages = [torch.cat(each) for each in zip(*(found for _, found in parts), strict=True)]
        stages += self._blocks(tokens, self.apart, len(self.blocks), 1)[1]
        finest, finer, image, coarse = stages
        image = self._moved("image", image) + self._moved("coarse", coarse) + self.no_memory[0]
        return image, self._moved("finest", finest), self._moved("finer", finer)

    def _blocks(self, tokens: Tensor, first: int, end: int, parts: int) -> tuple[Tensor, list[Tensor]]:
        """Blocks ``first`` to ``end`` for one of ``parts`` equal parts, and what the neck makes of ends of stages."""
        given = []
        for number in range(first, end):
            tokens = self._moved(f"before_{number}", tokens) if number else tokens
            windows = [replace(each, count=each.count // parts) for each in self.windows[number]]
            tokens = _block(self.blocks[number], tokens, windows)
            if number in self.stage_ends:
                given.append(self._to_neck(tokens, self.stage_ends.index(number)))
        return tokens, given

    def _to_neck(self, tokens: Tensor, stage: int) -> Tensor:
        """What the neck makes of each token of a stage's end, and of the first two the decoder's layer after it."""
        lateral = self.laterals[stage]
        return _two_layers(tokens, lateral, self.after[stage]) if stage < 2 else _one_by_one(tokens, lateral)


def _block(block: Any, tokens: Tensor, windows: Sequence[_WindowRun]) -> Tensor:
    """``Sam2MultiScaleBlock`` for tokens float[N, C] in the order of its windows."""
    attention = block.attn
    width, heads = attention.dim_out, attention.num_attention_heads
    normed = block.layer_norm1(tokens)
    pools = bool(block.query_stride)
    weights, biases = attention.qkv.weight.view(3, width, -1), attention.qkv.bias.view(3, width)
    query, key, value = (functional.linear(normed, weights[part], biases[part]) for part in range(3))
    if block.dim != block.dim_out:
        tokens = block.proj(normed)
        tokens = _most_of_four(tokens) if pools else tokens
    query = _most_of_four(query) if pools else query
    found, start = [], 0
    for each in windows:
        end = start + each.count * each.tokens
        parts = [
            query[start // 4 : end // 4] if pools else query[start:end],
            *(_padded(part[start:end], each, bias) for part, bias in ((key, biases[1]), (value, biases[2]))),
        ]
        split = [part.reshape(each.count, -1, heads, width // heads).transpose(1, 2) for part in parts]
        seen = functional.scaled_dot_product_attention(split[0], split[1], split[2])
        found.append(seen.transpose(1, 2).reshape(-1, width))
        start = end
    tokens = tokens + attention.proj(torch.cat(found) if len(found) > 1 else found[0])
    return cast(Tensor, tokens + block.mlp(block.layer_norm2(tokens)))


def _padded(part: Tensor, windows: _WindowRun, bias: Tensor) -> Tensor:
    """Keys or values float[count * tokens, C] of windows and, of each, those of the zeros that pad it: their bias."""
    if not windows.padding:
        return part
    split = part.view(windows.count, windows.tokens, -1)
    return torch.cat((split, bias.expand(windows.count, windows.padding, -1)), dim=1)


def _most_of_four(tokens: Tensor) -> Tensor:
    """float[4 N, C] -> float[N, C]: the largest of every four that follow each other."""
    return tokens.view(-1, 4, tokens.shape[1]).amax(1)


def _one_by_one(tokens: Tensor, convolution: nn.Module) -> Tensor:
    """A convolution of one pixel, of tokens float[N, C]."""
    layer = cast(nn.Conv2d, convolution)
    return functional.linear(tokens, layer.weight.flatten(1), layer.bias)


def _two_layers(tokens: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    """Two convolutions of one pixel as the one product that they are, of tokens float[N, C]."""
    one, other = cast(nn.Conv2d, first), cast(nn.Conv2d, second)
    matrix = other.weight.flatten(1)
    bias = matrix @ cast(Tensor, one.bias) + cast(Tensor, other.bias)
    return functional.linear(tokens, matrix @ one.weight.flatten(1), bias)


def _grid(backbone: Any) -> int:
    """Tokens along a side after the patches were embedded."""
    return int(backbone.config.image_size[0]) // int(backbone.config.patch_stride[0])


def _windows(side: int, size: int) -> list[_WindowRun]:
    """The windows of a square of tokens, those that reach over its border last."""
    whole, rest = divmod(side, size)
    windows = [_WindowRun(whole * whole, size * size)]
    if rest:
        windows += [
            _WindowRun(2 * whole, size * rest, size * (size - rest)),
            _WindowRun(1, rest * rest, size * size - rest * rest),
        ]
    return [each for each in windows if each.count]


def _window_order(side: int, size: int) -> _Order:
    """The order of ``_windows``; 2 x 2 tokens that are pooled together follow each other, at every level."""
    whole, rest = divmod(side, size)
    inner, edge = [size * index for index in range(whole)], size * whole
    windows = [(y, x, size, size) for y in inner for x in inner]
    if rest:
        windows += [(y, edge, size, rest) for y in inner] + [(edge, x, rest, size) for x in inner]
        windows.append((edge, edge, rest, rest))
    parts = []
    for y, x, height, width in windows:
        rows, columns = _in_window(height, width)
        parts.append((y + rows) * side + x + columns)
    return np.concatenate(parts)


def _in_window(height: int, width: int) -> tuple[_Order, _Order]:
    """Rows and columns of a window's tokens in order."""
    if height % 2 or width % 2:
        rows, columns = np.divmod(np.arange(height * width), width)
        return rows, columns
    rows, columns = (2 * half.repeat(4) for half in _in_window(height // 2, width // 2))
    return rows + np.tile([0, 0, 1, 1], len(rows) // 4), columns + np.tile([0, 1, 0, 1], len(rows) // 4)


def _in_fours(side: int, levels: int) -> _Order:
    """Row by row over ``side`` x ``side`` tokens, each of them ``levels`` times 2 x 2 finer ones, as ``as_matrix``."""
    rows, columns = np.divmod(np.arange(side * side), side)
    for _ in range(levels):
        rows, columns = 2 * rows.repeat(4), 2 * columns.repeat(4)
        rows += np.tile([0, 0, 1, 1], len(rows) // 4)
        columns += np.tile([0, 1, 0, 1], len(columns) // 4)
    return np.asarray(rows * (side << levels) + columns)


def _pooled(order: _Order, side: int) -> _Order:
    """The order of what is pooled from every four tokens."""
    rows, columns = np.divmod(order.reshape(-1, 4)[:, 0], side)
    return np.asarray(rows // 2 * (side // 2) + columns // 2)


def _run_length(places: _Order, count: int) -> int:
    """Tokens that stay together when ``places`` of ``count`` are taken."""
    for length in (64, 16, 4):
        if len(places) % length == 0 and count % length == 0:
            runs = places.reshape(-1, length)
            if (runs == runs[:, :1] + np.arange(length)).all() and (runs[:, 0] % length == 0).all():
                return length
    return 1

"""Label Studio's brush run-length code: masks to streams, byte for byte as its SDK writes them, and back.

A stream packs the flattened RGBA image (4 words per pixel, alpha = mask) with thi.ng's rle-pack, big-endian bits
without alignment: 32 bits number of words | 5 bits word size - 1 | 4 x 4 bits count sizes - 1, then tokens of
1 bit (1 run, 0 literal) | 2 bits index into the count sizes | count - 1 | one word (run) or count words (literal).
The SDK writes runs only; the editor's own strokes hold literals of up to 65,536 words. Only alpha is read.

Encoding finds the runs on the bit-packed mask, 64 pixels at a time. Decoding follows the chain of tokens four at a
time: for a window of the stream the length of a token starting at *every* bit is tabulated, and the table is squared
twice by indexing it with itself. A short stream, which most objects of an overhead image have, is over before such a
table is made: its tokens are read one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dataset_tools.errors import MaskError

__all__ = ["decode", "encode", "filled", "mask_runs", "pixel_runs", "run_starts", "value_at"]

Mask: TypeAlias = npt.NDArray[np.bool_]
Rle: TypeAlias = Sequence[int] | bytes
"""A stream as Label Studio stores it: a list of bytes 0..255."""
Places: TypeAlias = npt.NDArray[np.int64]
"""int64[N]: pixels counted row by row."""

_HEADER_BITS = 32 + 5 + 4 * 4
_SIZES = (3, 4, 8, 16)
_LONGEST = 1 << 16
_WINDOW = 1 << 13
"""Bytes of the stream that are tabulated at once."""
_SQUARINGS = 2
_SHORT = 1024
"""Bytes up to which a stream is read token by token."""
_FEW, _SPARSE = 128, 256
"""Runs up to which, and pixels per run from which, runs are filled one by one: else numpy's repeat is faster."""
_LOWEST_BIT = np.array([(value & -value).bit_length() - 1 for value in range(256)], np.int64)


def encode(mask: Mask) -> list[int]:
    """The stream of a mask, byte-identical to ``label_studio_sdk.converter.brush.mask2rle(mask * 255)``.

    Args:
        mask: bool[H, W], H and W at least 1.

    Raises:
        MaskError: the mask is not a two-dimensional bool array with pixels, or has 2^30 pixels and more.
    """
    if mask.ndim != 2 or mask.dtype != bool or not mask.size:
        raise MaskError(f"a mask is a bool[H, W] array with pixels, got {mask.dtype}{list(mask.shape)}")
    if mask.size >= 1 << 30:
        raise MaskError(f"a mask of {mask.shape} pixels does not fit the 32-bit word count of a stream")
    starts = run_starts(mask.reshape(-1))
    counts: npt.NDArray[np.int64] = np.diff(starts, append=mask.size) * 4
    values: npt.NDArray[np.int64] = np.zeros(len(starts), np.int64)
    values[int(not mask.flat[0]) :: 2] = 255
    index = (counts > 8).view(np.int8) + (counts > 16).view(np.int8) + (counts > 256).view(np.int8)
    if counts.max() > _LONGEST:  # runs over 65536 words are cut
        pieces = -(-counts // _LONGEST)
        values = np.repeat(values, pieces)
        last = np.cumsum(pieces) - 1
        rest = counts - (pieces - 1) * _LONGEST
        counts = np.full(len(values), _LONGEST, np.int64)
        counts[last] = rest
        index = np.repeat(index, pieces)  # the SDK writes the short rest of such a run with the longest count, too
    size = np.array(_SIZES).take(index)
    tokens = ((((4 | index) << size) | (counts - 1)) << 8) | values
    header = (mask.size * 4 << 21) | (7 << 16) | (2 << 12) | (3 << 8) | (7 << 4) | 15
    return list(_pack(header, tokens, size + 11))


def run_starts(flat: Mask) -> npt.NDArray[np.int64]:
    """Positions where a run of equal values begins in ``flat`` bool[N], N at least 1, 0 among them: int64[runs]."""
    packed = np.packbits(flat, bitorder="little")
    if len(packed) % 8:
        packed = np.concatenate((packed, np.zeros(-len(packed) % 8, np.uint8)))
    words = packed.view(np.uint64)
    before = words << np.uint64(1)
    before[1:] |= words[:-1] >> np.uint64(63)
    before[0] |= words[0] & np.uint64(1)
    before ^= words
    changed = np.flatnonzero(before)
    if len(changed) * 4 < len(before):  # a smooth mask: look at the bytes of few words only
        octets = before.take(changed).view(np.uint8)
        places = np.flatnonzero(octets != 0)
        rest = octets.take(places)
        places = (changed.take(places >> 3) << 3) + (places & 7)
    else:
        octets = before.view(np.uint8)
        places = np.flatnonzero(octets != 0)
        rest = octets.take(places)
    pieces: list[npt.NDArray[np.int64]] = [np.zeros(1, np.int64)]
    while places.size:  # the lowest bit of every byte, then the next one of those that have more: at most 8 rounds
        pieces.append((places << 3) + _LOWEST_BIT.take(rest))
        rest = rest & (rest - 1)
        more = np.flatnonzero(rest)
        places, rest = places.take(more), rest.take(more)
    starts = np.sort(np.concatenate(pieces), kind="stable")  # sorted runs: a merge
    # The zeros that fill the last word end a run that reaches the end of the mask.
    return starts[: np.searchsorted(starts, len(flat))]


def _pack(header: int, tokens: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> bytes:
    """The header and tokens of 14 to 27 bits one after the other, filled up with 1 to 8 zero bits as the SDK does."""
    ends = np.cumsum(lengths) + _HEADER_BITS
    starts = ends - lengths
    bits = int(ends[-1])
    words = starts >> 5
    # A token reaches from its 32-bit word into the next one at most; the tokens of a word are summed first.
    aligned = tokens.view(np.uint64) << (64 - lengths - (starts & 31)).view(np.uint64)
    first = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(words[1:] != words[:-1]) + 1))
    sums = np.add.reduceat(aligned, first)
    out = np.zeros(bits // 32 + 3, np.uint32)
    places = words.take(first)
    out[places] = (sums >> np.uint64(32)).astype(np.uint32)
    out[places + 1] |= sums.astype(np.uint32)
    out[0] |= header >> 21
    out[1] |= (header & 0x1FFFFF) << 11
    return out.astype(">u4").tobytes()[: bits // 8 + 1]


def decode(rle: Rle, height: int, width: int) -> Mask:
    """The mask bool[height, width] of a stream: True where alpha is not 0.

    Takes any word and count sizes, runs and literals in any mixture.

    Raises:
        MaskError: the stream is for another number of pixels, ends early, or its last token goes beyond the image.
    """
    return filled(*pixel_runs(rle, height, width), height * width).reshape(height, width)


def pixel_runs(rle: Rle, height: int, width: int) -> tuple[Places, Places]:
    """Where the runs of pixels that are on begin, and before which pixel each ends; raises like :func:`decode`.

    They are in order, none is empty, and one may begin where the one before it ends.
    """
    stream = _Stream.open(rle, height * width)
    short = stream.short_runs()
    if short is not None:
        return short
    pieces = list(stream.runs(_WINDOW))
    # Alpha of pixel p is word 4 p + 3, so a run that ends before word e ends before pixel e // 4.
    ends = np.concatenate([ends for ends, _ in pieces]) >> 2
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
    on = np.concatenate([values for _, values in pieces]) != 0
    on &= starts < ends
    return starts[on], ends[on]


def mask_runs(mask: Mask) -> tuple[Places, Places]:
    """The same of ``mask`` bool[H, W], H and W at least 1."""
    flat = np.ascontiguousarray(mask).reshape(-1)
    changes = np.append(run_starts(flat), len(flat))
    bounds = changes[int(not flat[0]) :]
    bounds = bounds[: len(bounds) // 2 * 2]
    return bounds[::2], bounds[1::2]


def filled(starts: Places, ends: Places, size: int) -> Mask:
    """bool[size] that is True in the runs of :func:`pixel_runs`."""
    if len(starts) < _FEW or len(starts) * _SPARSE < size:
        flat = np.zeros(size, bool)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            flat[start:end] = True
        return flat
    lengths = np.diff(np.stack((starts, ends), axis=1).reshape(-1), prepend=0, append=size)
    return np.repeat(np.arange(len(lengths)) & 1 == 1, lengths)


def value_at(rle: Rle, *, x: int, y: int, height: int, width: int) -> bool:
    """Whether pixel (x, y) is on, reading the stream only up to that pixel.

    Args:
        rle: the stream of an image of ``height`` x ``width`` pixels.
        x, y: column and row of the pixel.
        height, width: size of the image in pixels.

    Raises:
        MaskError: the pixel is outside the image, or the stream is malformed before it.
    """
    if not (0 <= x < width and 0 <= y < height):
        raise MaskError(f"pixel ({x}, {y}) is outside the image of {width} x {height} pixels")
    word = 4 * (y * width + x) + 3
    for ends, values in _Stream.open(rle, height * width).runs(_WINDOW >> 5):
        if word < ends[-1]:
            return bool(values[np.searchsorted(ends, word, side="right")])
    raise AssertionError("runs() ends only when every pixel was seen")  # pragma: no cover


@lru_cache(maxsize=8)
def _run_lengths(word_size: int, count_sizes: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Bits of the run token that begins at bit k of a 16-bit window: uint8[65536, 8]; 0 where it is a literal."""
    lengths = np.array([0, 0, 0, 0, *(3 + size + word_size for size in count_sizes)], np.uint8)
    windows = np.arange(1 << 16)[:, None]
    return np.asarray(lengths[(windows >> (13 - np.arange(8))) & 7])


@dataclass(frozen=True)
class _Stream:
    """A stream after its header: the bytes, the number of words, the size of a word, the sizes of counts (in bits)."""

    data: bytearray
    words: int
    word_size: int
    count_sizes: tuple[int, ...]

    @classmethod
    def open(cls, rle: Rle, pixels: int) -> _Stream:
        if isinstance(rle, int):  # bytearray would make so many zeros of it
            raise MaskError(f"a brush stream is a list of integers 0..255, not the number {rle}"[:200])
        try:
            raw = bytearray(rle)
        except (TypeError, ValueError, OverflowError) as error:
            raise MaskError(f"a brush stream is a list of integers 0..255: {error}") from error
        if len(raw) * 8 < _HEADER_BITS:
            raise MaskError(f"a brush stream has at least 7 bytes, got {len(raw)}")
        header = int.from_bytes(raw[:7], "big") >> 3
        words = header >> 21
        if words != 4 * pixels:
            raise MaskError(
                f"the brush stream holds {words} words, an image of {pixels} pixels has {4 * pixels} (RGBA); "
                "check original_width and original_height"
            )
        sizes = tuple((header >> shift & 15) + 1 for shift in (12, 8, 4, 0))
        # 16 zero bytes let every field be read without looking at the end first.
        raw += bytes(16)
        return cls(raw, words, (header >> 16 & 31) + 1, sizes)

    @property
    def bits(self) -> int:
        """Length of the stream in bits."""
        return (len(self.data) - 16) * 8

    def short_runs(self) -> tuple[Places, Places] | None:
        """:func:`pixel_runs` of a short stream of runs alone; None where it is long, holds a literal, or is damaged."""
        longest = 3 + max(self.count_sizes) + self.word_size
        if len(self.data) > _SHORT or longest > 56:  # a token is read out of the 64 bits from its first byte on
            return None
        wide = self._wide(0, len(self.data) - 16).tolist()
        starts, ends = [], []
        at, done, last, size, top = _HEADER_BITS, 0, 0, self.word_size, (1 << self.word_size) - 1
        while done < self.words and at < self.bits:
            bits, place = wide[at >> 3], 61 - (at & 7)
            head = bits >> place & 7
            if head < 4:
                return None
            count = self.count_sizes[head & 3]
            token = bits >> (place - count - size)
            done += (token >> size & (1 << count) - 1) + 1
            at += 3 + count + size
            end = done >> 2  # alpha of pixel p is word 4 p + 3
            if token & top and end > last:
                starts.append(last)
                ends.append(end)
            last = end
        if done != self.words or at > self.bits:
            return None
        return np.array(starts, np.int64), np.array(ends, np.int64)

    def runs(self, window: int) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]]:
        """(ends int64[N], values uint64[N]) of successive runs: each ends before word ``ends[i]``; until all are seen.

        A literal of n words comes as n runs of one word. ``window``: bytes to tabulate at first, then more and more.
        """
        at, done = _HEADER_BITS, 0
        literals = False
        while done < self.words:
            if at >= self.bits:
                raise MaskError(f"the brush stream ends after {done} of {self.words} words; it is truncated")
            base = at >> 3
            wide = self._wide(base, min(window, len(self.data) - 16 - base))
            tokens = self._tokens(wide, at - base * 8, literals)
            if not tokens.size:  # the first literal: from here on tokens of all kinds are tabulated
                literals = True
                continue
            ends, values, used = self._expand(wide, tokens, base, done)
            at = base * 8 + used
            if at > self.bits:
                raise MaskError(f"the brush stream ends inside a token after word {done}; it is truncated")
            yield ends, values
            done = int(ends[-1])
            window = min(window * 8, _WINDOW)
        if done > self.words:
            raise MaskError(f"the brush stream's last token goes {done - self.words} words beyond the image")

    def _wide(self, base: int, size: int) -> npt.NDArray[np.uint64]:
        """The 64 bits that begin at each of ``size`` bytes from byte ``base``: uint64[size]."""
        overlapping: npt.NDArray[np.uint64] = np.ndarray((size,), ">u8", self.data, base, (1,))
        return overlapping.astype(np.uint64)

    def _tokens(self, wide: npt.NDArray[np.uint64], start: int, literals: bool) -> npt.NDArray[np.int64]:
        """Bits of the window at which tokens begin, from ``start`` on; without ``literals`` only up to the first."""
        size = len(wide) * 8
        table = _run_lengths(self.word_size, self.count_sizes).take(wide >> np.uint64(48), axis=0).reshape(-1)
        jump: npt.NDArray[np.int64] = table.astype(np.int64)
        if literals:
            self._add_literals(wide, jump)
        jump += np.arange(size)
        np.minimum(jump, size, out=jump)
        jumps = [np.append(jump, size)]
        for _ in range(_SQUARINGS):
            jumps.append(jumps[-1].take(jumps[-1]))
        far, position, anchors = jumps[-1].data, start, []
        while position < size:
            anchors.append(position)
            position = far[position]
            if position == anchors[-1]:  # a literal, which the table does not pass
                break
        tokens: npt.NDArray[np.int64] = np.array(anchors, np.int64)
        for nearer in jumps[-2::-1]:
            tokens = np.stack((tokens, nearer.take(tokens)), axis=1).reshape(-1)
        tokens = tokens[tokens < size]
        if not literals:
            at_literal = np.flatnonzero(table.take(tokens) == 0)
            tokens = tokens[: at_literal[0]] if at_literal.size else tokens
        return tokens

    def _add_literals(self, wide: npt.NDArray[np.uint64], jump: npt.NDArray[np.int64]) -> None:
        """Put the lengths of the literals that may begin in the window into ``jump`` where it is 0."""
        here = np.flatnonzero(jump == 0)
        _, count, payload = self._read(wide, here)
        jump[here] = payload - here + count * self.word_size

    def _read(
        self, wide: npt.NDArray[np.uint64], tokens: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Of each token: whether it is a run, its count, and the bit of the window where its values begin."""
        bits = wide.take(tokens >> 3) << (tokens & 7).astype(np.uint64)
        sizes = np.array(self.count_sizes).take((bits >> np.uint64(61) & np.uint64(3)).astype(np.int64))
        count = (bits << np.uint64(3)) >> (64 - sizes).astype(np.uint64)
        return bits >= np.uint64(1 << 63), count.astype(np.int64) + 1, tokens + 3 + sizes

    def _values(self, base: int, bits: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """The words that begin at ``bits`` counted from byte ``base``."""
        first = int(bits[0]) >> 3
        wide = self._wide(base + first, (int(bits[-1]) >> 3) - first + 1)
        return (wide.take((bits >> 3) - first) << (bits & 7).astype(np.uint64)) >> np.uint64(64 - self.word_size)

    def _expand(
        self, wide: npt.NDArray[np.uint64], tokens: npt.NDArray[np.int64], base: int, done: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64], int]:
        """Ends and values of the runs of ``tokens`` until all words are seen, and the bit after the last one used."""
        run, counts, payload = self._read(wide, tokens)
        ends = np.cumsum(counts) + done
        if ends[-1] >= self.words:
            enough = int(np.searchsorted(ends, self.words)) + 1
            run, counts, payload, ends = run[:enough], counts[:enough], payload[:enough], ends[:enough]
        used = int(payload[-1] + (1 if run[-1] else counts[-1]) * self.word_size)
        if base * 8 + used > self.bits:
            return ends, ends.view(np.uint64), used
        if run.all():
            return ends, self._values(base, payload), used
        pieces = np.where(run, 1, counts)
        place = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        values = self._values(base, np.repeat(payload, pieces) + place * self.word_size)
        ends = np.cumsum(np.where(np.repeat(run, pieces), np.repeat(counts, pieces), 1)) + done
        return ends, values, used

"""Brush RLE: the SDK's bytes exactly, every stream the editor can make, and clear words for damaged ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.converter import brush

from dataset_tools import brush_rle
from dataset_tools.errors import MaskError

Mask = npt.NDArray[np.bool_]


def mask_of(height: int, width: int, seed: int, density: float, smooth: int) -> Mask:
    noise = np.random.default_rng(seed).random((-(-height // smooth), -(-width // smooth)))
    return np.kron(noise < density, np.ones((smooth, smooth), bool))[:height, :width].astype(bool)


masks = st.builds(
    mask_of,
    st.integers(1, 70),
    st.integers(1, 150),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]),
    st.sampled_from([1, 2, 7, 40]),
)


@given(masks)
@settings(max_examples=150)
def test_encode_is_the_sdks_and_decode_is_its_inverse(mask: Mask) -> None:
    code = brush_rle.encode(mask)
    assert code == brush.mask2rle(mask.astype(np.uint8) * 255)
    assert np.array_equal(brush_rle.decode(code, *mask.shape), mask)


def test_runs_longer_than_65536_words_and_padding_byte() -> None:
    lengths = set()
    for width in range(300, 316):
        mask = np.zeros((400, width), bool)
        mask[100:390] = True
        code = brush_rle.encode(mask)
        assert code == brush.mask2rle(mask.astype(np.uint8) * 255)
        assert np.array_equal(brush_rle.decode(code, *mask.shape), mask)
        lengths.add(code[-1] == 0)
    for pixels in (16385, 16386, 16400, 32769):  # a run's rest of at most 256 words after whole pieces of 65,536
        for mask in (np.zeros((1, pixels), bool), np.ones((1, pixels), bool)):
            assert brush_rle.encode(mask) == brush.mask2rle(mask.astype(np.uint8) * 255)
    assert True in lengths  # an aligned stream gains a whole zero byte


def pack(
    tokens: Sequence[tuple[bool, int, Sequence[int]]], words: int, word_size: int, sizes: Sequence[int]
) -> list[int]:
    """thi.ng's rle-pack written down plainly: tokens are (is run, size index, values; a run repeats its value)."""
    bits = f"{words:032b}{word_size - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    for run, index, values in tokens:
        bits += f"{int(run)}{index:02b}{len(values) - 1:0{sizes[index]}b}"
        bits += "".join(f"{value:0{word_size}b}" for value in (values[:1] if run else values))
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[int], Mask]:
    word_size = draw(st.sampled_from([1, 3, 8, 8, 8, 13, 32]))
    sizes = draw(st.sampled_from([(3, 4, 8, 16), (3, 4, 8, 16), (1, 2, 3, 4), (16, 16, 16, 16), (5, 5, 7, 11)]))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 40))
    words: list[int] = []
    tokens: list[tuple[bool, int, Sequence[int]]] = []
    while len(words) < 4 * height * width:
        index = draw(st.integers(0, 3))
        count = draw(st.integers(1, min(1 << sizes[index], 4 * height * width - len(words))))
        run = draw(st.booleans())
        top = (1 << word_size) - 1
        values = (
            [draw(st.sampled_from([0, top]))] * count
            if run
            else draw(st.lists(st.sampled_from([0, 1, top]), min_size=count, max_size=count))
        )
        tokens.append((run, index, values))
        words += values
    alpha = np.array(words, np.uint64).reshape(height, width, 4)[:, :, 3]
    return pack(tokens, len(words), word_size, sizes), alpha != 0


@given(streams())
@settings(max_examples=200)
def test_decode_takes_literals_and_any_sizes(case: tuple[list[int], Mask]) -> None:
    code, mask = case
    assert np.array_equal(brush_rle.decode(code, *mask.shape), mask)
    for y, x in [(0, 0), (mask.shape[0] - 1, mask.shape[1] - 1), (mask.shape[0] // 2, mask.shape[1] // 3)]:
        assert brush_rle.value_at(code, x=x, y=y, height=mask.shape[0], width=mask.shape[1]) == mask[y, x]


def test_literal_of_65536_words_between_runs() -> None:
    rng = np.random.default_rng(0)
    literal = rng.integers(0, 256, 65536).tolist()
    tokens = [
        (True, 3, [0] * 1000),
        (False, 3, literal),
        (True, 3, [255] * 65536),
        (False, 0, [0, 0, 0, 7]),
        (True, 2, [0] * 256),
    ]
    words = [value for _, _, values in tokens for value in values]
    words += [0] * (-len(words) % 400)
    tokens += [(True, 3, [0] * (len(words) - sum(len(values) for _, _, values in tokens)))]
    height = len(words) // 400
    code = pack([token for token in tokens if token[2]], len(words), 8, (3, 4, 8, 16))
    expected = np.array(words).reshape(height, 100, 4)[:, :, 3] != 0
    assert np.array_equal(brush_rle.decode(code, height, 100), expected)
    assert np.array_equal(brush.decode_rle(code).reshape(height, 100, 4)[:, :, 3] != 0, expected)


@given(masks, st.data())
@settings(max_examples=60)
def test_value_at_is_the_decoded_pixel(mask: Mask, data: st.DataObject) -> None:
    height, width = mask.shape
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    assert brush_rle.value_at(brush_rle.encode(mask), x=x, y=y, height=height, width=width) == mask[y, x]


def test_value_at_reads_no_further_than_the_pixel() -> None:
    mask = mask_of(600, 800, 1, 0.5, 1)
    code = brush_rle.encode(mask)
    head = code[: len(code) // 2]
    assert brush_rle.value_at(head, x=30, y=10, height=600, width=800) == mask[10, 30]
    with pytest.raises(MaskError, match="truncated"):
        brush_rle.value_at(head, x=30, y=590, height=600, width=800)


GOOD = brush_rle.encode(mask_of(20, 30, 3, 0.4, 2))


@pytest.mark.parametrize(
    ("code", "height", "width", "message"),
    [
        ([], 20, 30, "at least 7 bytes, got 0"),
        (GOOD, 30, 30, "2400 words, an image of 900 pixels has 3600"),
        (GOOD[:20], 20, 30, "truncated"),
        ([*GOOD[:7], 256], 20, 30, "integers 0..255"),
        ([*GOOD[:7], "a"], 20, 30, "integers 0..255"),
        (pack([(True, 3, [255] * 17)], 16, 8, (3, 4, 8, 16)), 2, 2, "1 words beyond"),
        (pack([(False, 3, [255] * 16)], 16, 8, (3, 4, 8, 16))[:15], 2, 2, "inside a token"),
    ],
)
def test_damaged_streams_are_explained(code: Any, height: int, width: int, message: str) -> None:
    with pytest.raises(MaskError) as caught:
        brush_rle.decode(code, height, width)
    assert message in str(caught.value)


@given(st.lists(st.integers(0, 255), max_size=60))
@settings(max_examples=100)
def test_garbage_is_refused_or_decoded_but_never_crashes(tail: list[int]) -> None:
    try:
        mask = brush_rle.decode([*GOOD[:7], *tail], 20, 30)
    except MaskError:
        return
    assert mask.shape == (20, 30)


@pytest.mark.parametrize("bad", [np.zeros((2, 2), np.uint8), np.zeros(4, bool), np.zeros((0, 5), bool)])
def test_encode_says_what_a_mask_is(bad: npt.NDArray[Any]) -> None:
    with pytest.raises(MaskError, match=r"bool\[H, W\]"):
        brush_rle.encode(bad)


def rles(value: object) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    if isinstance(value, dict):
        if isinstance(value.get("value"), dict) and isinstance(value["value"].get("rle"), list):
            yield value, value["value"]
        for item in value.values():
            yield from rles(item)
    elif isinstance(value, list):
        for item in value:
            yield from rles(item)


def test_streams_recorded_from_the_editor(shared_data: Path) -> None:
    seen = 0
    for file in sorted((shared_data.parent / "label_studio" / "captures").glob("*.json")):
        for region, value in rles(json.loads(file.read_text())):
            height, width = region["original_height"], region["original_width"]
            expected = brush.decode_rle(value["rle"]).reshape(height, width, 4)[:, :, 3] > 0
            assert np.array_equal(brush_rle.decode(value["rle"], height, width), expected)
            seen += 1
    assert seen > 0


@pytest.mark.parametrize("code", [6_000_000_000, [10**30], [2**63], [-1], [1.5], ["x"], None, {"a": 1}, True])
def test_what_is_no_list_of_bytes_is_refused_before_it_takes_memory(code: Any) -> None:
    with pytest.raises(MaskError):
        brush_rle.decode(code, 4, 4)

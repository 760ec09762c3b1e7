from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from backend.pipeline.grounding.lqvg.inference import Tokenizer
from backend.pipeline.types import Box
from backend.training.lqvg.data import GroundingBatches, GroundingExample, collate, grounding_examples, resize
from dataset_tools import synthetic
from dataset_tools.errors import ConfigError, DatasetError, ImageError
from dataset_tools.formats import refer
from tests.dataset_tools.formats.test_dior_rsvg import an_object, write_xml

TOKENS = Tokenizer(lambda text: [0, *(5 + len(word) for word in text.split()), 2], vocabulary=50)


def test_reads_expressions_with_one_target_from_a_coco_jsonl_folder(tmp_path: Path) -> None:
    scenes = [synthetic.draw_scene(seed, width=240, height=200) for seed in range(4)]
    folder = synthetic.write(tmp_path, scenes, split=(0.5, 0.5, 0.0))
    from dataset_tools.formats import coco_jsonl

    data = coco_jsonl.read(folder, "train")
    single = [e for e in data.expressions if len(e.ann_ids) == 1]
    examples = grounding_examples(folder, "train")
    assert [e.expression for e in examples] == [e.expression for e in single]
    assert [e.box for e in examples] == [data.annotation(e.ann_ids[0]).box for e in single]
    assert 0 < len(examples) < len(data.expressions)
    with pytest.raises(DatasetError, match="no split 'nightly'"):
        grounding_examples(folder, "nightly")


def test_reads_a_dior_rsvg_folder(tmp_path: Path) -> None:
    write_xml(tmp_path, "00001", an_object("A ship"), an_object("Another ship"))
    (tmp_path / "train.txt").write_text("1\n")
    assert grounding_examples(tmp_path, "train") == [
        GroundingExample(tmp_path / "JPEGImages" / "00001.jpg", "Another ship", Box(10, 20, 60, 90))
    ]


def test_reads_a_refer_root(tmp_path: Path) -> None:
    import json

    from dataset_tools.masks import to_coco_rle

    mask = np.zeros((40, 60), dtype=bool)
    mask[10:20, 5:25] = True
    (tmp_path / "rrsisd").mkdir()
    refs = [
        {
            "ref_id": number, "ann_id": number, "image_id": number, "category_id": 14, "split": split,
            "file_name": "02934.jpg", "sent_ids": [number],
            "sentences": [{"sent_id": number, "sent": text, "raw": text, "tokens": text.split()}],
        }
        for number, (split, text) in enumerate([("train", "A ship"), ("val", "The ship")])
    ]  # fmt: skip
    (tmp_path / "rrsisd" / "refs(unc).p").write_bytes(refer.dump_refs(refs))
    content = {
        "images": [{"id": i, "file_name": "02934.jpg", "height": 40, "width": 60} for i in range(2)],
        "annotations": [
            {"id": i, "image_id": i, "categories_id": 14, "segmentation": [to_coco_rle(mask)]} for i in range(2)
        ],
        "categories": [{"id": 14, "name": "ship"}],
    }
    (tmp_path / "rrsisd" / "instances.json").write_text(json.dumps(content))
    (example,) = grounding_examples(tmp_path, "val")
    assert example == GroundingExample(tmp_path / refer.IMAGES / "02934.jpg", "The ship", Box(5, 10, 25, 20))


def test_other_layouts_and_empty_splits_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"is of no known format; .*annotations\.json \(coco_jsonl\).*\(dior_rsvg\)"):
        grounding_examples(tmp_path, "train")
    write_xml(tmp_path, "00001", an_object())
    (tmp_path / "val.txt").write_text("")
    with pytest.raises(DatasetError, match=r"split 'val' of .* holds no expression with exactly one target"):
        grounding_examples(tmp_path, "val")


@pytest.mark.parametrize(
    ("size", "side", "longest", "expected"),
    [
        ((100, 200), 50, 800, (50, 100)),
        ((200, 100), 50, 800, (100, 50)),
        ((100, 400), 100, 200, (50, 200)),  # the limit of the longer side wins
        ((300, 301), 300, 800, (300, 301)),  # untouched
    ],
)
def test_resize_keeps_the_shape(size: tuple[int, int], side: int, longest: int, expected: tuple[int, int]) -> None:
    assert resize(np.zeros((*size, 3), dtype=np.uint8), side, longest).shape == (*expected, 3)


def test_a_batch_pads_after_normalisation_to_a_multiple_of_32() -> None:
    images = [np.full((40, 70, 3), 255, dtype=np.uint8), np.full((33, 20, 3), 255, dtype=np.uint8)]
    batch = collate(images, [[0, 7, 2], [0, 7, 8, 9, 2]], [(0.5, 0.5, 0.1, 0.2), (0.25, 0.75, 0.5, 0.5)])
    assert batch.images.shape == (2, 3, 64, 96)
    assert (~batch.image_padding).sum(dim=(1, 2)).tolist() == [40 * 70, 33 * 20]
    assert bool((batch.images.permute(0, 2, 3, 1)[batch.image_padding] == 0).all())
    assert bool((batch.images.permute(0, 2, 3, 1)[~batch.image_padding] > 2).all())
    assert batch.token_ids.tolist() == [[0, 7, 2, 1, 1], [0, 7, 8, 9, 2]]
    assert batch.text_attention.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]


def write_examples(folder: Path, count: int) -> list[GroundingExample]:
    examples = []
    for number in range(count):
        path = folder / f"{number}.png"
        PilImage.fromarray(np.full((32, 64, 3), 10 * number, dtype=np.uint8)).save(path)
        examples.append(GroundingExample(path, "ship " * (number + 1), Box(16, 8, 48, 16)))
    return examples


def batches_of(examples: list[GroundingExample], process: int = 0, processes: int = 1) -> GroundingBatches:
    return GroundingBatches(
        examples,
        TOKENS,
        seed=3,
        batch_size=2,
        sides=[32, 64],
        longest=128,
        process=process,
        processes=processes,
    )


def test_every_epoch_holds_every_example_and_processes_share_it(tmp_path: Path) -> None:
    examples = write_examples(tmp_path, 7)
    alone = batches_of(examples)
    assert alone.steps_per_epoch == 4
    lengths = [int(n) - 2 for step in range(4) for n in alone[step].text_attention.sum(1)]
    assert sorted(set(lengths)) == [1, 2, 3, 4, 5, 6, 7]  # an expression's length names its example
    assert len(lengths) == 8
    second = [int(n) - 2 for step in range(4, 8) for n in alone[step].text_attention.sum(1)]
    assert sorted(set(second)) == sorted(set(lengths))
    assert second != lengths

    pair = [batches_of(examples, process, 2) for process in (0, 1)]
    assert pair[0].steps_per_epoch == 2
    shared = [int(n) - 2 for step in range(2) for part in pair for n in part[step].text_attention.sum(1)]
    assert shared == lengths


def test_a_step_depends_on_nothing_before_it(tmp_path: Path) -> None:
    examples = write_examples(tmp_path, 5)
    straight = batches_of(examples)
    for step in range(3):
        _ = straight[step]
    for one, other in zip(straight[3], batches_of(examples)[3], strict=True):
        assert torch.equal(one, other)
    sizes = {tuple(straight[step].images.shape[2:]) for step in range(8)}
    assert len(sizes) > 1  # the side is drawn anew
    assert torch.equal(straight[0].targets[0], torch.tensor([0.5, 0.375, 0.5, 0.25]))


def test_unusable_sides_and_images_are_named(tmp_path: Path) -> None:
    examples = write_examples(tmp_path, 1)
    with pytest.raises(ConfigError, match=r"at most longest=100, got \[480\]"):
        GroundingBatches(examples, TOKENS, seed=0, batch_size=1, sides=[480], longest=100)
    examples[0].image.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"0\.png: not an image"):
        _ = batches_of(examples)[0]

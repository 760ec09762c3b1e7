from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from backend.pipeline.segmentation.compact_sam import load_compact_segmenter
from backend.pipeline.segmentation.embedding_store import EmbeddingStore
from backend.pipeline.segmentation.sam import SamSegmenter
from backend.pipeline.segmentation.windows import window_for
from backend.pipeline.types import Box, Image, Prompts
from backend.training.decoder.samples import Features, decoder_samples, held_out_split, in_memory, stored
from backend.training.decoder.training import DecoderOptions, tune_decoder
from backend.training.run import TrainingRun
from backend.training.segmenter.prompts import BatchPrompts, decode_batch
from dataset_tools.errors import ConfigError, DatasetError, ImageError
from dataset_tools.labelled import LabelledImage
from tests.learning.labelled import labelled_rectangles
from tests.pipeline.segmentation.small_sams import small_compact_sam, small_vit_sam

SHIPPED = Path(__file__).resolve().parents[3] / "backend" / "weights" / "compact_segmenter" / "model.safetensors"
QUICK = DecoderOptions(steps=4, batch=4, validate_every=2, warmup=1, autocast=False)


def compact() -> SamSegmenter:
    return SamSegmenter(small_compact_sam(), window_rule=window_for)


def vit() -> SamSegmenter:
    return SamSegmenter(small_vit_sam())


@pytest.fixture
def images(tmp_path: Path) -> list[LabelledImage]:
    return labelled_rectangles(tmp_path / "images", 6)


def test_a_decoder_that_forgot_its_masks_outlines_held_out_objects(images: list[LabelledImage]) -> None:
    segmenter = load_compact_segmenter(SHIPPED)
    last = segmenter.sam.mask_decoder.output_hypernetworks_mlps[0].layers[-1]
    last.weight.zero_()
    last.bias.zero_()
    training, validation = (decoder_samples(segmenter, part, views=1) for part in (images[:2], images[2:4]))
    options = replace(
        QUICK, steps=20, validate_every=10, learning_rate=0.002, ema_decay=0.7, prompts={"box": 0.5, "click": 0.5}
    )
    told: list[float] = []
    tuned = tune_decoder(segmenter, training, validation, options, progress=lambda share, _: told.append(share))
    assert tuned.before["score"] == 0
    assert tuned.after["score"] > 0.9
    assert told == [0.5, 1.0, 1.0]


def test_the_loss_of_a_whole_image_model_falls(images: list[LabelledImage], tmp_path: Path) -> None:
    segmenter = vit()
    options = replace(QUICK, steps=40, batch=8, validate_every=20, learning_rate=0.003)
    run = TrainingRun(tmp_path / "run", options.plain(), criterion="score")
    tune_decoder(segmenter, decoder_samples(segmenter, images, views=1), (), options, run=run)
    first, second = (line["loss"] for line in run.entries())
    assert second < 0.9 * first


def test_only_the_decoder_changes_and_the_given_model_stays(images: list[LabelledImage]) -> None:
    segmenter = vit()
    before = {name: value.clone() for name, value in segmenter.sam.state_dict().items()}
    tuned = tune_decoder(segmenter, decoder_samples(segmenter, images), (), QUICK)
    assert all(torch.equal(value, before[name]) for name, value in segmenter.sam.state_dict().items())
    changed = {name for name, value in tuned.tensors.items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("mask_decoder.") for name in changed)
    missing, unexpected = segmenter.sam.load_state_dict(tuned.tensors, strict=False)
    assert not unexpected
    assert all(name.startswith("image_encoder.") for name in missing)


def test_the_weights_before_keep_their_share_of_the_result(images: list[LabelledImage]) -> None:
    segmenter = compact()
    before = {name: value.clone() for name, value in segmenter.sam.state_dict().items()}
    samples = decoder_samples(segmenter, images[:3], views=0)
    learnt = tune_decoder(segmenter, samples, (), QUICK).tensors
    mixed = tune_decoder(segmenter, samples, (), replace(QUICK, average_with_init=0.75)).tensors
    assert any(not torch.equal(learnt[name], before[name]) for name in learnt)
    for name, value in mixed.items():
        assert torch.allclose(value, 0.25 * learnt[name] + 0.75 * before[name], atol=1e-6)


def test_a_gain_that_is_too_small_is_none(images: list[LabelledImage], tmp_path: Path) -> None:
    segmenter = load_compact_segmenter(SHIPPED)
    before = {name: value.clone() for name, value in segmenter.sam.state_dict().items()}
    training, validation = (decoder_samples(segmenter, part, views=0) for part in (images[:2], images[2:4]))
    options = replace(QUICK, least_gain=1.0)
    run = TrainingRun(tmp_path / "run", options.plain(), criterion="score")
    tuned = tune_decoder(segmenter, training, validation, options, run=run)
    assert tuned.step == 0
    assert tuned.after["score"] == tuned.before["score"]
    assert all(torch.equal(value, before[name]) for name, value in tuned.tensors.items())
    assert run.best_value == tuned.before["score"]


def test_mask_prompts_are_trained_when_asked(images: list[LabelledImage]) -> None:
    segmenter = compact()
    options = replace(QUICK, mask_prompts=True, prompts={"region": 1.0})
    tuned = tune_decoder(segmenter, decoder_samples(segmenter, images), (), options)
    name = "prompt_encoder.mask_downscaling.0.weight"
    assert not torch.equal(tuned.tensors[name], segmenter.sam.state_dict()[name])


def test_a_step_that_does_harm_is_not_kept(images: list[LabelledImage]) -> None:
    segmenter = load_compact_segmenter(SHIPPED)
    samples = decoder_samples(segmenter, images[:3], views=0)
    harm = replace(QUICK, learning_rate=3.0, clip=1e9, ema_decay=0.0)
    tuned = tune_decoder(segmenter, samples, None, harm)
    assert tuned.step == 0
    assert tuned.after == tuned.before
    assert torch.equal(tuned.tensors["mask_decoder.iou_token.weight"], segmenter.sam.mask_decoder.iou_token.weight)


def test_a_resumed_run_ends_as_an_uninterrupted_one(images: list[LabelledImage], tmp_path: Path) -> None:
    segmenter = compact()
    samples = decoder_samples(segmenter, images)
    whole = tune_decoder(segmenter, samples, None, QUICK)

    def interrupt(share: float, _: str) -> None:
        raise KeyboardInterrupt

    config = QUICK.plain()
    run = TrainingRun(tmp_path / "run", config, criterion="score")
    with pytest.raises(KeyboardInterrupt):
        tune_decoder(segmenter, samples, None, QUICK, progress=interrupt, run=run)
    run = TrainingRun(tmp_path / "run", config, criterion="score", resume=True)
    resumed = tune_decoder(segmenter, samples, None, QUICK, run=run)
    assert all(torch.equal(value, resumed.tensors[name]) for name, value in whole.tensors.items())
    assert resumed.before == whole.before
    assert resumed.after == whole.after
    assert [line["step"] for line in run.entries() if line["kind"] == "validation"] == [0, 2, 4]


def test_a_time_budget_ends_the_training(images: list[LabelledImage]) -> None:
    segmenter = compact()
    options = replace(QUICK, steps=100_000, minutes=0.01)
    tuned = tune_decoder(segmenter, decoder_samples(segmenter, images), (), options)
    assert 0 < tuned.step < 100_000


def test_predicted_iou_is_calibrated_on_held_out_images(tmp_path: Path) -> None:
    segmenter = compact()
    images = labelled_rectangles(tmp_path / "many", 26)
    training, validation = (decoder_samples(segmenter, part, views=0) for part in (images[:4], images[4:]))
    last = segmenter.sam.mask_decoder.iou_prediction_head.layers[-1]
    last.bias.data.add_(3.0)
    tuned = tune_decoder(segmenter, training, validation, replace(QUICK, learning_rate=1e-9))
    assert tuned.before["iou_error"] > 1
    assert tuned.after["iou_error"] < 0.2


def test_windows_are_embedded_as_in_use(images: list[LabelledImage]) -> None:
    segmenter = compact()
    image = images[0]
    exact, *others = decoder_samples(segmenter, [image], views=4)
    assert [sample.view for sample in others] == ["jittered", "augmented", "augmented", "augmented", "free"]
    box = image.objects[0].box
    pixels = cv2.cvtColor(cv2.imread(str(image.path)), cv2.COLOR_BGR2RGB).astype(np.uint8)
    embedding = segmenter.embed(pixels, segmenter.window_for(box, (image.height, image.width)))
    difference = np.abs(exact.features().astype(float) - embedding.features.astype(float))
    assert difference.mean() < 0.05 * np.abs(embedding.features).mean()
    assert exact.mask.sum() == pytest.approx(exact.full_area, rel=0.1)


def test_whole_images_share_one_embedding_and_turn_with_their_objects(images: list[LabelledImage]) -> None:
    segmenter = vit()
    seen: list[Image] = []
    embed = in_memory(segmenter)

    def counting(image: Image) -> Features:
        seen.append(image)
        return embed(image)

    samples = decoder_samples(segmenter, images[1:2], views=7, embed=counting)
    assert len({(image.shape, image.tobytes()) for image in seen}) == 8
    assert [sample.view for sample in samples[:2]] == ["exact", "jittered"]
    assert samples[0].features is samples[1].features
    for image, sample in zip(seen, [samples[0], *samples[2:]], strict=True):
        scale = 64 / 120
        rows, columns = np.nonzero(image.mean(axis=2) > 150)
        assert sample.mask.sum() == pytest.approx(len(rows) * scale**2, rel=0.15)
        found = np.argwhere(sample.mask).mean(axis=0)
        assert found == pytest.approx([rows.mean() * scale, columns.mean() * scale], abs=1)


def test_stored_features_are_those_of_the_segmenter(images: list[LabelledImage], tmp_path: Path) -> None:
    segmenter = vit()
    store = EmbeddingStore(tmp_path / "store", 10**9, 0)
    kept = decoder_samples(segmenter, images[:2], embed=stored(segmenter, store))
    plain = decoder_samples(segmenter, images[:2])
    for one, other in zip(kept, plain, strict=True):
        assert np.array_equal(one.features(), other.features())
    assert store.bytes_on_disk > 0
    for path in store.folder.rglob("*.embedding"):
        path.unlink()
    with pytest.raises(ImageError, match="removed"):
        kept[0].features()


def test_a_part_of_the_objects_has_the_views_of_all(tmp_path: Path) -> None:
    segmenter = compact()
    first, second = labelled_rectangles(tmp_path / "images", 2)
    both = replace(first, objects=(*second.objects, *first.objects))
    alone = decoder_samples(segmenter, [first])
    among = decoder_samples(segmenter, [second, both])[-len(alone) :]
    for one, other in zip(alone, among, strict=True):
        assert np.array_equal(one.features(), other.features())
        assert np.array_equal(one.box, other.box)


def test_objects_of_one_image_are_held_out_together(images: list[LabelledImage]) -> None:
    samples = decoder_samples(vit(), images)
    training, validation = held_out_split(samples, 0.3, 0)
    assert {s.image for s in training}.isdisjoint({s.image for s in validation})
    assert len({s.image for s in validation}) == 2
    assert held_out_split(samples[:2], 0.5, 0)[1] == []
    assert held_out_split(samples, 0.0, 0)[1] == []


def test_lone_clicks_choose_among_masks_as_the_adapter_does() -> None:
    segmenter = SamSegmenter(small_vit_sam(), embedding_dtype="float32")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    points = rng.uniform(0, 64, (3, 1, 2)).astype(np.float32)
    labels = np.ones((3, 1), np.int64)
    embeddings = [segmenter.embed(image) for image in images]
    features = torch.from_numpy(np.stack([embedding.features for embedding in embeddings]))
    prompts = BatchPrompts(torch.from_numpy(points), torch.from_numpy(labels))
    with torch.no_grad():
        low, iou = decode_batch(segmenter.sam, features, prompts)
        fitting, _ = decode_batch(segmenter.sam, features, prompts, torch.zeros(3, 64, 64))
    for index, embedding in enumerate(embeddings):
        alone = segmenter.decode(embedding, Prompts(points[index], labels[index]))
        assert np.allclose(low[index].numpy(), alone.low_res_logits, atol=1e-4)
        assert float(iou[index].clamp(0, 1)) == pytest.approx(alone.predicted_iou, abs=1e-5)
    assert fitting.shape == low.shape


def test_what_cannot_work_is_explained(images: list[LabelledImage]) -> None:
    with pytest.raises(ConfigError, match="scribble"):
        DecoderOptions(prompts={"scribble": 1.0})
    with pytest.raises(ConfigError, match="add up to 1"):
        DecoderOptions(rounds=(0.5, 0.2))
    with pytest.raises(ConfigError, match="steps"):
        DecoderOptions(steps=0)
    with pytest.raises(ConfigError, match=r"average_with_init must lie in \[0, 1\), got 1.0"):
        DecoderOptions(average_with_init=1.0)
    with pytest.raises(DatasetError, match="no object"):
        tune_decoder(compact(), [])
    with pytest.raises(ImageError, match=r"nowhere\.png: No such file"):
        decoder_samples(compact(), [replace(images[0], path=Path("nowhere.png"))])
    with pytest.raises(ImageError, match="120 x 100"):
        decoder_samples(compact(), [replace(images[0], height=50)])
    nothing = replace(images[0], objects=())
    assert decoder_samples(compact(), [nothing]) == []
    assert Box.of_mask(decoder_samples(compact(), images[:1])[0].mask.astype(bool)).area > 0

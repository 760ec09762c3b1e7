from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from segment_anything.modeling import Sam

from backend.pipeline import load_pipeline
from backend.pipeline.config import load_config
from backend.pipeline.loading import load_segmenter
from backend.pipeline.segmentation.sam import Engine, SamSegmenter, WindowRule
from backend.pipeline.segmentation.windows import window_for
from backend.pipeline.types import Box, Embedding, Prompts
from dataset_tools.errors import ConfigError
from dataset_tools.synthetic import draw_scene
from tests.pipeline.segmentation.small_sams import small_compact_sam, small_vit_sam

openvino = pytest.importorskip("openvino", reason='OpenVINO is not installed: pip install "pslg-sam[openvino]"')

PROMPTS = {
    "one click": Prompts(np.array([[40, 30]], np.float32), np.ones(1, np.int64)),
    "five clicks": Prompts(
        np.array([[40, 30], [50, 35], [20, 20], [60, 60], [33, 44]], np.float32), np.array([1, 1, 0, 0, 1])
    ),
    "a box": Prompts(box=Box(20, 10, 70, 60)),
    "a mask": Prompts(
        np.array([[40, 30]], np.float32), np.ones(1, np.int64), mask_logits=np.full((16, 16), 2, np.float32)
    ),
}


@pytest.fixture(scope="module", params=["vit", "compact"])
def pair(request: pytest.FixtureRequest) -> tuple[SamSegmenter, SamSegmenter]:
    make: Callable[[], Sam] = small_vit_sam if request.param == "vit" else small_compact_sam
    rule: WindowRule | None = None if request.param == "vit" else window_for
    engines: tuple[Engine, Engine] = ("torch", "openvino")
    one, other = (SamSegmenter(make(), window_rule=rule, embedding_dtype="float32", engine=e) for e in engines)
    return one, other


@pytest.mark.parametrize("kind", PROMPTS)
def test_masks_are_those_of_torch(pair: tuple[SamSegmenter, SamSegmenter], kind: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    prompts = PROMPTS[kind]
    if prompts.mask_logits is not None:
        side = pair[0].sam.prompt_encoder.mask_input_size
        prompts = Prompts(prompts.points, prompts.point_labels, None, np.full(side, 2, np.float32))
    embeddings = [segmenter.embed(image) for segmenter in pair]
    assert embeddings[0].key == embeddings[1].key
    assert np.allclose(embeddings[0].features, embeddings[1].features, rtol=1e-3, atol=1e-4)
    # The store may hold an embedding that the other engine made.
    for embedding in embeddings:
        ours, theirs = (segmenter.decode(embedding, prompts) for segmenter in pair)
        assert np.allclose(ours.low_res_logits, theirs.low_res_logits, rtol=1e-3, atol=1e-4)
        assert np.array_equal(ours.mask, theirs.mask)
        assert ours.predicted_iou == pytest.approx(theirs.predicted_iou, abs=1e-4)


def test_many_threads_get_their_own_masks(pair: tuple[SamSegmenter, SamSegmenter]) -> None:
    _, segmenter = pair
    image = np.random.default_rng(1).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    embedding = segmenter.embed(image)
    prompts = [
        Prompts(np.array([[10 + 8 * i, 12 + 5 * i]] * (1 + i % 3), np.float32), np.ones(1 + i % 3, np.int64))
        for i in range(10)
    ]
    alone = [segmenter.decode(embedding, one).low_res_logits for one in prompts]
    with ThreadPoolExecutor(5) as pool:
        together = list(pool.map(lambda one: segmenter.decode(embedding, one).low_res_logits, prompts))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_the_shipped_model_outlines_the_same_pixels_with_either_engine() -> None:
    """Model version and masks of the compact config do not depend on the engine."""
    config = load_config("compact")
    with_openvino = config.model_copy(update={"segmenter": config.segmenter.model_copy(update={"engine": "openvino"})})
    ours, theirs = load_pipeline(config), load_pipeline(with_openvino)
    assert ours.model_version == theirs.model_version
    scene = draw_scene(3)
    differing = pixels = 0
    for item in scene.objects[:6]:
        box = Box.of_mask(item.mask)
        window = ours.segmenter.window_for(box, (scene.image.shape[0], scene.image.shape[1]))
        embeddings: list[Embedding] = [pipeline.embed(scene.image, window) for pipeline in (ours, theirs)]
        masks = [p.refine(e, Prompts(box=box)).mask for p, e in zip((ours, theirs), embeddings, strict=True)]
        differing += int((masks[0] != masks[1]).sum())
        pixels += int(masks[0].sum())
    assert pixels > 1000
    assert differing <= pixels * 1e-4  # a feature on the edge between two half-precision numbers may round either way


def test_bfloat16_is_another_model() -> None:
    config = load_config("compact")
    engines = [
        config.segmenter.model_copy(update={"engine": engine, "options": {"autocast": True}})
        for engine in ("torch", "openvino")
    ]
    versions = [config.model_copy(update={"segmenter": segmenter}).mask_relevant() for segmenter in engines]
    assert versions[0] != versions[1]
    choices: list[tuple[Engine, bool]] = [("torch", False), ("openvino", False), ("torch", True), ("openvino", True)]
    hashes = {SamSegmenter(small_vit_sam(), autocast=bf16, engine=engine).encoder_hash for engine, bf16 in choices}
    assert len(hashes) == 3


def test_an_engine_that_cannot_run_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    sam3 = load_config("sam3")
    with pytest.raises(ConfigError, match=r"segmenter\.engine: openvino cannot run a segmenter of kind sam3-tracker"):
        load_segmenter(sam3.segmenter.model_copy(update={"engine": "openvino"}))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match=r"pip install \"pslg-sam\[openvino\]\""):
        SamSegmenter(small_vit_sam(), engine="openvino")


SIGNAL_AFTER_A_MODEL = """
import gc, signal, threading
import torch
from backend.pipeline.segmentation.openvino_engine import compile_network

network = compile_network(torch.nn.ReLU().eval(), [torch.ones(1, 4)])
print(network(torch.tensor([[1.0, -1.0, 2.0, -2.0]]))[0].tolist())

def drop():
    global network
    network = None
    gc.collect()

dropping = threading.Thread(target=drop)
dropping.start()
dropping.join()
signal.signal(signal.SIGCHLD, lambda *_: print("handled"))
signal.raise_signal(signal.SIGCHLD)
"""


def test_a_signal_is_handled_after_a_model_was_dropped_in_another_thread() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", SIGNAL_AFTER_A_MODEL], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.split("\n")[:2]) == (0, ["[[1.0, 0.0, 2.0, 0.0]]", "handled"]), done.stderr

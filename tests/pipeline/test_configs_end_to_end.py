"""Every shipped config from weight files to masks: ``pslg prelabel``, a served /predict and a click.

The files have the official names and containers, with random weights of small sizes; the image is a synthetic scene.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from flask.testing import FlaskClient
from PIL import Image as PillowImage
from segment_anything.build_sam import _build_sam

from backend.commands.prelabel import prelabel
from backend.pipeline import load_config, load_pipeline
from backend.pipeline.config import config_names
from backend.pipeline.grounding.lqvg.checkpoint import checkpoint_content
from backend.pipeline.weights import REGISTRY
from backend.server.app import create_app
from backend.server.service import LabelingService
from backend.settings import Settings
from dataset_tools import brush_rle
from dataset_tools.masks import from_coco
from dataset_tools.synthetic import Scene, draw_scene
from tests.grounding_dino_tiny import write_grounding_dino, write_mm_grounding_dino
from tests.hf_sam_tiny import save_edgetam, save_sam2, write_sam_hq
from tests.lqvg_tiny import tiny_network, write_tokenizer
from tests.sam3_tiny import write_sam3
from tests.server.conftest import batch, encode, interactive, make_site, task
from tests.vlm_server import vlm_server

SECRET = "sk-end-to-end-4711"

LABEL_CONFIG = """<View><Header value="$expression"/><Image name="image" value="$image"/>
<BrushLabels name="mask" toName="image" smart="false"><Label value="{label}"/></BrushLabels>
<KeyPointLabels name="point" toName="image" smart="true"><Label value="{label}"/></KeyPointLabels></View>"""


def write_sam(path: Path) -> None:
    """Random weights under segment-anything's names, with its input of 1024 px and a narrow encoder."""
    torch.manual_seed(0)
    sam = _build_sam(encoder_embed_dim=16, encoder_depth=2, encoder_num_heads=1, encoder_global_attn_indexes=[1])
    torch.save(sam.state_dict(), path)


def write_lqvg(path: Path) -> None:
    """The published file's container: torch's legacy format, options and all."""
    torch.save(checkpoint_content(tiny_network()), path, _use_new_zipfile_serialization=False)


WRITERS: dict[str, Callable[[Path], object]] = {
    "sam_vit_b": write_sam,
    "sam_vit_l": write_sam,
    "sam_vit_h": write_sam,
    "lqvg": write_lqvg,
    "roberta_base_tokenizer": write_tokenizer,
    "grounding_dino_tiny": write_grounding_dino,
    "mm_grounding_dino_tiny": write_mm_grounding_dino,
    "llmdet_tiny": write_mm_grounding_dino,
    "edgetam": save_edgetam,
    "sam2_hiera_tiny": save_sam2,
    "sam_hq_vit_b": write_sam_hq,
    "sam3": write_sam3,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PSLG_WEIGHTS", str(folder))
        for name, write in WRITERS.items():
            if name != "edgetam" or find_spec("timm"):
                write(REGISTRY[name].path)
        with vlm_server() as server:
            server.script('```json\n[{"bbox_2d": [100, 100, 500, 700], "label": "object"}]\n```')
            patch.setenv("VLM_URL", server.url)
            patch.setenv("VLM_API_KEY", SECRET)
            yield folder


@pytest.fixture(scope="module")
def scene() -> Scene:
    return draw_scene(3, width=320, height=240)


@pytest.fixture(scope="module")
def image(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "scene.png"
    path.write_bytes(encode(PillowImage.fromarray(scene.image)))
    return path


def found_expression(name: str, scene: Scene) -> tuple[str, str]:
    """An expression that the config answers in this scene, and its category."""
    pipeline = load_pipeline(name)
    for category in sorted({item.category for item in scene.objects}):
        expression = f"the largest {category}"
        if pipeline.ground(scene.image, expression).abstention is None:
            return expression, category
    raise AssertionError(f"{name} finds nothing in the scene")


@pytest.mark.parametrize("name", config_names())
def test_every_config_runs_from_the_command_line_and_as_a_server(
    name: str, weights: Path, scene: Scene, image: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    if name == "edgetam":
        pytest.importorskip("timm", reason='EdgeTAM needs timm: pip install "pslg-sam[timm]"')
    expression, category = found_expression(name, scene)
    version = check_prelabel(name, image, expression, category, tmp_path)
    check_predict(name, image, expression, category, version, tmp_path)
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert SECRET not in caplog.text
    assert not any(SECRET.encode() in content for content in kept)


def check_prelabel(name: str, image: Path, expression: str, category: str, folder: Path) -> str:
    overlay = folder / "overlay.png"
    arguments = [str(image), expression, "--config", name, "--json", "--out", str(overlay)]
    done = CliRunner().invoke(prelabel, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["model_version"].startswith(f"{name}-")
    item = answer["prelabels"][0]
    assert item["category"] == category
    assert from_coco(item["mask"], 240, 320).any()
    with PillowImage.open(overlay) as picture:
        assert min(picture.size) > 300
    return str(answer["model_version"])


def check_predict(name: str, image: Path, expression: str, category: str, version: str, folder: Path) -> None:
    config = load_config(name)
    settings = Settings(
        config=name, state_dir=folder / "state", image_hosts=("127.0.0.1",), model_threads=1, deadline=300
    )
    service = LabelingService(settings)
    sites = make_site()
    site = next(sites)
    try:
        service.start()
        assert service.model.wait(300)
        client = create_app(settings, service).test_client()
        url = site.put("/scene.png", image.read_bytes())
        body = batch(task(1, url, expression), label_config=LABEL_CONFIG.format(label=category))
        reply = client.post("/predict", json=body)
        assert reply.status_code == 200, reply.text
        (slot,) = json.loads(reply.data)["results"]
        assert slot["model_version"] == version
        for region in slot["result"]:
            assert region["value"]["brushlabels"] == [category]
            assert brush_rle.decode(region["value"]["rle"], 240, 320).any()
        check_click(client, url, expression, category, version)
        if config.grounder.kind == "vlm":
            metrics = client.get("/metrics").text
            assert 'pslg_language_model_calls_total{outcome="answered"}' in metrics
            assert SECRET not in metrics
    finally:
        service.close()
        next(sites, None)


def check_click(client: FlaskClient, url: str, expression: str, category: str, version: str) -> None:
    point = {
        "id": "p1", "type": "keypointlabels", "from_name": "point", "to_name": "image", "is_positive": True,
        "original_width": 320, "original_height": 240, "image_rotation": 0,
        "value": {"x": 40.0, "y": 50.0, "width": 0.3, "keypointlabels": [category]},
    }  # fmt: skip
    reply = client.post(
        "/predict", json=interactive(task(1, url, expression), [point], LABEL_CONFIG.format(label=category))
    )
    assert reply.status_code == 200, reply.text
    answer = json.loads(reply.data)["results"]
    answer = answer[0] if isinstance(answer, list) else answer
    assert answer["model_version"] == version
    for region in answer["result"]:
        assert brush_rle.decode(region["value"]["rle"], 240, 320).any()


def test_no_config_is_left_out() -> None:
    """A config whose weights this module cannot write would fail above with a message about the wrong thing."""
    for name in config_names():
        config = load_config(name)
        for weights_name in (config.grounder.weights, config.segmenter.weights, config.grounder.tokenizer):
            assert weights_name is None or weights_name in WRITERS or REGISTRY[weights_name].shipped

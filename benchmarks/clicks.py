"""A warm click, handler in to handler out, against the peer path: ``python -m benchmarks.clicks``.

The peer path is label-studio-ml-backend's segment_anything example, written down: torch with two threads, a
``SamPredictor`` that holds this one image, ``predict(multimask_output=True)``, the best mask, the SDK's ``mask2rle``,
``flask.jsonify``. Both sides run the prompt encoder and mask decoder of ViT-B with random weights at full cost; the
decoder's output is then replaced by one smooth shape, because random weights give noise that no annotator would see.
Both masks are checked to be the same. Our side is measured with each engine, with as many threads as the peer, and with
the compact segmenter and its own weights: there a click is the second one on an object of a drawn scene (a negative
one, so that the window stays), the masks are its own, and the peer is the same ViT-B.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import flask
import numpy as np
import torch
from flask.testing import FlaskClient
from label_studio_sdk.converter import brush
from PIL import Image as PillowImage
from segment_anything import SamPredictor
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from backend.pipeline import PslgSam, load_pipeline
from backend.pipeline.config import PipelineConfig, load_config
from backend.pipeline.segmentation.sam import Engine, SamSegmenter
from backend.pipeline.types import Abstention, GroundingResult, Image
from backend.server.app import create_app
from backend.server.service import LabelingService
from backend.settings import Settings
from benchmarks.image_server import served
from dataset_tools.synthetic import draw_scene

LABEL_CONFIG = """<View><Image name="image" value="$image"/>
<BrushLabels name="mask" toName="image" smart="false"><Label value="object"/></BrushLabels>
<KeyPointLabels name="point" toName="image" smart="true" smartOnly="true"><Label value="object"/></KeyPointLabels>
</View>"""
ENGINES: tuple[Engine, ...] = ("openvino", "torch")


class _Encoder(torch.nn.Conv2d):
    """Stands in for ViT-B's encoder, which a warm click never runs."""

    img_size = 1024

    def __init__(self) -> None:
        super().__init__(3, 256, 16, 16)


class _NoGrounder:
    known_categories = None

    def ground(self, image: Image, expression: str, *, key: str | None = None, labels: object = ()) -> GroundingResult:  # noqa: ARG002
        return GroundingResult((), Abstention("absent", "not asked"))


def vit_b() -> Sam:
    """ViT-B's prompt encoder and decoder with random weights, the same at every call."""
    torch.manual_seed(0)
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    return Sam(
        _Encoder(),
        PromptEncoder(256, (64, 64), (1024, 1024), 16),
        MaskDecoder(transformer_dim=256, transformer=transformer, num_multimask_outputs=3),
    ).eval()


def smooth(masks: torch.Tensor) -> torch.Tensor:
    """One smooth shape in place of logits [..., 256, 256], which were computed all the same."""
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    angle = torch.atan2(y - 120, x - 130)
    return 60 + 8 * torch.sin(5 * angle) - ((y - 120) ** 2 + (x - 130) ** 2).sqrt() + 0 * masks


def compact(folder: Path, engine: Engine) -> FlaskClient:
    """Our whole server with the compact config, as a test client."""
    config = load_config("compact")
    segmenter = config.segmenter.model_copy(update={"engine": engine})
    return serve(folder, lambda: load_pipeline(config.model_copy(update={"segmenter": segmenter})))


def ours(folder: Path, engine: Engine) -> FlaskClient:
    """Our whole server with ViT-B's decoder, as a test client."""
    config = PipelineConfig.model_validate(
        {
            "name": "vit_b",
            "grounder": {"kind": "compact", "weights": "none"},
            "segmenter": {"kind": "sam", "weights": "none"},
        }
    )

    def load() -> PslgSam:
        segmenter = SamSegmenter(vit_b(), weights_hash="random", embedding_dtype="float32", engine=engine)
        decode = segmenter._run_decoder

        def decode_smoothly(*tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
            masks, ious = decode(*tokens)
            return smooth(masks), ious

        segmenter._run_decoder = decode_smoothly
        return PslgSam(_NoGrounder(), segmenter, config, "vit_b-00000000")

    return serve(folder, load)


def serve(folder: Path, load: Callable[[], PslgSam]) -> FlaskClient:
    """The server around a pipeline."""
    threads = torch.get_num_threads()
    settings = Settings(state_dir=folder, image_hosts=("127.0.0.1",), model_threads=threads, image_bytes=1 << 30)
    service = LabelingService(settings, load)
    service.start()
    assert service.model.wait(600), service.model.problem
    return create_app(settings, service).test_client()


def peer(image: Image) -> FlaskClient:
    """The peer path, as a test client."""
    sam = vit_b()
    decode = sam.mask_decoder.forward

    def decode_smoothly(**inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        masks, ious = decode(**inputs)
        return smooth(masks), ious

    sam.mask_decoder.forward = decode_smoothly
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    app = flask.Flask("peer")
    side = image.shape[0]

    @app.post("/predict")
    def predict() -> flask.Response:
        value = flask.request.get_json()["params"]["context"]["result"][0]["value"]
        point = np.array([[value["x"] / 100 * side, value["y"] / 100 * side]])
        masks, scores, _ = predictor.predict(point, np.array([1]), multimask_output=True)
        rle = brush.mask2rle(masks[scores.argmax()].astype(np.uint8) * 255)
        region = {"type": "brushlabels", "value": {"format": "rle", "rle": rle, "brushlabels": ["object"]}}
        return flask.jsonify({"results": [{"result": [region], "score": float(scores.max())}]})

    return app.test_client()


def click(side: int, x: float, y: float, *, positive: bool = True) -> dict[str, Any]:
    """A click as the editor sends it; ``x`` and ``y`` in percent."""
    return {
        "original_width": side,
        "original_height": side,
        "value": {"x": x, "y": y, "width": 0.3, "keypointlabels": ["object"]},
        "is_positive": positive,
        "id": f"{x} {y}",
        "from_name": "point",
        "to_name": "image",
        "type": "keypointlabels",
    }


def body(url: str, *clicks: dict[str, Any]) -> dict[str, Any]:
    """A request with these clicks."""
    task = {"id": 1, "data": {"image": url}, "annotations": [], "drafts": [], "predictions": []}
    result = {"context": {"result": list(clicks)}}
    return {"tasks": [task], "label_config": LABEL_CONFIG, "project": "1.1", "params": result}


def measure(sides: tuple[int, ...], repeats: int, threads: int) -> dict[str, dict[str, float]]:
    """Medians in milliseconds of interleaved clicks by engine and image side, and the medians of the ratios."""
    torch.set_num_threads(threads)
    results = {}
    for side in sides:
        scene = draw_scene(8001, theme="airport", scale=1.3)
        target = max(scene.objects, key=lambda item: int(item.mask.sum())).box.center
        on_target = 100 * target.x / scene.image.shape[1], 100 * target.y / scene.image.shape[0]
        pixels = np.asarray(cv2.resize(scene.image, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)
        buffer = io.BytesIO()
        PillowImage.fromarray(pixels).save(buffer, "PNG", compress_level=1)
        file = buffer.getvalue()
        with (
            served(lambda _, file=file: file) as url,  # type: ignore[misc]
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        ):
            clients = {engine: ours(Path(folder, engine), engine) for engine in ENGINES} | {"peer": peer(pixels)}
            compacts = {f"compact {engine}": compact(Path(folder, f"compact-{engine}"), engine) for engine in ENGINES}
            times: dict[str, list[float]] = {name: [] for name in (*clients, *compacts)}
            for number in range(repeats + 1):
                request, answers = body(f"{url}/image.png", click(side, 40 + number * 0.71, 45 + number * 0.37)), []
                for name, client in clients.items():
                    seconds, answer = timed(lambda c=client, r=request: c.post("/predict", json=r))  # type: ignore[misc]
                    answers.append(answer.get_json()["results"][0]["result"][0]["value"]["rle"])
                    if number:  # the first one embeds the image
                        times[name].append(seconds * 1e3)
                assert answers.count(answers[0]) == len(answers), "the masks differ"
                away = click(side, on_target[0] + 8 + number * 0.2, on_target[1] + 8, positive=False)
                request = body(f"{url}/image.png", click(side, *on_target), away)
                for name, client in compacts.items():
                    seconds, answer = timed(lambda c=client, r=request: c.post("/predict", json=r))  # type: ignore[misc]
                    assert answer.get_json()["results"][0]["result"], "no mask"
                    if number:
                        times[name].append(seconds * 1e3)
        for name in (*ENGINES, *compacts):
            ratios = [b / a for a, b in zip(times[name], times["peer"], strict=True)]
            results[f"warm click {side}, {name}"] = {
                "ms": statistics.median(times[name]),
                "peer_ms": statistics.median(times["peer"]),
                "ratio": statistics.median(ratios),
                "best_ms": min(times[name]),
                "peer_best_ms": min(times["peer"]),
            }
    return results


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that ``call`` takes, and what it returns."""
    start = time.perf_counter()
    answer = call()
    return time.perf_counter() - start, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2, help="of each side")
    parser.add_argument("--sides", type=int, nargs="+", default=[800, 2048, 4096])
    arguments = parser.parse_args()
    results = measure(tuple(arguments.sides), arguments.repeats, arguments.threads)
    if arguments.json:
        print(json.dumps(results))
        return
    for name, row in results.items():
        print(f"{name:36} {row['ms']:8.1f} ms, peer {row['peer_ms']:8.1f} ms, ratio {row['ratio']:.2f}")


if __name__ == "__main__":
    main()

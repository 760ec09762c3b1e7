"""Write the small state folder that tests open as one of an earlier release; run with the code of commit 095f5ef.

    git worktree add /tmp/095f5ef 095f5ef
    cd /tmp/095f5ef && PYTHONPATH=. OMP_NUM_THREADS=1 python REPOSITORY/tests/data/state_095f5ef/make.py OUT

Everything in OUT comes from that commit's own server, trainer and registry: webhooks about a project of eight images
(one annotation updated, one deleted), pre-labels of two of them, image features, a training that was promoted by hand,
and a job that still waits.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from backend.database import Database
from backend.learning.annotation_examples import ImageFile
from backend.learning.annotation_store import AnnotationStore
from backend.learning.image_features import ImageFeatures
from backend.learning.model_versions import ModelVersions
from backend.learning.training_jobs import TrainingJobs
from backend.learning.training_runner import TrainingRunner
from backend.pipeline.types import Box, Point, Prelabel, Prelabels
from backend.server.protocol import PredictRequest
from backend.server.service import LabelingService
from backend.settings import Settings
from dataset_tools import brush_rle, synthetic
from tests.learning.project_scenes import tiny_config
from tests.server.conftest import make_site

HEIGHT, WIDTH = 96, 128
TIMES = {"created_at": "2026-11-23T10:00:00Z", "updated_at": "2026-11-23T10:00:00Z"}
CONFIG = """<View><TextArea name="prompt" toName="image"/><BrushLabels name="mask" toName="image">
<Label value="solar panel"/><Label value="ship"/></BrushLabels><Image name="image" value="$image"/></View>"""
PROJECT = {"id": 2, "title": "Roofs", "label_config": CONFIG, **TIMES}


def scene(number: int) -> tuple[bytes, np.ndarray[Any, np.dtype[np.bool_]]]:
    """A plain gray image with a yellow square, as PNG, and the square's mask."""
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[10 + number : 40 + number, 20 + 5 * number : 50 + 5 * number] = True
    pixels = np.full((HEIGHT, WIDTH, 3), 60 + number, np.uint8)
    pixels[mask] = (230, 210, 30)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue(), mask


def annotation(number: int, masks: list[Any], updated: str) -> dict[str, Any]:
    result = [
        {
            "id": f"region{number}{index}",
            "type": "brushlabels",
            "from_name": "mask",
            "to_name": "image",
            "origin": "manual",
            "original_width": WIDTH,
            "original_height": HEIGHT,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": brush_rle.encode(mask), "brushlabels": ["solar panel"]},
        }
        for index, mask in enumerate(masks)
    ]
    times = {"created_at": TIMES["created_at"], "updated_at": updated}
    return {"id": number, "task": number, "result": result, "was_cancelled": False, **times}


def main(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    base = tiny_config(out)
    replay = out.parent / "replay_for_state"
    synthetic.write(replay, (synthetic.draw_scene(seed, 128, 128) for seed in range(4)), split=(0.5, 0.5, 0.0))
    state = out / "state"
    sites = make_site()
    site = next(sites)
    settings = Settings(
        state_dir=state, config=str(base), image_hosts=("127.0.0.1",), train_steps=4, train_held_out=0.35,
        train_replay=replay, image_memory=0,
    )
    service = LabelingService(settings)
    scenes = {number: scene(number) for number in range(1, 9)}
    tasks = {
        number: {"id": number, "data": {"image": site.put(f"/{number}.png", png), "expression": "all the solar panels"}}
        for number, (png, _) in scenes.items()
    }
    for number, (_, mask) in scenes.items():
        body = annotation(number, [mask], TIMES["updated_at"])
        event = {"action": "ANNOTATION_CREATED", "project": PROJECT, "task": {**tasks[number], **TIMES}}
        service.record_event({**event, "annotation": body})
    second = np.zeros((HEIGHT, WIDTH), np.bool_)
    second[70:90, 5:30] = True
    body = annotation(1, [scenes[1][1], second], "2026-11-23T11:00:00Z")
    event = {"action": "ANNOTATION_UPDATED", "project": PROJECT, "task": {**tasks[1], **TIMES}}
    service.record_event({**event, "annotation": body})
    service.record_event(
        {"action": "ANNOTATIONS_DELETED", "project": PROJECT, "annotations": [{"id": 8}], "tasks": [{"id": 8}]}
    )
    service.model.start()
    service.model.wait(60)
    request = {"tasks": [tasks[1], tasks[2]], "project": "2.1", "label_config": CONFIG, "params": {}}
    service.predict(PredictRequest.model_validate(request))
    identity, pixels = service.images.load(tasks[1]["data"]["image"])
    mask = scenes[1][1]  # the tiny networks have learnt nothing; an answer as a better one would give it
    prelabel = Prelabel(mask, Box.of_mask(mask), Point(40, 30), "ship", 0.75, {"grounding": 0.8}, "the ship")
    service.cache.put(identity.sha256, "the ship", None, service.model.pipeline().model_version, Prelabels((prelabel,)))
    ImageFeatures(service._database, service.model.pipeline().segmenter).of(identity.sha256, lambda: pixels)

    store, jobs = AnnotationStore(service._database), TrainingJobs(service._database)
    store.refresh()
    versions = ModelVersions(service._database, state)

    def fetch(url: str, task: int) -> ImageFile:
        identity, path = service.images.keep(url, task, state / "images")
        return ImageFile(identity.sha256, path, *identity.size)

    job = jobs.add(2)
    manifest = TrainingRunner(settings, store, jobs, versions, fetch).run(job)
    assert manifest is not None
    if not manifest.accepted:
        versions.promote(manifest.version, "by hand")
    jobs.want(2, "button", 7)
    service.close()
    for name in ("features", "embeddings"):  # computed again where they are missing
        shutil.rmtree(state / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""A project of 40 tasks from pre-labels to datasets: what leaves is what was accepted, object by object.

The annotator is a program that sends what the editor sends (bodies as recorded from it) through Label Studio's API; the
ten scenes have four tasks each, so that the objects of a scene come from several annotations.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from backend.labeling_configs import read_labeling_config
from dataset_tools import brush_rle, metrics, synthetic
from dataset_tools.categories import category_name
from dataset_tools.cli import dataset
from dataset_tools.synthetic import Scene
from tests.dataset_tools.mini_refer import MiniRefer, decode
from tests.end_to_end.conftest import StartBackend, Studio
from tests.end_to_end.projects import LABELING_CONFIG, png
from tests.end_to_end.scenes import Mask, corners, inner_point

pytestmark = pytest.mark.timeout(1800)

SCENES, TASKS = 10, 4
DEEDS = (
    ("keep",), ("keep", "text"), ("keep", "rejected text"), ("keep", "box"), ("keep", "click"), ("refine",), ("skip",),
    ("keep", "text", "rejected text", "box", "click"),
)  # fmt: skip
"""What the annotator does with the tasks, in turn."""


@dataclass(frozen=True)
class Accepted:
    """A region as it was on the screen when the annotator accepted it."""

    scene: int
    task: int
    words: str | None
    label: str
    mask: Mask


@dataclass
class Annotator:
    """Works on one project; remembers what was accepted, and which expressions were said to mean nothing."""

    studio: Studio
    backend: int
    scenes: list[Scene]
    predicted: dict[int, list[dict[str, Any]]]
    accepted: list[Accepted] = field(default_factory=list)
    absent: list[tuple[int, str]] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def label(self, scene: int, task: int, expressions: list[str], deeds: tuple[str, ...]) -> None:
        """Do one task; of ``expressions`` the first is the task's, the others may be typed."""
        prediction = self.predicted[task]
        notes = [region for region in prediction if region["type"] == "textarea"]
        found = [region for region in prediction if region["type"] == "brushlabels"]
        if "skip" in deeds:
            self.studio.client.create_annotation(task, [], was_cancelled=True)
            return
        if marked := [region for region in found if any("candidate" in line for line in region["meta"]["text"])]:
            found = marked[:1]  # the one that is meant; the annotator deletes the others
            self.done["candidate"] += 1
        result: list[dict[str, Any]] = [*notes, *found]
        kept = [Accepted(scene, task, expressions[0], *self._seen(region)) for region in found]
        if not found:
            self.absent.append((scene, expressions[0]))
            self.done["absent"] += 1
            deeds = ()
        for deed in deeds:
            before = len(kept)
            if deed == "refine":
                self._refine(task, result, kept)
            elif "text" in deed:
                words = expressions[1 if deed == "text" else 2]
                prompt = self._prompt("prompt", "textarea", {"text": [words]})
                suggested = self._suggested(task, [prompt])
                result.append(prompt)  # the editor keeps it, whatever becomes of the suggestion
                if deed == "text":
                    result += suggested
                    kept += [Accepted(scene, task, words, *self._seen(region)) for region in suggested]
            elif deed in ("box", "click"):
                self._point_out(deed, scene, task, result, kept)
            self.done[deed] += len(kept) > before or deed in ("keep", "refine", "rejected text")
        self.accepted += kept
        self.studio.client.create_annotation(task, result, lead_time=3.5)

    def _refine(self, task: int, result: list[dict[str, Any]], kept: list[Accepted]) -> None:
        """A click on the pre-label: the answer replaces it."""
        old, place = kept[0], next(k for k, region in enumerate(result) if region["type"] == "brushlabels")
        click = self._click(old.mask, old.label)
        (new,) = self._suggested(task, [click])
        assert new["id"] == result[place]["id"]
        result[place] = new
        kept[0] = Accepted(old.scene, task, old.words, *self._seen(new))

    def _point_out(self, how: str, scene: int, task: int, result: list[dict[str, Any]], kept: list[Accepted]) -> None:
        """A box around, or a click on, an object that nothing accepted lies on: it has no words."""
        taken = np.logical_or.reduce([one.mask for one in kept])
        free = [o for o in self.scenes[scene].objects if o.category == "airplane" and not (o.mask & taken).any()]
        for item in free:
            prompt = self._click(item.mask, "airplane") if how == "click" else self._box(item.mask, "airplane")
            suggested = self._suggested(task, [prompt])
            if suggested and not any((self._seen(region)[1] & taken).any() for region in suggested):
                result += suggested
                kept += [Accepted(scene, task, None, *self._seen(region)) for region in suggested]
                return

    def _suggested(self, task: int, prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = self.studio.client.suggestions(self.backend, task, prompts)
        objects = [region for region in found if region["type"] == "brushlabels"]
        unsure = any("candidate" in line for region in objects for line in region["meta"]["text"])
        # As the editor stores a suggestion that was accepted.
        return [] if unsure else [{**region, "origin": "prediction"} for region in objects]

    def _seen(self, region: dict[str, Any]) -> tuple[str, Mask]:
        size = region["original_height"], region["original_width"]
        return category_name(region["value"]["brushlabels"][0]), brush_rle.decode(region["value"]["rle"], *size)

    def _click(self, mask: Mask, label: str) -> dict[str, Any]:
        x, y = inner_point(mask)
        value = {"x": 100 * x, "y": 100 * y, "width": 0.32, "labels": [label], "keypointlabels": [label]}
        return {**self._prompt("point", "keypointlabels", value, mask), "is_positive": True}

    def _box(self, mask: Mask, label: str) -> dict[str, Any]:
        (x0, y0), (x1, y1) = corners(mask)
        value = {
            "x": 100 * x0, "y": 100 * y0, "width": 100 * (x1 - x0), "height": 100 * (y1 - y0), "rotation": 0,
            "rectanglelabels": [label],
        }  # fmt: skip
        return self._prompt("box", "rectanglelabels", value, mask)

    @staticmethod
    def _prompt(control: str, kind: str, value: dict[str, Any], mask: Mask | None = None) -> dict[str, Any]:
        region = {
            "value": value, "id": secrets.token_urlsafe(7), "from_name": control, "to_name": "image", "type": kind,
            "origin": "manual",
        }  # fmt: skip
        size = {} if mask is None else {"original_width": mask.shape[1], "original_height": mask.shape[0]}
        return {**size, **({} if mask is None else {"image_rotation": 0}), **region}


@pytest.fixture
def labelled(
    studio: Studio, personal_access_token: str, start_backend: StartBackend
) -> tuple[int, list[Scene], Annotator]:
    """The project, its scenes, and the annotator when all tasks are done."""
    client = studio.client
    scenes = [synthetic.draw_scene(8001 + k, 640, 480, "airport", scale=1.2) for k in range(SCENES)]
    project = client.create_project("forty", read_labeling_config(LABELING_CONFIG))
    asked: list[tuple[int, list[str]]] = []
    data = []
    for number, scene in enumerate(scenes):
        image = client.upload_image(project, f"scene{number}.png", png(scene.image))
        found = synthetic.expressions(scene, number)
        single = list(dict.fromkeys(one.expression for one in found if len(one.targets) == 1))
        texts = [*single, "the airplane on the left", "the topmost airplane", "the largest airplane", "the bridge"]
        for task in range(TASKS):
            turned = texts[task:] + texts[:task]
            data.append({"image": image, "expression": turned[0]})
            asked.append((number, turned))
    tasks = client.import_tasks(project, data)
    backend = client.connect_backend(project, start_backend(personal_access_token).url)
    client.retrieve_predictions(project, tasks)
    predicted = {item.task: item.result for item in client.predictions(project)}
    annotator = Annotator(studio, backend.id, scenes, predicted)
    for place, (task, (scene_number, texts)) in enumerate(zip(tasks, asked, strict=True)):
        annotator.label(scene_number, task, texts, DEEDS[place % len(DEEDS)])
    return project, scenes, annotator


def exported(studio: Studio, project: int, token: str, folder: Path, name: str) -> Path:
    words = ["export", studio.url, str(folder / name), "--format", name, "--project", str(project)]
    more = ["--cache", str(folder / "cache"), "--api-key", token]
    result = CliRunner().invoke(dataset, [*words, *more])
    assert result.exit_code in (0, 2), result.output  # 2: objects without words stay behind in refer
    return folder / name


def clusters(masks: list[Mask]) -> Iterator[list[Mask]]:
    """Masks of one object are those that overlap by an IoU of 0.6."""
    found: list[list[Mask]] = []
    for mask in masks:
        same = [any(metrics.iou(mask, other) >= 0.6 for other in group) for group in found]
        joined = [one for group, is_same in zip(found, same, strict=True) if is_same for one in group]
        apart = [group for group, is_same in zip(found, same, strict=True) if not is_same]
        found = [*apart, [mask, *joined]]
    yield from found


def test_what_leaves_is_what_was_accepted(
    labelled: tuple[int, list[Scene], Annotator], studio: Studio, personal_access_token: str, tmp_path: Path
) -> None:
    project, scenes, annotator = labelled
    accepted, done = annotator.accepted, annotator.done
    assert len(accepted) >= 40, done
    assert all(done[deed] >= 2 for deed in ("keep", "text", "rejected text", "box", "click", "refine")), done
    number = {scene.image.tobytes(): k for k, scene in enumerate(scenes)}

    refer = exported(studio, project, personal_access_token, tmp_path, "refer")
    said: dict[tuple[int, int, str, str], Mask] = {}
    for one in accepted:
        if one.words is not None:
            key = (one.scene, one.task, one.words, one.label)
            said[key] = said.get(key, np.zeros_like(one.mask)) | one.mask
    expected = {(scene, words, mask.tobytes()) for (scene, _, words, _), mask in said.items()}
    found = MiniRefer(refer).items("train")
    assert all(len(texts) == 1 for _, _, texts in found)
    assert {(number[i.tobytes()], texts[0], mask.astype(bool).tobytes()) for i, mask, texts in found} == expected
    assert len(found) == len(expected)

    coco = exported(studio, project, personal_access_token, tmp_path, "coco")
    content = json.loads((coco / "annotations" / "instances_train.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    assert len(content["images"]) == len({one.scene for one in accepted} | {scene for scene, _ in annotator.absent})
    for image in content["images"]:
        scene = number[np.asarray(Image.open(coco / "images" / image["file_name"])).tobytes()]
        rows = [row for row in content["annotations"] if row["image_id"] == image["id"]]
        for label in {names[row["category_id"]] for row in rows} | {a.label for a in accepted if a.scene == scene}:
            codes = [row["segmentation"] for row in rows if names[row["category_id"]] == label]
            masks = [decode({**code, "counts": code["counts"].encode()}) == 1 for code in codes]
            groups = list(clusters([a.mask for a in accepted if (a.scene, a.label) == (scene, label)]))
            assert len(masks) == len(groups), (scene, label)
            for group in groups:
                assert sum(any(np.array_equal(mask, one) for one in group) for mask in masks) == 1, (scene, label)

    both = exported(studio, project, personal_access_token, tmp_path, "coco_jsonl")
    lines = [json.loads(line) for line in (both / "expressions.jsonl").read_text().splitlines()]
    absent = [line["expression"] for line in lines if not line["ann_ids"]]
    assert sorted(absent) == sorted(expression for _, expression in set(annotator.absent))

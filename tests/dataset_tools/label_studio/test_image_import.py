"""Images become tasks, once each; a stand-in for Label Studio's import API keeps files and tasks."""

from __future__ import annotations

import json
from email.parser import BytesParser
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset_tools.errors import DatasetError, ImageError, LabelStudioError
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.exports import samples_of_task
from dataset_tools.label_studio.image_folders import FolderImage
from dataset_tools.label_studio.image_import import FILE, Imported, LocalFiles, TaskKeys, import_images
from dataset_tools.label_studio.images import addresses
from dataset_tools.label_studio.import_rules import ImportRules
from dataset_tools.label_studio.projects import add_tasks, create_project
from dataset_tools.label_studio.regions import new_id
from dataset_tools.label_studio.shapes import written
from dataset_tools.maps.objects import TilePlaces
from tests.server.conftest import Reply, Site

TOKEN = "0123456789abcdef0123456789abcdef01234567"


class ImportApi:
    """The routes that an import needs, on the test's web server."""

    def __init__(self, site: Site) -> None:
        self.tasks: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.batches: list[int] = []
        self.dies_after = 99
        self._site = site
        site.replies["/api/projects/7/import?commit_to_project=false"] = self._take_files
        site.replies["/api/projects/7/import?return_task_ids=true"] = self._take_tasks
        self._list()

    def _take_files(self, headers: dict[str, str], body: bytes) -> Reply:
        message = BytesParser().parsebytes(f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body)
        ids = []
        for part in message.get_payload():
            name, content = str(part.get_filename()), part.get_payload(decode=True)  # type: ignore[union-attr]
            self.files[f"upload/7/0000{len(self.files):04d}-{name}"] = bytes(content)
            ids.append(len(self.files))
        self.batches.append(len(ids))
        rows = [{"id": number, "file": list(self.files)[number - 1]} for number in reversed(ids)]
        quoted = str(ids).replace(" ", "%20").replace("[", "%5B").replace("]", "%5D").replace(",", "%2C")
        self._site.put(f"/api/projects/7/file-uploads?ids={quoted}", json.dumps(rows).encode())
        return Reply(json.dumps({"file_upload_ids": ids}).encode(), 201)

    def _take_tasks(self, _headers: dict[str, str], body: bytes) -> Reply:
        if len(self.tasks) >= self.dies_after:
            return Reply(b'{"detail": "out of disk"}', 500)
        self.tasks += json.loads(body)
        self._list()
        return Reply(json.dumps({"task_ids": list(range(len(self.tasks)))}).encode(), 201)

    def _list(self) -> None:
        body = {"tasks": self.tasks, "total": len(self.tasks)}
        self._site.put("/api/tasks/?project=7&page=1&page_size=100", json.dumps(body).encode())


@pytest.fixture
def api(site: Site) -> ImportApi:
    return ImportApi(site)


@pytest.fixture
def studio(site: Site) -> LabelStudio:
    return LabelStudio(site.url, TOKEN)


def images(folder: Path, count: int, *expressions: str) -> list[FolderImage]:
    folder.mkdir(exist_ok=True)
    found = []
    for number in range(count):
        path = folder / f"{number:02d}.png"
        Image.new("RGB", (8, 6), (number, 0, 0)).save(path)
        found.append(FolderImage(path, path.name, expressions, None, {}))
    return found


def test_a_run_that_was_stopped_goes_on(api: ImportApi, studio: LabelStudio, tmp_path: Path) -> None:
    found, left = images(tmp_path / "photos", 50, "the ship", "all the cars"), list[str]()
    api.dies_after = 40
    with pytest.raises(LabelStudioError, match="out of disk"):
        import_images(studio, 7, tmp_path / "photos", found, TaskKeys(), None, left.append)
    assert len(api.tasks) == 40
    api.dies_after = 99
    steps: list[int] = []
    done = import_images(studio, 7, tmp_path / "photos", found, TaskKeys(), None, left.append, steps.append)
    assert done == Imported(made=10, wordless=0, there=40, other_words=0)
    assert (sum(steps), left) == (50, [])
    assert max(api.batches) <= 20
    data = [task["data"] for task in api.tasks]
    assert len({item[FILE] for item in data}) == len(data) == 50
    assert [item["expression"] for item in data] == [["the ship", "all the cars"]] * 50
    for image, item in zip(found, data, strict=True):
        assert item["image"].endswith(f"-{image.path.name}")
        assert api.files[item["image"].removeprefix("/data/")] == image.path.read_bytes()


def test_other_words_and_another_content_of_one_name(api: ImportApi, studio: LabelStudio, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    import_images(studio, 7, folder, images(folder, 2), TaskKeys(), None, print)
    changed = images(folder, 2, "the ship")
    Image.new("RGB", (8, 6), "white").save(folder / "01.png")
    done = import_images(studio, 7, folder, changed, TaskKeys(), None, print)
    assert done == Imported(made=1, wordless=0, there=1, other_words=1)
    assert [task["data"]["expression"] for task in api.tasks] == [[], [], ["the ship"]]


def test_a_damaged_file_is_named_and_the_others_go_on(api: ImportApi, studio: LabelStudio, tmp_path: Path) -> None:
    found, left = images(tmp_path / "photos", 3), list[str]()
    found[0].path.write_bytes(found[0].path.read_bytes()[:40])
    found[1].path.write_bytes(b"")
    done = import_images(studio, 7, tmp_path / "photos", found, TaskKeys("a.url", "words"), None, left.append)
    assert done.made == 1
    assert [text.partition(":")[0] for text in left] == [str(image.path) for image in found[:2]]
    (task,) = api.tasks
    assert set(task["data"]) == {"a", "words", FILE}
    assert task["data"]["a"]["url"].endswith("-02.png")


def test_local_files_are_served_and_not_sent(site: Site, api: ImportApi, studio: LabelStudio, tmp_path: Path) -> None:
    found = images(tmp_path / "photos", 2)
    local = LocalFiles(tmp_path, PurePosixPath("/label-studio/files"))
    site.put("/api/storages/localfiles?project=7", b"[]")
    site.put("/api/storages/localfiles", b"{}")
    with pytest.raises(ImageError, match="must lie in a Local Files storage"):
        import_images(studio, 7, tmp_path / "photos", found, TaskKeys(), local, print)
    site.put("/data/local-files/?d=photos/00.png", b"x")
    import_images(studio, 7, tmp_path / "photos", found, TaskKeys(), local, print)
    assert [task["data"]["image"] for task in api.tasks] == [
        "/data/local-files/?d=photos/00.png",
        "/data/local-files/?d=photos/01.png",
    ]
    assert api.files == {}
    made = [json.loads(body) for method, path, _, body in site.seen if (method, path[-10:]) == ("POST", "localfiles")]
    assert made[0]["path"] == "/label-studio/files/photos"
    with pytest.raises(DatasetError, match="does not lie below"):
        import_images(
            studio, 7, tmp_path / "photos", found, TaskKeys(), LocalFiles(tmp_path / "other", local.seen_as), print
        )
    with pytest.raises(DatasetError, match="the document root itself"):
        import_images(
            studio, 7, tmp_path / "photos", found, TaskKeys(),
            LocalFiles(tmp_path / "photos", local.seen_as), print,
        )  # fmt: skip


def test_a_tile_keeps_its_place_and_nothing_else_is_taken_for_a_picture(
    api: ImportApi, studio: LabelStudio, tmp_path: Path
) -> None:
    place = {"window": [0, 6, 8, 6], "scene_size": [8, 12], "crs": "EPSG:32633",
             "transform": [2.0, 0.0, 500_000.0, 0.0, -2.0, 4_000_000.0]}  # fmt: skip
    (image,) = images(tmp_path / "tiles", 1, "the pool")
    tile = FolderImage(image.path, image.name, image.expressions, "city", place)
    import_images(studio, 7, tmp_path / "tiles", [tile], TaskKeys(), None, print)
    data = api.tasks[0]["data"]
    assert addresses(data, None) == [data["image"]]
    mask = np.zeros((6, 8), bool)
    mask[2:4, 3:6] = True
    result = [
        {"id": new_id(), "from_name": "mask", "to_name": "image", "type": "brushlabels", "original_width": 8,
         "original_height": 6, "image_rotation": 0, "value": {**value, "brushlabels": ["swimming pool"]}}
        for value in written(mask, "brushlabels")
    ]  # fmt: skip
    task = {"id": 1, "data": data, "annotations": [{"id": 1, "result": result}]}
    (sample,) = samples_of_task(task, ImportRules(), [])
    where = TilePlaces().of(sample)
    assert (where.scene, where.size, where.window) == ("city", (8, 12), (0, 6, 8, 6))
    assert where.reference.position(0, 6) == (500_000.0, 4_000_000.0)


def test_what_label_studio_refuses_is_said_in_its_own_words(site: Site, studio: LabelStudio) -> None:
    wrong = {"detail": "Validation error", "validation_errors": {"label_config": ["Label \n twice"], "title": ["long"]}}
    site.replies["/api/projects/"] = Reply(json.dumps(wrong).encode(), 400)
    with pytest.raises(LabelStudioError, match="400 Validation error: label_config: Label twice: title: long"):
        create_project(studio, "t", "<View/>")
    wrong = {"detail": "Validation error", "validation_errors": {"non_field_errors": ['"text" key is expected']}}
    site.replies["/api/projects/7/import?return_task_ids=true"] = Reply(json.dumps(wrong).encode(), 400)
    with pytest.raises(LabelStudioError, match='Validation error: "text" key is expected'):
        add_tasks(studio, 7, [{}])

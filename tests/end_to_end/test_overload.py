"""More clicks than places: the annotator whose click is refused reads so in the real editor, and clicks again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import requests

from backend.demo.backend_process import BackendProcess
from tests.end_to_end.conftest import StartBackend, Studio
from tests.end_to_end.editor import open_editor
from tests.end_to_end.projects import Project, create_project
from tests.end_to_end.scenes import airplane_scene, airplanes, inner_point

pytestmark = pytest.mark.timeout(1800)


@contextmanager
def _others_click(backend: BackendProcess, project: Project, task: int) -> Iterator[None]:
    """Others who click as fast as they are answered, each time somewhere that was not embedded yet."""
    ended = threading.Event()

    def annotator(seed: int) -> None:
        rng = np.random.default_rng(seed)
        with requests.Session() as session:
            session.trust_env = False
            while not ended.is_set():
                x, y = (float(v) for v in rng.uniform(20, 80, 2))
                click = {
                    "id": "p", "type": "keypointlabels", "from_name": "point", "to_name": "image", "is_positive": True,
                    "original_width": 640, "original_height": 640, "image_rotation": 0,
                    "value": {"x": x, "y": y, "width": 0.4, "keypointlabels": ["airplane"]},
                }  # fmt: skip
                data = {"image": project.image, "expression": "the airplane"}
                body = {
                    "tasks": [{"id": task + 1000 + seed, "data": data}], "label_config": project.label_config,
                    "project": f"{project.id}.1", "params": {"context": {"result": [click]}},
                }  # fmt: skip
                session.post(f"{backend.url}/predict", json=body, timeout=60)
                ended.wait(0.01)

    threads = [threading.Thread(target=annotator, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_a_click_that_is_refused_says_so_in_the_editor(
    studio: Studio, personal_access_token: str, start_backend: StartBackend, chromium: Path, artifacts: Path
) -> None:
    scene = airplane_scene()
    backend = start_backend(personal_access_token, PSLG_CLICK_QUEUE="1")
    project = create_project(studio, "Rush hour", scene, "the foobar")
    studio.client.connect_backend(project.id, backend.url)
    (task,) = project.tasks.values()
    with open_editor(studio, chromium, artifacts) as editor:
        editor.open_task(project.id, task)
        editor.auto_annotation()
        place = inner_point(airplanes(scene)[0])
        with _others_click(backend, project, task):
            for number in range(20):
                editor.pick_label("point", "airplane")
                editor.pick_smart_tool("KeyPointTool")
                with editor.page.expect_response(lambda response: "interactive-annotating" in response.url):
                    # A click that was answered in time left a suggestion, which the next one must not hit.
                    editor.page.mouse.click(*editor.position(0.04 + 0.045 * number, 0.04))
                editor.page.wait_for_timeout(700)
                if any("(busy): " in note for note in editor.notes()):
                    break
            else:
                pytest.fail(f"twenty clicks beside three others, none was told that too many wait: {editor.notes()}")
            assert "click again" in " ".join(editor.notes())
            editor.screenshot("busy")
        assert editor.problems == []
        # The others are gone: a click is answered. The refused point stays in the editor until the task is opened anew.
        editor.open_task(project.id, task)
        editor.auto_annotation()
        editor.pick_label("point", "airplane")
        editor.pick_smart_tool("KeyPointTool")
        editor.click(*place)
        editor.accept()
        editor.wait_for_regions(1)

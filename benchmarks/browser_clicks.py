"""From a click to the painted mask in the real editor, by image size: ``python -m benchmarks.browser_clicks``.

A real Label Studio, the backend with the compact config, and Chromium. Every click lies on another object of a drawn
scene that was pre-labelled, so that each is what an annotator's first click on an object is. It ends when pixels under
the click have changed on the canvas.

Every click is paired with a stroke of Label Studio's own brush over the same object, without any backend: from the
button's release until its region is painted. What a click takes beyond that is the backend's and the suggestion's part.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from backend.demo.backend_process import BackendProcess
from backend.demo.label_studio_client import LabelStudioClient
from backend.demo.label_studio_process import LabelStudioProcess, find_program
from dataset_tools.synthetic import Scene
from tests.end_to_end.conftest import Studio
from tests.end_to_end.editor import Editor, open_editor
from tests.end_to_end.projects import create_project
from tests.end_to_end.scenes import airplane_scene, airplanes, corners, inner_point

EXPRESSION = "the airplane in the top of the image"

CANVAS = """([fx, fy]) => { const o = Htx.annotationStore.selected.objects.find(o => o.type === 'image');
  const canvases = [...o.stageRef.container().querySelectorAll('canvas')];
  const x = o.zoomingPositionX + fx * o.stageWidth * o.zoomScale;
  const y = o.zoomingPositionY + fy * o.stageHeight * o.zoomScale;
  const r = window.devicePixelRatio;
  return canvases.map(c => c.getContext('2d').getImageData(x * r + 5, y * r + 5, 1, 1).data.join(',')).join(';'); }"""
"""What all layers of the canvas show beside a point (the click's own dot covers the point itself)."""


def resized(scene: Scene, width: int) -> Scene:
    """The scene with its image ``width`` pixels wide."""
    size = (width, width * scene.image.shape[0] // scene.image.shape[1])
    return replace(scene, image=np.asarray(cv2.resize(scene.image, size, interpolation=cv2.INTER_CUBIC), np.uint8))


def seconds_of_click(editor: Editor, at: tuple[float, float]) -> tuple[float, float]:
    """Seconds until the suggestion is painted, and those of them until Label Studio answered the request."""
    before = editor.page.evaluate(CANVAS, list(at))
    position = editor.position(*at)
    with editor.page.expect_response(lambda response: "interactive-annotating" in response.url) as answered:
        start = time.perf_counter()
        editor.page.mouse.click(*position)
        editor.page.wait_for_function(
            f"([at, before]) => Htx.annotationStore.selected.suggestions.size > 0 && ({CANVAS})(at) !== before",
            arg=[list(at), before],
            polling="raf",
        )
        painted = time.perf_counter() - start
    assert answered.value.ok, answered.value.text()
    timing = answered.value.request.timing
    return painted, (timing["responseEnd"] - timing["requestStart"]) / 1000


def seconds_of_stroke(editor: Editor, across: tuple[tuple[float, float], tuple[float, float]]) -> float:
    """Seconds from the end of a stroke of the ordinary brush until Label Studio has made and painted its region."""
    count = len(editor.brush_regions())
    middle = (across[0][0] + across[1][0]) / 2, (across[0][1] + across[1][1]) / 2
    before = editor.page.evaluate(CANVAS, list(middle))
    editor.page.mouse.move(*editor.position(*across[0]))
    editor.page.mouse.down()
    for place in (middle, across[1]):
        editor.page.mouse.move(*editor.position(*place), steps=3)
    start = time.perf_counter()
    editor.page.mouse.up()
    editor.page.wait_for_function(
        "([at, before, count]) => Htx.annotationStore.selected.regions.filter(r => r.type === 'brushregion' &&"
        f" !r.isDrawing).length > count && ({CANVAS})(at) !== before",
        arg=[list(middle), before, count],
        polling="raf",
    )
    return time.perf_counter() - start


def measure(sides: list[int], rounds: int, folder: Path) -> dict[str, dict[str, float]]:
    """Medians by image width, in seconds."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "no Chromium on PATH"
    scene, results = airplane_scene(), {}
    left, _, right = airplanes(scene)
    with LabelStudioProcess(find_program(), folder / "label-studio") as process:
        process.start()
        with contextlib.closing(LabelStudioClient(process.url, process.token)) as client:
            studio = Studio(process, client)
            backend = BackendProcess(folder / "backend", process.url, client.personal_access_token())
            backend.start_and_wait()
            try:
                for side in sides:
                    project = create_project(studio, f"Width {side}", resized(scene, side), EXPRESSION)
                    client.connect_backend(project.id, backend.url)
                    client.retrieve_predictions(project.id, list(project.tasks.values()))
                    print(f"{side} px ...", file=sys.stderr, flush=True)
                    with open_editor(studio, Path(chromium), folder) as editor:
                        editor.open_task(project.id, project.tasks[EXPRESSION])
                        editor.auto_annotation()
                        found = []
                        for number in range(rounds):
                            target = (left, right)[number % 2]
                            editor.pick_label("point", "airplane")
                            editor.pick_smart_tool("KeyPointTool")
                            clicked = seconds_of_click(editor, inner_point(target))
                            editor.accept()
                            delete_all_but_one(editor)
                            editor.pick_label("mask", "airplane")
                            found.append((*clicked, seconds_of_stroke(editor, corners(target, 0))))
                            delete_all_but_one(editor)
                        editor.screenshot(f"width-{side}")
                    painted, answered, stroke = zip(*found, strict=True)
                    results[str(side)] = {
                        "first": painted[0],
                        "painted": statistics.median(painted[2:]),
                        "answered": statistics.median(answered[2:]),
                        "stroke": statistics.median(stroke[2:]),
                        "beyond": statistics.median(a - b for a, b in zip(painted[2:], stroke[2:], strict=True)),
                    }
                    print(json.dumps(results[str(side)]), file=sys.stderr, flush=True)
            finally:
                backend.stop()
    return results


def delete_all_but_one(editor: Editor) -> None:
    """Leave the pre-label alone."""
    while regions := editor.brush_regions()[1:]:
        editor.delete_region(regions[-1]["id"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 1024, 2048, 4096], help="image widths in pixels")
    parser.add_argument("--rounds", type=int, default=8, help="clicks per width, on two objects in turn")
    parser.add_argument("--keep", type=Path, help="folder for the screenshots; a temporary one without")
    arguments = parser.parse_args()
    if arguments.rounds < 3:
        parser.error(f"--rounds {arguments.rounds}: the first two are warm-up; give at least 3")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        results = measure(arguments.sides, arguments.rounds, Path(folder))
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            for picture in Path(folder).glob("*.png"):
                shutil.copy(picture, arguments.keep)
    if arguments.json:
        print(json.dumps(results))
        return
    print(f"{'width':>8}{'first click':>14}{'painted':>10}{'answered':>10}{'own brush':>11}{'beyond':>9}   (seconds)")
    for side, row in results.items():
        print(
            f"{side:>8}{row['first']:14.2f}{row['painted']:10.2f}{row['answered']:10.2f}{row['stroke']:11.2f}{row['beyond']:9.2f}"
        )


if __name__ == "__main__":
    main()

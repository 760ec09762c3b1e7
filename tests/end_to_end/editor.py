"""Label Studio's editor in a real browser, driven as an annotator drives it (selectors of Label Studio 1.23)."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PillowImage
from playwright.sync_api import Page, Response, sync_playwright

from tests.end_to_end.conftest import Studio

RGB = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

# The host rules keep the browser on the loopback interface.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
]
TIMEOUT = 120_000
"""Milliseconds for one wait: generous, since CI machines are shared."""

PANELS = {"box": "Box around it", "mask": "Brush, by hand"}
"""Control -> title of the panel that it is folded into, in the shipped labeling configs."""
BRUSH_COUNT = "n => Htx.annotationStore.selected.regions.filter(r => r.type === 'brushregion').length === n"
IMAGE = "Htx.annotationStore.selected.objects.find(o => o.type === 'image')"


class Editor:
    """One browser tab, logged in to Label Studio.

    Args:
        page: the tab.
        studio: the Label Studio it shows.
        artifacts: folder for the screenshots.
    """

    def __init__(self, page: Page, studio: Studio, artifacts: Path) -> None:
        self.page = page
        self.studio = studio
        self.artifacts = artifacts
        self.problems: list[str] = []
        page.set_default_timeout(TIMEOUT)
        page.on("pageerror", lambda error: self.problems.append(f"page error: {error}"))
        page.on("response", self._watch)

    def _watch(self, response: Response) -> None:
        if response.status >= 500:
            self.problems.append(f"HTTP {response.status} {response.request.method} {response.url}")

    def log_in(self) -> None:
        self.page.goto(f"{self.studio.url}/user/login/", wait_until="domcontentloaded")
        self.page.fill("input[name=email]", self.studio.process.email)
        self.page.fill("input[name=password]", self.studio.process.password)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(lambda url: "/user/login" not in url)

    def open_task(self, project: int, task: int) -> None:
        """Open a task in the quick view and wait until its image is on the canvas."""
        self.page.goto(f"{self.studio.url}/projects/{project}/data?task={task}", wait_until="domcontentloaded")
        self.wait_for_image()

    def wait_for_image(self) -> None:
        self.page.wait_for_function(
            f"""() => {{ if (!window.Htx || !Htx.annotationStore || !Htx.annotationStore.selected) return false;
            const image = {IMAGE}; return image && image.stageWidth > 50 && image.naturalWidth > 1
            && image.stageRef && document.querySelector('canvas'); }}"""
        )
        self.page.wait_for_timeout(700)

    def wait_for_regions(self, count: int) -> None:
        self.page.wait_for_function(BRUSH_COUNT, arg=count)
        self.page.wait_for_timeout(700)

    def brush_regions(self) -> list[dict[str, Any]]:
        """The masks of the open annotation: labels, id and score of each region, oldest first."""
        found: list[dict[str, Any]] = self.page.evaluate(
            """() => Htx.annotationStore.selected.regions.filter(r => r.type === 'brushregion')
            .map(r => ({labels: r.labels, id: r.cleanId, score: r.score}))"""
        )
        return found

    def unselect(self) -> None:
        """Unselect all regions, so that none is drawn highlighted."""
        self.page.evaluate("() => Htx.annotationStore.selected.unselectAll()")
        self.page.wait_for_timeout(500)

    def screenshot(self, name: str) -> None:
        """Keep the tab as ``<name>.png`` in the artifacts."""
        self.page.screenshot(path=str(self.artifacts / f"{name}.png"))

    def shown_image(self, name: str, width: int, height: int) -> RGB:
        """What the canvas shows (image and regions), cut from a screenshot and scaled to the image's size."""
        self.screenshot(name)
        # The brush's slider lies over the image; it is no part of what is labelled.
        data = self.page.screenshot(style=".lsf-toolbar, .lsf-toolbar * { visibility: hidden !important }")
        screen = np.asarray(PillowImage.open(io.BytesIO(data)).convert("RGB"))
        x0, y0 = self.position(0, 0)
        x1, y1 = self.position(1, 1)
        cut = screen[round(y0) : round(y1), round(x0) : round(x1)]
        assert cut.size, "the image is not on the screen"
        return np.asarray(cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    def painted(self, name: str, image: RGB) -> Mask:
        """bool[H, W]: where the canvas clearly differs from the bare ``image`` (uint8[H, W, 3])."""
        height, width = image.shape[:2]
        shown = self.shown_image(name, width, height)
        blurred = [cv2.GaussianBlur(picture, (0, 0), 2).astype(np.int16) for picture in (shown, image)]
        return np.asarray(np.abs(blurred[0] - blurred[1]).sum(axis=2) > 45)

    def position(self, fx: float, fy: float) -> tuple[float, float]:
        """Page coordinates of a point given as fractions of the image's width and height."""
        found = self.page.evaluate(
            f"""([fx, fy]) => {{ const o = {IMAGE}; const b = o.stageRef.container().getBoundingClientRect();
            return [b.left + o.zoomingPositionX + fx * o.stageWidth * o.zoomScale,
                    b.top + o.zoomingPositionY + fy * o.stageHeight * o.zoomScale]; }}""",
            [fx, fy],
        )
        return float(found[0]), float(found[1])

    def auto_annotation(self) -> None:
        """Switch "Auto-Annotation" on, and "Auto-Accept Suggestions" off."""
        for name, wanted in (("auto-annotation", True), ("auto-accept", False)):
            toggle = self.page.get_by_test_id(f"bottombar-{name}-toggle")
            toggle.wait_for(state="attached")
            if toggle.is_checked() != wanted:
                toggle.evaluate("e => e.click()")
            assert toggle.is_checked() == wanted

    def keep_labels_selected(self) -> None:
        """Switch Label Studio's setting "Keep label selected after creating a region" on."""
        self.page.evaluate("() => Htx.settings.continuousLabeling || Htx.settings.toggleContinuousLabeling()")

    def pick_label(self, control: str, label: str) -> None:
        """Pick a label of one control unless it is picked already."""
        ask = """([control, label]) => { const s = Htx.annotationStore.selected;
            const labelling = c => c.isLabeling !== false && c.type && c.type.endsWith('labels');
            const all = [...s.names.values()].filter(labelling);
            const i = all.findIndex(c => c.name.replace(/@.*/, '') === control);
            const find = n => n.type === 'label' && n._value === label ? n : (n.children || []).map(find).find(Boolean);
            return [i, !!(find(all[i]) || {}).selected]; }"""
        index, picked = self.page.evaluate(ask, [control, label])
        if not picked:
            before = self.position(0, 0)
            place = self.page.locator(".lsf-labels").nth(index)
            if control in PANELS:
                panel = self.page.locator(".ant-collapse-item", has_text=PANELS[control])
                place = panel.locator(".lsf-labels")
                if not place.is_visible():  # a folded panel is not in the page before it was opened once
                    panel.locator(".ant-collapse-header").click()
            place.get_by_text(label, exact=True).first.click()
            assert self.position(0, 0) == pytest.approx(before, abs=1), "the page scrolled away from the image"
        assert self.page.evaluate(ask, [control, label])[1], f"label {label!r} of {control!r} was not picked"

    def wait_for_note(self) -> str:
        """The first sentence in the field for notes, once there is one."""
        self.page.locator(".rs-note").filter(has_text=re.compile(r"\S")).first.wait_for()
        return self.notes()[0]

    def notes(self) -> list[str]:
        """The sentences in the field for notes, as they are shown."""
        return [text.strip() for text in self.page.locator(".rs-note").all_inner_texts() if text.strip()]

    def image_width(self) -> float:
        """Width of the image on the screen in pixels."""
        return float(self.page.evaluate(f"() => {IMAGE}.stageWidth"))

    def label_keys(self) -> dict[str, str]:
        """The key of each label that has one, as the editor itself assigned them, ``control:label`` -> key."""
        found: dict[str, str] = self.page.evaluate(
            """() => { const found = {}; const walk = (c, n) => {
            if (n.type === 'label') found[c.name + ':' + n._value] = n.hotkey;
            (n.children || []).forEach(child => walk(c, child)); };
            [...Htx.annotationStore.selected.names.values()].forEach(c => walk(c, c)); return found; }"""
        )
        return found

    def label_groups_in_sight(self) -> int:
        """How many groups of labels lie within the window as a whole, without scrolling the page."""
        return int(
            self.page.evaluate(
                """() => [...document.querySelectorAll('.lsf-labels')].map(e => e.getBoundingClientRect())
                .filter(r => r.height > 30 && r.top >= 0 && r.bottom <= window.innerHeight).length"""
            )
        )

    def pick_smart_tool(self, tool: str) -> None:
        """Pick ``KeyPointTool`` or ``RectangleTool`` from the "Auto-Detect" fly-out.

        Picking a label selects the ordinary tool, so the label comes first. With a single smart tool there is no
        fly-out: the button itself is the tool.
        """
        name = {"KeyPointTool": "key-point-tool", "RectangleTool": "rectangle-tool"}[tool]
        button = self.page.locator(".lsf-toolbar .lsf-tool_smart").first
        button.hover()
        self.page.wait_for_timeout(300)
        in_flyout = self.page.locator(f".lsf-toolbar__smart [aria-label='{name}']")
        (in_flyout.first if in_flyout.count() else button).click(force=True)
        self.page.mouse.move(5, 5)
        picked = self.page.evaluate(
            f"""() => {IMAGE}.getToolsManager().allTools().filter(t => t.selected).map(t => [t.toolName, t.dynamic])"""
        )
        assert [tool, True] in picked, picked

    def click(self, fx: float, fy: float, *, negative: bool = False, on_region: bool = False) -> None:
        """A smart click; returns when the suggestion is there.

        Alt makes it negative. Ctrl lets it through an existing region, which a plain click would select.
        """
        keys = ["Alt"] * negative + ["Control"] * on_region
        for key in keys:
            self.page.keyboard.down(key)
        with self._suggestion():
            self.page.mouse.click(*self.position(fx, fy))
        for key in keys:
            self.page.keyboard.up(key)

    def clicks_in_a_row(self, *places: tuple[float, float, bool], before: int = 0) -> None:
        """Smart clicks (x, y, positive), none of which waits for the answer to the one before.

        ``before`` is how many clicks the object has already: the editor sends them again.
        """
        count = before + len(places)
        with self.page.expect_response(
            lambda response: (
                "interactive-annotating" in response.url
                and len((response.request.post_data_json or {})["context"]["result"]) == count
            )
        ) as answered:
            for fx, fy, positive in places:
                if not positive:
                    self.page.keyboard.down("Alt")
                self.page.mouse.click(*self.position(fx, fy))
                if not positive:
                    self.page.keyboard.up("Alt")
        assert answered.value.ok, answered.value.text()
        self._wait_for_suggestion()

    def drag_box(self, start: Sequence[float], end: Sequence[float]) -> None:
        """A smart box between two corners (fractions); returns when the suggestion is there."""
        with self._suggestion():
            self.page.mouse.move(*self.position(start[0], start[1]))
            self.page.mouse.down()
            self.page.mouse.move(*self.position((start[0] + end[0]) / 2, (start[1] + end[1]) / 2), steps=4)
            self.page.mouse.move(*self.position(end[0], end[1]), steps=4)
            self.page.mouse.up()

    def prompt(self, text: str) -> None:
        """Type a referring expression; returns when the suggestion is there."""
        self.page.locator(".rs-prompt [data-testid='textarea-input']").fill(text)
        with self._suggestion():
            self.page.keyboard.press("Enter")

    @contextlib.contextmanager
    def _suggestion(self) -> Iterator[None]:
        with self.page.expect_response(lambda response: "interactive-annotating" in response.url) as answered:
            yield
        assert answered.value.ok, answered.value.text()
        body = answered.value.json()
        assert body.get("data", {}).get("result"), f"the backend suggested nothing: {str(body)[:500]}"
        self._wait_for_suggestion()

    def _wait_for_suggestion(self) -> None:
        self.page.wait_for_function(
            "() => Htx.annotationStore.selected.suggestions.size > 0 && !Htx.awaitingSuggestions"
        )
        self.page.wait_for_timeout(700)

    def accept(self) -> None:
        self.page.get_by_test_id("bottombar-accept-suggestions-button").click()
        self.page.wait_for_function("() => Htx.annotationStore.selected.suggestions.size === 0")
        self.page.wait_for_timeout(700)

    def reject(self) -> None:
        """Reject all suggestions, as the cross below the image does."""
        self.page.get_by_test_id("bottombar-reject-suggestions-button").click()
        self.page.wait_for_function("() => Htx.annotationStore.selected.suggestions.size === 0")
        self.page.wait_for_timeout(700)

    def delete_region(self, identity: str) -> None:
        """Select a region and press Backspace."""
        count = len(self.brush_regions())
        self.page.evaluate(
            """id => { const a = Htx.annotationStore.selected;
            a.selectArea(a.regions.find(r => r.cleanId === id)); }""",
            identity,
        )
        self.page.keyboard.press("Backspace")
        self.page.wait_for_function(BRUSH_COUNT, arg=count - 1)

    def submit(self) -> None:
        """Submit the annotation; returns when Label Studio has stored it."""
        with self.page.expect_response(
            lambda response: "/annotations" in response.url and response.request.method == "POST"
        ) as stored:
            self.page.get_by_test_id("bottombar-submit-button").click()
        assert stored.value.ok, stored.value.text()
        self.wait_for_image()

    def update(self) -> None:
        """Update the submitted annotation; returns when Label Studio has stored it."""
        with self.page.expect_response(
            lambda response: "/annotations" in response.url and response.request.method == "PATCH"
        ) as stored:
            self.page.get_by_test_id("bottombar-update-button").click()
        assert stored.value.ok, stored.value.text()
        self.wait_for_image()


@contextlib.contextmanager
def open_editor(studio: Studio, chromium: Path, artifacts: Path) -> Iterator[Editor]:
    """A logged-in Editor; the browser is closed at the end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), headless=True, args=ARGUMENTS)
        try:
            editor = Editor(browser.new_page(viewport={"width": 1500, "height": 950}), studio, artifacts)
            editor.log_in()
            yield editor
        finally:
            browser.close()

"""An expression asked of a whole scene: its objects once each, the scene's extremes, the map's directions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from rasterio.transform import Affine

from backend.pipeline import PslgSam, load_pipeline
from backend.pipeline.grounding.compact.grounder import CompactGrounder
from backend.pipeline.map_scene import SceneAnswer, prelabel_scene
from dataset_tools import synthetic
from dataset_tools.errors import ConfigError
from dataset_tools.maps.objects import MapObject
from dataset_tools.maps.scene import open_scene
from tests.dataset_tools.maps.geotiffs import UTM, write


@pytest.fixture(scope="module")
def pipeline() -> PslgSam:
    return load_pipeline("compact")


@pytest.fixture(scope="module")
def drawn() -> tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.bool_]]]:
    """Airports side by side, 2400 x 1200 px, larger than a tile; the image and the masks of its airplanes."""
    image = np.zeros((1200, 2400, 3), np.uint8)
    planes = []
    for row in range(2):
        for column in range(3):
            scene = synthetic.draw_scene(900 + 3 * row + column, 800, 600, "airport")
            y, x = 600 * row, 800 * column
            image[y : y + 600, x : x + 800] = scene.image
            for item in scene.objects:
                if item.category == "airplane":
                    mask = np.zeros(image.shape[:2], bool)
                    mask[y : y + 600, x : x + 800] = item.mask
                    planes.append(mask)
    return image, planes


def asked(pipeline: PslgSam, path: Path, expression: str, **options: Any) -> SceneAnswer:
    with open_scene(path) as scene:
        return prelabel_scene(pipeline, scene, expression, **options)


def overlap(item: MapObject, mask: npt.NDArray[np.bool_]) -> float:
    found = item.inside(0, 0, mask.shape[1], mask.shape[0])
    return float((found & mask).sum() / (found | mask).sum())


def test_all_of_a_scene_once_each(
    pipeline: PslgSam, drawn: tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.bool_]]], tmp_path: Path
) -> None:
    image, planes = drawn
    path = write(tmp_path / "airports.tif", image.transpose(2, 0, 1), UTM)
    found = asked(pipeline, path, "all the airplanes").objects
    hits = [max(overlap(item, mask) for item in found) for mask in planes]
    assert np.mean(np.array(hits) > 0.5) > 0.85
    assert len(found) <= len(planes) + 2  # none is there once more for the tile beside it
    assert {item.category for item in found} == {"airplane"}


def test_directions_are_the_maps(
    pipeline: PslgSam, drawn: tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.bool_]]], tmp_path: Path
) -> None:
    """The same pixels turned by half a circle and placed so: the northernmost is the lowest in the image.

    The last 140 rows are left off: the lowest three there lie within 4 m of each other, where a question is right.
    """
    image = drawn[0][:1060]
    planes = [mask for mask in drawn[1] if not mask[1060:].any()]
    lowest = max(planes, key=lambda mask: float(np.nonzero(mask)[0].mean()))
    turned = Affine(-0.5, 0, 501_200, 0, 0.5, 3_999_400)
    path = write(tmp_path / "turned.tif", image.transpose(2, 0, 1), ("EPSG:32633", turned))
    (item,) = asked(pipeline, path, "the northernmost airplane").objects
    assert overlap(item, lowest[:1060]) > 0.5
    rows = np.nonzero(item.inside(0, 0, 2400, 1060))[0]
    plain = write(tmp_path / "plain.tif", image.transpose(2, 0, 1), UTM)
    (other,) = asked(pipeline, plain, "the northernmost airplane").objects
    assert np.nonzero(other.inside(0, 0, 2400, 1060))[0].mean() < rows.mean()


def test_of_three_at_one_height_the_northernmost_is_asked_for(
    pipeline: PslgSam, drawn: tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.bool_]]], tmp_path: Path
) -> None:
    turned = Affine(-0.5, 0, 501_200, 0, 0.5, 3_999_400)
    path = write(tmp_path / "turned.tif", drawn[0].transpose(2, 0, 1), ("EPSG:32633", turned))
    answer = asked(pipeline, path, "the northernmost airplane")
    assert not answer.objects
    assert answer.abstention is not None
    assert answer.abstention.code == "ambiguous"


def test_a_run_that_was_stopped_searches_only_what_is_left(
    pipeline: PslgSam, drawn: tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.bool_]]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = write(tmp_path / "a.tif", drawn[0].transpose(2, 0, 1), UTM)
    journal = tmp_path / "a.part.jsonl"

    class Killed(BaseException):
        pass

    def first_only(what: str, items: Sequence[Any]) -> Iterable[Any]:
        yield items[0]
        raise Killed

    whole = asked(pipeline, path, "all the airplanes")
    with pytest.raises(Killed):
        asked(pipeline, path, "all the airplanes", journal=journal, track=first_only)
    searched = []
    detections = CompactGrounder.detections

    def counted(grounder: Any, image: Any) -> Any:
        searched.append(image.shape)
        return detections(grounder, image)

    monkeypatch.setattr(CompactGrounder, "detections", counted)
    again = asked(pipeline, path, "all the airplanes", journal=journal)
    assert len(searched) == 2  # of three tiles and the reduced whole
    assert [(o.x, o.y, o.mask.sum()) for o in again.objects] == [(o.x, o.y, o.mask.sum()) for o in whole.objects]


def test_what_is_not_there_abstains(
    pipeline: PslgSam, drawn: tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.bool_]]], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.tif", drawn[0][:600, :800].transpose(2, 0, 1), UTM)
    for expression, code in {"the roundabout": "absent", "the windmill": "unknown-category"}.items():
        found = asked(pipeline, path, expression)
        assert found.objects == ()
        assert found.abstention is not None
        assert found.abstention.code == code


def test_a_grounder_that_needs_image_and_words_at_once_is_refused(pipeline: PslgSam, tmp_path: Path) -> None:
    class Other:
        known_categories = None

    path = write(tmp_path / "a.tif", np.zeros((3, 40, 50), np.uint8), UTM)
    other = PslgSam(Other(), pipeline.segmenter, pipeline.config, "x-00000000")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="kind compact"):
        asked(other, path, "the ship")

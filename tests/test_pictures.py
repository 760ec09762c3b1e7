"""The same file is the same RGB array for the server, every command, dataset, trainer, and the gate."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from PIL import Image

from backend.commands.prelabel import prelabel
from backend.database import Database
from backend.learning.retraining import gate, verdict
from backend.pipeline.grounding.lqvg.inference import Tokenizer
from backend.pipeline.grounding.lqvg.letterbox import normalize
from backend.pipeline.pslg_sam import PslgSam
from backend.pipeline.segmentation.sam import SamSegmenter
from backend.pipeline.types import Abstention, Prelabels
from backend.server.images import TaskImages
from backend.settings import Settings
from backend.training.decoder.samples import decoder_samples
from backend.training.grounder.data import load_folder
from backend.training.lqvg.data import GroundingBatches, grounding_examples
from backend.training.segmenter.samples import training_scenes
from dataset_tools import formats, image_files, labelled, sources
from dataset_tools.checks.validate import validate
from dataset_tools.export import export
from dataset_tools.maps import tiles
from dataset_tools.masks import to_coco_rle
from tests.pictures import RGB, Picture, pictures
from tests.pipeline.segmentation.small_sams import small_vit_sam
from tests.server.conftest import Site, site

__all__ = ["site"]  # a fixture

ROOT = Path(__file__).resolve().parents[1]
EXPRESSION = "the ship"


@pytest.fixture(scope="module")
def table() -> dict[str, Picture]:
    return {picture.file_name: picture for picture in pictures()}


@pytest.fixture(scope="module")
def folder(table: dict[str, Picture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pictures as a dataset with one ship in each."""
    root = tmp_path_factory.mktemp("dataset")
    (root / "images").mkdir()
    images, annotations, lines = [], [], []
    for number, picture in enumerate(table.values(), start=1):
        (root / "images" / picture.file_name).write_bytes(picture.data)
        height, width = picture.seen.shape[:2]
        ship = mask(picture)
        entry = {"id": number, "file_name": picture.file_name, "width": width, "height": height}
        images.append({**entry, "scene": f"scene {number}"})
        annotations.append(
            {
                "id": number, "image_id": number, "category_id": 1, "bbox": [10, 10, 6, 6], "area": 36, "iscrowd": 0,
                "segmentation": to_coco_rle(ship),
            }
        )  # fmt: skip
        line = {"id": number, "image": picture.file_name, "expression": EXPRESSION, "category": "ship"}
        lines.append(json.dumps({**line, "kind": "instance", "ann_ids": [number]}))
    categories = [{"id": 1, "name": "ship"}]
    index = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations.json").write_text(json.dumps(index))
    (root / "expressions.jsonl").write_text("\n".join(lines) + "\n")
    (root / "split.json").write_text(json.dumps({"train": list(table)}))
    return root


def mask(picture: Picture) -> npt.NDArray[np.bool_]:
    ship = np.zeros(picture.seen.shape[:2], bool)
    ship[10:16, 10:16] = True
    return ship


class Recorder:
    """Stands where a pipeline does and keeps the pictures that it is asked about."""

    model_version = "recorder"

    def __init__(self) -> None:
        self.seen: list[RGB] = []
        self.grounder = SimpleNamespace(known_categories=frozenset())

    def exemplar_matcher(self) -> None:
        """It finds nothing by examples."""

    def prelabel(self, image: RGB, expression: str, **options: Any) -> Prelabels:
        self.seen.append(image)
        return Prelabels((), Abstention("absent", "nothing is ever found"))


Consumer = Callable[[Path, dict[str, Picture], Path, pytest.MonkeyPatch, Site], dict[str, RGB]]
CONSUMERS: dict[str, Consumer] = {}


def consumer(function: Consumer) -> Consumer:
    CONSUMERS[function.__name__] = function
    return function


@consumer
def server(
    folder: Path, table: dict[str, Picture], place: Path, patch: pytest.MonkeyPatch, site: Site
) -> dict[str, RGB]:
    database = Database(place / "server.sqlite3")
    images = TaskImages(Settings(image_hosts=("127.0.0.1",), state_dir=place), None, database)
    found: dict[str, RGB] = {}
    for name, picture in table.items():
        image = images.load(site.put(f"/{name}", picture.data))
        found[name] = image.pixels()
        assert image.size == picture.seen.shape[:2]
    database.close()
    return found


@consumer
def prelabel_command(
    folder: Path, table: dict[str, Picture], place: Path, patch: pytest.MonkeyPatch, site: Site
) -> dict[str, RGB]:
    recorder = Recorder()
    patch.setattr("backend.pipeline.load_pipeline", lambda _config: recorder)
    for name in table:
        done = CliRunner().invoke(prelabel, [str(folder / "images" / name), EXPRESSION])
        assert done.exit_code == 3, done.output
    return dict(zip(table, recorder.seen, strict=True))


@consumer
def export_command(
    folder: Path, table: dict[str, Picture], place: Path, patch: pytest.MonkeyPatch, site: Site
) -> dict[str, RGB]:
    lossless = [s for s in formats.read(folder, "coco_jsonl") if not s.image.file_name.endswith(".jpg")]
    # Names of their own: of x.png and x.tif one would be renamed.
    renamed = [
        replace(s, image=replace(s.image, file_name=s.image.file_name.replace(".", "_") + ".png")) for s in lossless
    ]
    assert export(renamed, place / "out", "coco_jsonl").failed == []
    return {
        old.image.file_name: np.asarray(Image.open(place / "out" / "images" / new.image.file_name))
        for old, new in zip(lossless, renamed, strict=True)
    }


@consumer
def tile_command(
    folder: Path, table: dict[str, Picture], place: Path, patch: pytest.MonkeyPatch, site: Site
) -> dict[str, RGB]:
    found = {}
    for name in table:
        (only,) = tiles.tile(folder / "images" / name, place / name, 1024, 0)
        found[name] = image_files.read(only)  # where the scene holds nothing the tile is transparent
    return found


@consumer
def grounder_trainer(
    folder: Path, table: dict[str, Picture], place: Path, patch: pytest.MonkeyPatch, site: Site
) -> dict[str, RGB]:
    return {image.name: image.image for image in load_folder(folder, None, 4096, {})}


@consumer
def segmenter_trainer(
    folder: Path, table: dict[str, Picture], place: Path, patch: pytest.MonkeyPatch, site: Site
) -> dict[str, RGB]:
    return {scene.name: scene.image for scene in training_scenes(labelled.read(folder))}


@consumer
def decoder_trainer(
    folder: Path, table: dict[str, Picture], place: Path, patch: pytest.MonkeyPatch, site: Site
) -> dict[str, RGB]:
    seen: list[RGB] = []

    def embed(image: RGB) -> Callable[[], npt.NDArray[np.floating]]:
        seen.append(image)
        return lambda: np.zeros((1, 1, 1))

    decoder_samples(SamSegmenter(small_vit_sam()), labelled.read(folder), views=0, embed=embed)
    return dict(zip(table, seen, strict=True))


@consumer
def lqvg_trainer(
    folder: Path, table: dict[str, Picture], place: Path, patch: pytest.MonkeyPatch, site: Site
) -> dict[str, RGB]:
    """Says so itself where its normalised pixels differ."""
    tokenizer = Tokenizer(lambda _text: [0, 2], vocabulary=50)
    for example in grounding_examples(folder, "train"):
        picture = table[example.image.name]
        height, width = picture.seen.shape[:2]
        batches = GroundingBatches(
            [example], tokenizer, seed=0, batch_size=1, sides=[min(height, width)], longest=max(height, width)
        )
        image = batches[0].images[0, :, :height, :width].numpy()
        assert np.array_equal(image, normalize(picture.seen)), picture.file_name
    return {}


@consumer
def promotion_gate(
    folder: Path, table: dict[str, Picture], place: Path, patch: pytest.MonkeyPatch, site: Site
) -> dict[str, RGB]:
    recorder, images = Recorder(), labelled.read(folder)
    pipeline = cast("PslgSam", recorder)
    gate.compare(pipeline, pipeline, images, [], rules=verdict.Rules(objects=1, images=1))
    return dict(zip([*table, *table], recorder.seen, strict=True))


@pytest.mark.parametrize("name", CONSUMERS)
def test_every_consumer_sees_the_same_picture(
    name: str, folder: Path, table: dict[str, Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    found = CONSUMERS[name](folder, table, tmp_path, monkeypatch, site)
    wrong = [
        file_name
        for file_name, image in found.items()
        if image.dtype != np.uint8 or not np.array_equal(image, table[file_name].seen)
    ]
    assert wrong == []


def test_checks_read_every_picture_and_name_those_that_loaders_misread(folder: Path, table: dict[str, Picture]) -> None:
    report = validate(folder)
    assert not {"image-unreadable", "image-size"} & {finding.code for finding in report.findings}
    misread = {f.image for f in report.findings if f.code == "image-mode"}
    plain = {"rgb.png", "rgb.tif", "rgb.webp", "rgb.jpg", *(f"exif{n}.png" for n in range(1, 9))}
    assert set(table) - misread == plain


def test_near_duplicates_are_found_across_kinds_of_files(folder: Path) -> None:
    same = ("rgb.png", "rgb.tif", "exif6.png", "nir_as_alpha.tif", "four_bands.tif")
    samples = [s for s in formats.read(folder, "coco_jsonl") if s.image.file_name in same]
    assert len(samples) == len(same)
    assert len(set(sources.deal_splits(lambda: iter(samples)).values())) == 1


def test_no_other_module_opens_pictures() -> None:
    """A reader of its own sees other pixels sooner or later: masks of datasets are all that may be read elsewhere."""
    reading = re.compile(r"Image\.open\(|\.imread\(|imreadmulti\(|TiffFile\(|exif_transpose\(")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in [*ROOT.glob("backend/**/*.py"), *ROOT.glob("dataset_tools/**/*.py"), *ROOT.glob("benchmarks/*.py")]
        if path.name != "image_files.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if reading.search(line) and "IMREAD_GRAYSCALE" not in line
    ]
    assert found == []


def test_read_is_the_reader(folder: Path, table: dict[str, Picture]) -> None:
    for name, picture in table.items():
        assert np.array_equal(image_files.read(folder / "images" / name), picture.seen), name

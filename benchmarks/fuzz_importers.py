"""Everything that is read, damaged: datasets, exports, pictures, brush codes, weights. For ``benchmarks.fuzz``."""

from __future__ import annotations

import contextlib
import json
import pickle
import random
import shutil
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backend.pipeline.grounding.lqvg import load_lqvg
from benchmarks.mutations import SLOW, Keep, Outcome, changed_bytes, changed_json, dumped, picture
from dataset_tools import brush_rle, export, formats, image_files, sources, statistics
from dataset_tools.checks.validate import validate
from dataset_tools.errors import PslgError
from dataset_tools.formats import refer
from dataset_tools.label_studio.import_rules import ImportRules
from dataset_tools.records import Provenance, Record, Sample, SourceImage, target_of

__all__ = ["fuzz_importers"]

CASES = Path(__file__).parents[1] / "tests" / "data" / "cases"


def datasets(folder: Path) -> dict[str, Path]:
    """A small dataset in every format that is written and read, and a Label Studio export."""
    samples = []
    for number in range(2):
        (folder / "source").mkdir(parents=True, exist_ok=True)
        path = folder / "source" / f"{number}.png"
        path.write_bytes(picture(number))
        mask = np.zeros((40, 48), bool)
        mask[5:25, 8 + number : 30] = True
        target = target_of(mask)
        records = tuple(
            Record(words, "building", (target,), "train", "plain", Provenance(source="fuzz"), 10 * number + index)
            for index, words in enumerate(("the building", "the upper building"))
        )
        samples.append(Sample(SourceImage(f"{number}.png", 48, 40, str(path)), records))
    made = {}
    for name in formats.READ:
        if formats.FORMATS[name].writer is None:
            continue
        with contextlib.suppress(PslgError):  # an optional package is missing
            export.export(iter(samples), folder / name, name)
            made[name] = folder / name
    return made


def fuzz_importers(count: int, seed: int, folder: Path, keep: Keep) -> Outcome:
    """``count`` damaged files, each read as a user's command would."""
    rng, found = random.Random(seed), Outcome()
    tries: list[tuple[str, Callable[[], object]]] = []
    for name, root in datasets(folder).items():
        files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.name not in ("README.md",)]
        index = [path for path in files if path.suffix not in (".png", ".tif", ".jpg")]
        tries.append((name, partial(damage, rng, root, index, name, keep)))
    cases = [json.loads(path.read_bytes()) for path in sorted(CASES.glob("*.json"))]
    tries += [("label studio export", lambda: damaged_export(rng, rng.choice(cases), folder, keep))] * 2
    pictures = [picture(1), *(path.read_bytes() for path in sorted(CASES.glob("*.tif")))]
    tries += [("picture", lambda: damaged_picture(rng, rng.choice(pictures), keep))]
    tries += [("brush code", lambda: damaged_code(rng, keep))] * 3
    tries += [("lqvg weights", lambda: damaged_weights(rng, folder, keep))]
    for number in range(count):
        name, run = tries[number % len(tries)]
        begin = time.process_time()
        try:
            run()
            answer = "read"
        except PslgError as error:
            answer = type(error).__name__
        except Exception as error:  # whatever it is, that is what is looked for
            answer = f"{name}: {type(error).__name__}"
            found.wrong.append(f"importers {number}: {name}: {_where(error)}")
            keep.wrong(name.replace(" ", "-"), number)
        seconds = time.process_time() - begin
        found.inputs += 1
        found.slowest = max(found.slowest, seconds)
        found.answers[answer] += 1
        if seconds > SLOW:
            found.wrong.append(f"importers {number}: {name}: {seconds:.1f} s")
            keep.wrong(name.replace(" ", "-"), number)
    return found


def _where(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    last = next((f for f in reversed(frames) if "_tools/" in f.filename or "backend/" in f.filename), frames[-1])
    return f"{type(error).__name__}: {str(error)[:160]} ({Path(last.filename).name}:{last.lineno})"


def damage(rng: random.Random, root: Path, index: list[Path], name: str, keep: Keep) -> None:
    """Change one index file of a dataset, read everything, and put the file back."""
    file = rng.choice(index)
    before = file.read_bytes()
    data = _changed_file(rng, file, before)
    keep.now(f"{name} {file.relative_to(root)}\n".encode() + data)
    outside = sorted(root.parent.iterdir())
    file.write_bytes(data)
    try:
        for sample in formats.read(root, name, lambda _row: None):
            for record in sample.records:
                sample.area(record)
        if rng.random() < 0.1:
            validate(root, name, pixels=False)
        if rng.random() < 0.05:
            statistics.collect(formats.read(root, name, lambda _row: None))
    finally:
        file.write_bytes(before)
        shutil.rmtree(root / "unpacked", ignore_errors=True)
        if sorted(root.parent.iterdir()) != outside:
            raise AssertionError(f"{name} wrote beside its folder")


def _changed_file(rng: random.Random, file: Path, data: bytes) -> bytes:
    """A JSON file or a pickle is changed as what it holds, half of the time; everything else byte by byte."""
    if rng.random() < 0.5:
        if file.suffix == ".json":
            return dumped(changed_json(rng, json.loads(data)))
        if file.suffix == ".jsonl":
            lines = data.splitlines()
            at = rng.randrange(len(lines))
            lines[at] = dumped(changed_json(rng, json.loads(lines[at])))
            return b"\n".join(lines)
        if file.suffix == ".p":
            with contextlib.suppress(RecursionError, OverflowError):
                return pickle.dumps(changed_json(rng, refer.load_refs(file)), 2)
    return changed_bytes(rng, data)


def damaged_export(rng: random.Random, tasks: Any, folder: Path, keep: Keep) -> None:
    """A JSON export of Label Studio."""
    file = folder / "export.json"
    data = dumped(changed_json(rng, tasks)) if rng.random() < 0.8 else changed_bytes(rng, dumped(tasks))
    keep.now(b"export\n" + data)
    file.write_bytes(data)
    for sample in sources.open_source(file, None, ImportRules(images=CASES / "uploads"), [])():
        for record in sample.records:
            sample.area(record)


def damaged_picture(rng: random.Random, data: bytes, keep: Keep) -> None:
    """A PNG or TIFF file."""
    changed = changed_bytes(rng, data)
    keep.now(b"picture\n" + changed)
    image_files.decode(changed, max_pixels=1_000_000)


def damaged_code(rng: random.Random, keep: Keep) -> None:
    """A brush code: random, or a good one changed."""
    height, width = rng.randrange(1, 40), rng.randrange(1, 40)
    mask = np.frombuffer(rng.randbytes(height * width), np.uint8).reshape(height, width) > 200
    code: Any = list(changed_bytes(rng, bytes(brush_rle.encode(mask))))
    if rng.random() < 0.2:
        code = changed_json(rng, code)
    keep.now(b"brush code\n" + repr(code).encode()[:10_000])
    brush_rle.decode(code, height, width)


def damaged_weights(rng: random.Random, folder: Path, keep: Keep) -> None:
    """A checkpoint that is none."""
    file = folder / "weights.pth"
    data = changed_bytes(rng, rng.choice((b"PK\x03\x04", b"\x80\x02", b"", b"\x80\x02}q\x00.")) + rng.randbytes(300))
    keep.now(b"weights\n" + data)
    file.write_bytes(data)
    load_lqvg(file)

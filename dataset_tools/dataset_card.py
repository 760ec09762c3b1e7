"""``dataset.json`` and the dataset card (README.md) that go with every export."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dataset_tools import atomic
from dataset_tools.formats import FORMATS
from dataset_tools.records import Sample

_VERSION = 1


class DatasetCard:
    """What an export of a format holds, counted sample by sample."""

    def __init__(self, format_name: str) -> None:
        self._name = format_name
        self._format = FORMATS[format_name]
        parts = ("split", "category", "kind", "origin", "model_version", "source")
        self._counts = {name: Counter[str]() for name in parts}
        self._images = self._objects = self._left_behind = 0
        self._scenes: set[str] = set()
        self._sizes = Counter[str]()

    def add(self, sample: Sample) -> None:
        """Count a sample."""
        absent, image = self._format.absent, sample.image
        self._left_behind += sum(bool(r.expression) and not r.targets and not absent for r in sample.records)
        held = [r for r in sample.records if r.targets and (self._format.objects or r.expression)]
        if self._format.words_only and not held:
            return
        self._images += 1
        self._objects += len({(r.category, t.counts if t.id is None else t.id) for r in held for t in r.targets})
        self._scenes.add(image.cut_from or image.file_name)
        self._sizes[f"{image.width} x {image.height}"] += 1
        for record in sample.records:
            if record.expression and (record.targets or absent):
                provenance = record.provenance
                for name, value in {
                    "split": record.split, "category": record.category, "kind": record.kind,
                    "origin": provenance.origin, "model_version": provenance.model_version, "source": provenance.source,
                }.items():  # fmt: skip
                    self._counts[name][value or "not known"] += 1

    def write(self, root: Path, details: dict[str, Any], failed: Sequence[tuple[str, str]]) -> None:
        """Write both files.

        Args:
            root: the dataset's folder.
            details: ``name``, ``licence``, ``source``, ``command``, ``split`` and whatever else belongs into
                dataset.json.
            failed: (file name, why) of images that were left out.
        """
        counts = self._counts
        description = {
            "version": _VERSION, "format": self._name, "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "images": self._images, "objects": self._objects, "scenes": len(self._scenes),
            "expressions": sum(counts["category"].values()),
            **{f"by_{name}": dict(counter.most_common()) for name, counter in counts.items()},
            "absent_left_behind": self._left_behind, "image_sizes": dict(self._sizes.most_common(10)),
            "left_out": [list(pair) for pair in failed], **details,
        }  # fmt: skip
        atomic.write_text(root / "dataset.json", json.dumps(description, indent=1) + "\n")
        atomic.write_text(root / "README.md", _card(root.name, description))


def _card(name: str, description: dict[str, Any]) -> str:
    licence = _plain(description.get("licence") or "not stated; ask the owner of the images before passing it on")
    made = [key for key in ("source", "command", "created", "split_rule") if description.get(key)]
    tables = {
        "Splits": "by_split", "Categories": "by_category", "Kinds of expression": "by_kind", "Masks": "by_origin",
        "Models": "by_model_version",
    }  # fmt: skip
    parts = [
        *_head(description),
        f"# {_plain(description.get('name') or name.strip('.').partition('.')[0])}",
        "Referring segmentation of overhead images: an image, an expression, the mask of what it describes.",
        f"{description['expressions']:,} expressions and {description['objects']:,} objects on"
        f" {description['images']:,} images "
        f"of {description['scenes']:,} scenes. Format: `{description['format']}`. Licence: {licence}.",
        *(_table(title, description[key]) for title, key in tables.items()),
        "## How it was made\n\n" + "\n".join(f"- {key}: {_plain(description[key])}" for key in made),
    ]
    if description["left_out"]:
        lines = (f"- {_plain(name)}: {_plain(why)}" for name, why in description["left_out"])
        parts.append("## Left out\n\n" + "\n".join(lines))
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(description: dict[str, Any]) -> list[str]:
    """The YAML by which ``datasets.load_dataset(folder)`` finds the splits, for the format that it reads."""
    if description["format"] != "huggingface":
        return []
    splits = sorted({"train" if split == "not known" else split for split in description["by_split"]})
    files = [line for split in splits for line in (f"  - split: {split}", f"    path: data/{split}-*")]
    tasks = ["task_categories:", "- image-segmentation", "configs:", "- config_name: default", "  data_files:"]
    return ["\n".join(["---", f"pretty_name: {json.dumps(description['name'])}", *tasks, *files, "---"])]


def _plain(text: object) -> str:
    """Words from a dataset as Markdown that only shows them: in one line, without HTML, links and columns."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def _table(title: str, counts: dict[str, int]) -> str:
    if set(counts) <= {"not known"}:
        return ""
    rows = "\n".join(f"| {_plain(name)} | {number:,} |" for name, number in counts.items())
    return f"## {title}\n\n| | expressions |\n|---|---|\n{rows}"

"""What a dataset holds, in numbers and plots: categories, sizes, words, positions, annotators, fate of pre-labels."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dataset_tools import atomic, html_page, metrics
from dataset_tools.expressions import parser as expression_parser
from dataset_tools.expressions.lexicon import own_nouns
from dataset_tools.html_page import Markup
from dataset_tools.records import FATES, Fate, Provenance, Record, Sample
from dataset_tools.sources import read_as

_HEAT = 48
_STOP = {"the", "a", "an", "of", "in", "on", "to", "is", "and", "at", "image", "with", "that", "it", "by", "all"}


@dataclass
class Statistics:
    """Counts over all records with an expression; filled by :meth:`add`."""

    images: int = 0
    records: int = 0
    scenes: set[str] = field(default_factory=set)
    by_category: dict[str, Counter[str]] = field(default_factory=dict)
    by_kind: Counter[str] = field(default_factory=Counter)
    by_origin: Counter[str] = field(default_factory=Counter)
    by_fate: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    shares: list[float] = field(default_factory=list)
    lead_times: dict[str, list[float]] = field(default_factory=dict)
    clicks: Counter[int] = field(default_factory=Counter)
    agreements: list[float] = field(default_factory=list)
    heat: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((_HEAT, _HEAT)))

    def add(self, sample: Sample) -> None:
        """Count one image; raises MaskError if a mask is damaged."""
        self.images += 1
        self.scenes.add(sample.image.scene or sample.image.file_name)
        seen: set[tuple[object, ...]] = set()
        self._add_agreement(sample)
        for record in sample.records:
            if record.expression:
                self._add_record(record)
            if record.targets and record.targets not in seen:
                seen.add(record.targets)
                mask = sample.union(record)
                self.shares.append(float(mask.mean()))
                small = cv2.resize(mask.astype(np.float32), (_HEAT, _HEAT), interpolation=cv2.INTER_AREA)
                self.heat += small

    def _add_agreement(self, sample: Sample) -> None:
        """IoU of every pair of annotations of one task that answer the same expression."""
        answers: dict[tuple[str, str, object], list[Record]] = {}
        for record in sample.records:
            if record.provenance.annotation is not None and record.targets:
                key = (record.expression, record.category, record.provenance.task)
                answers.setdefault(key, []).append(record)
        for records in answers.values():
            for one, other in combinations(records, 2):
                if one.provenance.annotation != other.provenance.annotation:
                    self.agreements.append(metrics.iou(sample.union(one), sample.union(other)))

    def _add_record(self, record: Record) -> None:
        self.records += 1
        self.by_category.setdefault(record.category, Counter())[record.split or "none"] += 1
        own = own_nouns([record.category])
        self.by_kind[record.kind or expression_parser.parse(record.expression, own).kind] += 1
        words = re.findall(r"[^\W\d_]+", record.expression.lower())
        self.lengths[len(record.expression.split())] += 1
        self.words.update(word for word in words if word not in _STOP)
        origin = record.provenance
        if origin.origin:
            self.by_origin[origin.origin] += 1
        if fate := _fate(origin):
            self.by_fate[fate] += 1
        reading = read_as(record)
        self.read.update({"fully": reading.is_full, "guessed": bool(reading.guessed), "unread": bool(reading.unread)})
        self.unread.update(reading.unread)
        if origin.clicks is not None:
            self.clicks[origin.clicks] += 1
        if origin.lead_time is not None:
            self.lead_times.setdefault(str(origin.annotator), []).append(origin.lead_time)

    def summary(self) -> dict[str, Any]:
        """JSON values."""
        shares = np.array(self.shares or [0.0])
        accepted = {name: self.by_origin[name] for name in ("prediction", "prediction-changed", "manual")}
        total, labels = sum(accepted.values()), self.by_fate.total()
        return {
            "images": self.images,
            "scenes": len(self.scenes),
            "expressions": self.records,
            "objects": len(self.shares),
            "by_category": {name: dict(counter) for name, counter in sorted(self.by_category.items())},
            "by_kind": dict(self.by_kind.most_common()),
            "mask_share": {f"p{q}": round(float(np.percentile(shares, q)), 6) for q in (5, 25, 50, 75, 95)},
            "expression_words": {
                "mean": round(sum(n * k for n, k in self.lengths.items()) / max(1, self.records), 2),
                "max": max(self.lengths, default=0),
            },
            "different_words": len(self.words),
            "top_words": dict(self.words.most_common(40)),
            "masks": accepted if total else {},
            "fates": {fate: self.by_fate[fate] for fate in FATES} if labels else {},
            "accepted_unchanged": round(self.by_fate["unchanged"] / labels, 4) if labels else None,
            "accepted_changed": round(self.by_fate["changed"] / labels, 4) if labels else None,
            "read": {name: self.read[name] for name in ("fully", "guessed", "unread")},
            "top_unread": dict(self.unread.most_common(20)),
            "clicks": {str(number): count for number, count in sorted(self.clicks.items())},
            "annotator_agreement_iou": round(float(np.mean(self.agreements)), 4) if self.agreements else None,
            "lead_time_seconds": {
                name: {"n": len(times), "median": float(np.median(times))} for name, times in self.lead_times.items()
            },
        }


def _fate(origin: Provenance) -> Fate | None:
    """Datasets of earlier versions say it by origin and clicks."""
    if origin.fate is not None or origin.origin is None:
        return origin.fate
    if origin.origin == "prediction-changed":
        return "changed"
    if origin.clicks:
        return "clicked"
    return "unchanged" if origin.origin == "prediction" else "manual" if origin.clicks is None else "clicked"


def collect(samples: Iterable[Sample]) -> Statistics:
    """Statistics of a stream of samples."""
    found = Statistics()
    for sample in samples:
        found.add(sample)
    return found


def plots(found: Statistics) -> dict[str, bytes]:
    """PNG files by name: categories, mask sizes, expression lengths, words, positions, lead times."""
    from matplotlib.figure import Figure

    drawn: dict[str, bytes] = {}

    def figure(name: str, height: float = 3.6) -> Any:
        made = Figure(figsize=(8, height), dpi=110, layout="constrained")
        axes = made.add_subplot()
        drawn[name] = b""
        figures[name] = made
        return axes

    figures: dict[str, Figure] = {}
    splits = sorted({split for counter in found.by_category.values() for split in counter})
    names = sorted(found.by_category, key=lambda name: found.by_category[name].total())
    axes = figure("categories", max(2.4, 0.3 * len(names) + 1))
    left = np.zeros(len(names))
    for split in splits:
        widths = np.array([found.by_category[name][split] for name in names])
        axes.barh(list(map(html_page.plot_text, names)), widths, left=left, label=html_page.plot_text(split))
        left += widths
    axes.set(xlabel="expressions", title="Categories and splits")
    if splits:
        axes.legend(frameon=False)

    axes = figure("mask_sizes")
    shares = np.maximum(np.array(found.shares or [1e-6]), 1e-6)
    axes.hist(shares, bins=np.geomspace(1e-6, 1, 49).tolist(), color="#4878a8")
    axes.set(xscale="log", xlabel="share of the image that the mask covers", ylabel="objects", title="Mask sizes")

    axes = figure("expression_lengths")
    axes.bar(list(found.lengths), list(found.lengths.values()), color="#4878a8")
    axes.set(xlabel="words", ylabel="expressions", title="Lengths of the expressions")

    axes = figure("words", 5.0)
    top = found.words.most_common(30)[::-1]
    axes.barh([html_page.plot_text(word) for word, _ in top], [count for _, count in top], color="#5a9a6a")
    axes.set(xlabel="occurrences", title="Most frequent words")

    axes = figure("positions", 4.2)
    picture = axes.imshow(found.heat / max(1, len(found.shares)), cmap="viridis", extent=(0, 1, 1, 0))
    axes.set(xlabel="x / width", ylabel="y / height", title="Where the objects are (mean mask)")
    axes.figure.colorbar(picture, ax=axes)

    if found.lead_times:
        axes = figure("lead_times")
        people = list(map(html_page.plot_text, found.lead_times))
        axes.boxplot(list(found.lead_times.values()), tick_labels=people, showfliers=False)
        axes.set(xlabel="annotator", ylabel="seconds", title="Time per annotation")
    if found.by_fate:
        axes = figure("fates", 2.2)
        axes.barh(list(found.by_fate), list(found.by_fate.values()), color="#a86a48")
        axes.set(xlabel="records", title="What became of the pre-labels")
    for name, made in figures.items():
        buffer = io.BytesIO()
        with warnings.catch_warnings():  # words of a script that the font lacks are boxes in the plot, not in the page
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            made.savefig(buffer, format="png")
        drawn[name] = buffer.getvalue()
    return drawn


def page(name: str, found: Statistics, drawn: dict[str, bytes]) -> str:
    """One HTML page that opens offline."""
    summary = found.summary()
    rows = [(key.replace("_", " "), _shown(value)) for key, value in summary.items() if not isinstance(value, dict)]
    rows += [("mask share, median", f"{summary['mask_share']['p50']:.4%}")]
    kinds = html_page.table(("kind of expression", "expressions"), found.by_kind.most_common())
    sections = [("In numbers", html_page.table(("", ""), rows)), ("Kinds", kinds)]
    sections += [(title.replace("_", " ").capitalize(), html_page.plot(png, title)) for title, png in drawn.items()]
    biggest = max(found.words.values(), default=1)
    word = Markup('<span style="font-size:{:.0f}px">{}</span>').format
    cloud = Markup(" ").join(
        word(12 + 30 * (count / biggest) ** 0.5, text) for text, count in sorted(found.words.most_common(80))
    )
    sections.append(("Words", Markup("<p>{}</p>").format(cloud)))
    return html_page.page(f"Statistics of {name}", f"{found.images:,} images, {found.records:,} expressions", sections)


def write(folder: Path, name: str, found: Statistics) -> list[Path]:
    """``statistics.json``, one PNG per plot and ``index.html`` in ``folder``; returns the files."""
    drawn = plots(found)
    files: dict[Path, bytes] = {folder / f"{key}.png": png for key, png in drawn.items()}
    files[folder / "statistics.json"] = (json.dumps(found.summary(), indent=1) + "\n").encode()
    files[folder / "index.html"] = page(name, found, drawn).encode()
    for path, data in files.items():
        atomic.write_bytes(path, data)
    return list(files)


def _shown(value: object) -> object:
    return "not known" if value is None else value

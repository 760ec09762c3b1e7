"""The validator's findings as a table for the terminal, as JSON, and as a page with the offending overlays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from dataset_tools import formats, html_page, image_files
from dataset_tools.checks.findings import CODES, Finding
from dataset_tools.checks.validate import Report
from dataset_tools.errors import PslgError
from dataset_tools.html_page import Markup
from dataset_tools.overlays import OverlayObject, draw_overlay
from dataset_tools.records import Sample, local_path

OVERLAYS_PER_CODE = 12


def as_json(report: Report) -> dict[str, Any]:
    """One JSON object: counts and every finding with its code, severity, explanation and fix."""
    return {
        "root": str(report.root), "format": report.format, "images": report.images, "records": report.records,
        "errors": report.errors, "warnings": report.warnings,
        "findings": [
            {
                "code": finding.code, "severity": finding.severity, "where": finding.where, "message": finding.message,
                "why": CODES[finding.code].why, "fix": CODES[finding.code].fix,
            }
            for finding in report.findings
        ],
    }  # fmt: skip


def as_text(report: Report, examples: int = 3) -> str:
    """A table for the terminal: each code with its count, a few places, why it matters and what to do."""
    lines = [f"{report.root} ({report.format}): {report.images:,} images, {report.records:,} expressions"]
    for code, count in _by_severity(report):
        info = CODES[code]
        lines.append(f"\n{info.severity.upper():8}{code} ({count:,})")
        places = [finding for finding in report.findings if finding.code == code]
        lines += [f"    {finding.where}: {finding.message}" for finding in places[:examples]]
        lines += [f"    ... and {count - examples:,} more"] if count > examples else []
        fixed = " (--fix does it)" if info.automatic else ""
        lines += [f"  why: {info.why}", f"  fix: {info.fix}{fixed}"]
    lines.append(f"\n{report.errors:,} errors, {report.warnings:,} warnings")
    return "\n".join(lines)


def as_html(report: Report) -> str:
    """A page that opens offline, with overlays of the first findings of each code."""
    pictures = _pictures(report)
    rows = [
        (code, CODES[code].severity, count, CODES[code].why, CODES[code].fix) for code, count in _by_severity(report)
    ]
    sections = [("Overview", html_page.table(("code", "severity", "count", "why it matters", "what to do"), rows))]
    for code, count in _by_severity(report):
        places = [finding for finding in report.findings if finding.code == code]
        cards = Markup("").join(
            html_page.card(pictures.get(id(finding), Markup("")), f"{finding.where}: {finding.message}")
            for finding in places[:OVERLAYS_PER_CODE]
        )
        rest = count - OVERLAYS_PER_CODE
        more = Markup("<p>... and {:,} more</p>").format(rest) if rest > 0 else Markup("")
        content = Markup('<p class="{0}">{0}</p><div class="cards">{1}</div>{2}')
        sections.append((code, content.format(CODES[code].severity, cards, more)))
    subtitle = (
        f"{report.format}; {report.images:,} images, {report.records:,} expressions; "
        f"{report.errors:,} errors, {report.warnings:,} warnings"
    )
    return html_page.page(f"Check of {report.root.name}", subtitle, sections)


def _by_severity(report: Report) -> list[tuple[str, int]]:
    counts = Counter(finding.code for finding in report.findings)
    order = list(CODES)
    return sorted(counts.items(), key=lambda item: (CODES[item[0]].severity, order.index(item[0])))


def _pictures(report: Report) -> dict[int, Markup]:
    """Overlays of the findings that are shown, by ``id`` of the finding; reads the dataset once more."""
    wanted: dict[str, list[Finding]] = {}
    shown: Counter[str] = Counter()
    for finding in report.findings:
        shown[finding.code] += 1
        if finding.image is not None and shown[finding.code] <= OVERLAYS_PER_CODE:
            wanted.setdefault(finding.image, []).append(finding)
    pictures: dict[int, Markup] = {}
    for sample in _readable(report):
        for finding in wanted.pop(sample.image.file_name, []):
            picture = _overlay(sample, finding)
            if picture is not None:
                pictures[id(finding)] = picture
        if not wanted:
            break
    return pictures


def _readable(report: Report) -> Iterator[Sample]:
    try:
        yield from formats.read(report.root, report.format, lambda _row: None)
    except PslgError:
        return  # the finding "unreadable" says why there are no more pictures


def _overlay(sample: Sample, finding: Finding) -> Markup | None:
    try:
        image = image_files.read(local_path(sample.image))
        objects = []
        if finding.record is not None and sample.records[finding.record].targets:
            mask = sample.union(sample.records[finding.record])
            objects = [OverlayObject(mask)] if mask.shape == image.shape[:2] else []
    except (PslgError, OSError):
        return None
    scale = min(1.0, 480 / max(image.shape[:2]))
    return html_page.picture(draw_overlay(image, objects, scale=scale), finding.where)

"""The report of a project as one HTML page that opens offline: figures, plots and tables, all in one file."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from backend.learning.report.figures import ENOUGH_BY_HAND, GOOD_IOU, Costs, CountedLabel, Labelling, mean, median
from backend.learning.versions.registry import Promotion, VersionRow
from dataset_tools import html_page
from dataset_tools.html_page import Markup
from dataset_tools.records import FATES, Fate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ModelHistory", "page"]

_COLORS: dict[Fate, str] = {"unchanged": "#2e7d32", "clicked": "#4363d8", "changed": "#f58231", "manual": "#8d8d8d"}
_MEANING: dict[Fate, str] = {
    "unchanged": "the pre-label as it was",
    "clicked": "made with smart clicks, boxes or texts",
    "changed": "a mask of the model, edited by hand",
    "manual": "drawn by hand",
}
_MOST_BARS = 60
_MOST_WORDS = 20
_FEW_DAYS = 8
_GAP = Markup("<p></p>")


@dataclass(frozen=True)
class ModelHistory:
    """What was trained for the project and what served it, newest first."""

    versions: Sequence[VersionRow]
    promotions: Sequence[Promotion]


def page(title: str, source: str, found: Labelling, costs: Costs, history: ModelHistory | None) -> str:
    """The whole page.

    Args:
        title: the project's name.
        source: where the figures come from, one line.
        found: what was counted; has at least one label or skip.
        costs: what labels are compared with.
        history: None where it is not known (an export).
    """
    sections = [
        ("Summary", _summary(found, costs)),
        ("Labels over time", _over_time(found)),
        ("Acceptance", _acceptance(found)),
        ("Expressions without an answer", _abstentions(found)),
        ("Clicks per label", _clicks(found)),
        ("Time per label", _time(found, costs)),
        ("Cost saved against drawing by hand", _saving(found, costs)),
        ("Quality by model version", _quality(found)),
    ]
    if found.nouns():
        sections.append(("Words of this project", _nouns(found)))
    if history is not None:
        sections.append(("What the labels brought", _learning(history)))
        sections.append(("Promotions and rollbacks", _history(history)))
    if found.damaged:
        lines = Markup("").join(map(Markup("<li>{}</li>").format, found.damaged[:50]))
        rest = len(found.damaged) - 50
        more = Markup("<p>and {} more</p>").format(rest) if rest > 0 else Markup("")
        sections.append(("Could not be read", Markup("<ul>{}</ul>{}").format(lines, more)))
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return html_page.page(f"{title}: how the labelling goes", f"{source}; made {made}", sections)


def _summary(found: Labelling, costs: Costs) -> Markup:
    saving = found.saving(costs)
    clicks = mean([label.clicks for label in found.labels if label.clicks is not None])
    seconds = median([label.seconds for label in found.labels if label.seconds is not None])
    rows: list[tuple[str, str]] = [
        ("Labels (accepted regions)", f"{len(found.labels):,}"),
        ("Annotations submitted", f"{found.annotations:,}, of which {found.empty:,} without a label"),
        ("Skipped", f"{found.skipped:,}"),
        ("Accepted unchanged", f"{found.share('unchanged'):.1%} of the labels"),
        ("Clicks per label of the model", _number(clicks, "{:.2f}")),
        ("Median time per label", _number(seconds, "{:.0f} s")),
    ]
    if saving.labels:
        price = "" if saving.price is None else f", {saving.price:,.0f} at {costs.hourly:g} an hour"
        rows.append(("Saved against drawing by hand", f"{_duration(saving.saved_seconds)} ({saving.share:.0%}){price}"))
    return html_page.table(("", ""), rows)


def _over_time(found: Labelling) -> Markup:
    days = found.by_day()
    if not days:
        return _nothing("no labels yet")
    edges, width = _periods(min(days), max(days))
    starts = _dates(edges)

    def draw(axes: Axes) -> None:
        bottom = np.zeros(len(edges))
        for fate in FATES:
            counts = _counts(
                edges, width, [label for labels in days.values() for label in labels if label.fate == fate]
            )
            axes.bar(starts, counts, width=0.85 * width, bottom=bottom, color=_COLORS[fate], label=fate, align="edge")
            bottom += counts
        every = "labels a day" if width == 1 else f"labels in {width} days"
        axes.set(ylabel=every, ylim=(0, 1.08 * bottom.max()))
        total = axes.twinx()
        total.plot([starts[0], *(starts + width)], [0, *np.cumsum(bottom)], color="#1c2126", linewidth=1.2)
        total.set(ylabel="labels in all", ylim=(0, None))
        axes.legend(frameon=False, loc="upper left")
        use_dates(axes)

    return _plot(draw, "labels over time") + _note("Bars: labels by what they cost; line: all so far (UTC).")


def _acceptance(found: Labelling) -> Markup:
    fates = found.fates()
    rows: list[tuple[str, str, int, str]] = [
        (fate, _MEANING[fate], fates[fate], f"{found.share(fate):.1%}") for fate in FATES
    ]
    rows.append(("skipped", "annotations that ended with Skip", found.skipped, ""))
    text = html_page.table(("fate", "meaning", "labels", "share"), rows)
    categories = list(found.by_category().items())[:20]
    if not categories:
        return text

    def draw(axes: Axes) -> None:
        left = np.zeros(len(categories))
        names = [f"{name} ({len(labels)})" for name, labels in categories]
        for fate in FATES:
            shares = np.array([sum(one.fate == fate for one in labels) / len(labels) for _, labels in categories])
            axes.barh([html_page.plot_text(name) for name in names], shares, left=left, color=_COLORS[fate], label=fate)
            left += shares
        axes.set(xlim=(0, 1), xlabel="share of the category's labels")
        axes.invert_yaxis()
        axes.legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))

    return text + _GAP + _plot(draw, "acceptance by category", 1.4 + 0.32 * len(categories))


def _nouns(found: Labelling) -> Markup:
    rows = [(one.noun, one.category, one.times, one.used) for one in found.nouns().values()]
    return html_page.table(("noun", "stands for", "accepted", "used"), rows)


def _abstentions(found: Labelling) -> Markup:
    reasons, words = found.notes.reasons, found.notes.words
    if not reasons:
        return _nothing("no task's field pslg_note says that an expression was not answered")
    tables = html_page.table(("reason", "expressions"), reasons.most_common())
    if words:
        tables += _GAP + html_page.table(("word that is not known", "expressions"), words.most_common(_MOST_WORDS))
    return tables + _note("As of the newest pre-label of each task; the sentences are in the tasks' field pslg_note.")


def _clicks(found: Labelling) -> Markup:
    clicks = [label.clicks for label in found.labels if label.clicks is not None]
    if not clicks:
        return _nothing("no label of a model yet")
    most = min(max(clicks), 10)

    def draw(axes: Axes) -> None:
        counts = [sum(min(count, most) == place for count in clicks) for place in range(most + 1)]
        names = [str(place) for place in range(most + 1)]
        if max(clicks) > most:
            names[-1] += "+"
        axes.bar(names, counts, color=_COLORS["clicked"])
        axes.set(xlabel="clicks", ylabel="labels")

    known = f"{len(clicks):,} labels that the model had a part in; 0 is a pre-label. Mean {np.mean(clicks):.2f}."
    return _plot(draw, "clicks per label", 2.6) + _note(known)


def _time(found: Labelling, costs: Costs) -> Markup:
    timed = [label for label in found.labels if label.seconds is not None]
    if not timed:
        return _nothing("Label Studio holds no times for these annotations (imported ones have none)")
    groups = [(fate, _seconds([one for one in timed if one.fate == fate])) for fate in FATES]
    rows = [
        (fate, len(values), round(np.median(values)), round(np.minimum(values, costs.longest).mean()))
        for fate, values in groups
        if values
    ]
    days: dict[date, list[CountedLabel]] = {}
    for label in sorted(timed, key=lambda one: one.day):
        days.setdefault(label.day, []).append(label)

    def draw(axes: Axes) -> None:
        medians = [float(np.median(_seconds(labels))) for labels in days.values()]
        axes.plot(_dates(list(days)), medians, marker="o", color="#1c2126", label="median of the day")
        axes.axhline(costs.manual_seconds, color=_COLORS["manual"], linestyle="--", label="by hand (parameter)")
        axes.set(ylabel="seconds per label", ylim=(0, None))
        axes.legend(frameon=False)
        use_dates(axes)

    head = ("fate", "labels", "median s", "mean s")
    return html_page.table(head, rows) + _GAP + _plot(draw, "time per label", 2.6)


def _saving(found: Labelling, costs: Costs) -> Markup:
    saving = found.saving(costs)
    formula = (
        "saved = labels × seconds by hand − seconds spent"
        f" = {saving.labels:,} × {saving.baseline:g} s − {saving.seconds:,.0f} s"
        f" = {saving.saved_seconds:,.0f} s = {_duration(saving.saved_seconds)}"
    )
    if saving.price is not None:
        formula += f"; at {costs.hourly:g} an hour {saving.price:,.2f}"
    by_hand = (
        f"Seconds by hand are the mean of this project's {saving.measured} labels whose annotations were drawn by hand."
        if saving.measured
        else f"Seconds by hand are a parameter (--manual-seconds) until {ENOUGH_BY_HAND} labels were drawn by hand;"
        " 79 s is what COCO's polygons took (22 hours for 1,000 objects, Lin et al. 2014)."
    )
    notes = (
        f"Labels made with the model whose time is known: {saving.labels:,} of {len(found.labels):,}; the others are on"
        " neither side. "
        f"Seconds spent are Label Studio's lead_time, at most {costs.longest:g} s a label (--longest): more was a "
        f"pause. {by_hand} Time for skipped tasks and for review is not in it."
    )
    return Markup("<p><b>{}</b></p>").format(formula) + _note(notes)


def _quality(found: Labelling) -> Markup:
    if not found.quality:
        return _nothing(
            "no predictions are known: give LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY, or an export that holds them"
        )
    versions = sorted(found.quality.items(), key=lambda item: (item[1].first, item[0]))
    rows = [
        (name, len(row.ious), f"{row.iou:.3f}", f"{row.good:.1%}", f"{row.score:.3f}", row.first[:10])
        for name, row in versions
    ]

    def draw(axes: Axes) -> None:
        names = [name for name, _ in versions]
        axes.boxplot([row.ious for _, row in versions], orientation="horizontal", tick_labels=names, widths=0.6)
        axes.axvline(GOOD_IOU, color=_COLORS["unchanged"], linestyle="--", linewidth=0.8)
        axes.set(xlim=(0, 1), xlabel="IoU with the accepted masks")

    head = ("model version", "tasks", "mean IoU", f"IoU >= {GOOD_IOU}", "mean score", "first prediction")
    notes = (
        "Each prediction beside the annotation that was accepted for its task (the latest). A calibrated model's mean "
        f"score equals the share with an IoU of at least {GOOD_IOU}. A version that was trained on these annotations "
        "looks better here than it is: the gate's held-out figure is the fair one. Annotations that began from a "
        "prediction agree with it more than independent ones would."
    )
    plot = _plot(draw, "agreement by model version", 1.2 + 0.4 * len(versions))
    return html_page.table(head, rows) + _GAP + plot + _note(notes)


def _learning(history: ModelHistory) -> Markup:
    """Labelled images that a version learnt from -> its quality on images that no version learns from."""
    judged = [row for row in reversed(history.versions) if row.manifest.gate.get("held_out_new") is not None]
    if not judged:
        return _nothing("no version was measured yet: the promotion gate says in the table below what it waits for")
    rows = [
        (
            len(row.manifest.training_keys),
            row.manifest.gate.get("images", "?"),
            row.manifest.gate.get("objects", "?"),
            _change(row, "held_out"),
            row.manifest.version,
            row.status,
        )
        for row in judged
    ]
    head = (
        "images learnt from",
        "held-out images",
        "held-out objects",
        "held-out mIoU, old to new",
        "version",
        "status",
    )

    def draw(axes: Axes) -> None:
        counts = [len(row.manifest.training_keys) for row in judged]
        quality = [float(row.manifest.gate["held_out_new"]) for row in judged]
        axes.plot(counts, quality, marker="o", color=_COLORS["clicked"])
        axes.set(xlabel="images learnt from", ylabel="held-out mIoU", xlim=(0, None), ylim=(0, 1))

    notes = (
        "Each point is a version that was trained on this project. The held-out images grow with the project, so that"
        " points rest on different ones: few of them mean little."
    )
    return _plot(draw, "labels and held-out quality", 2.8) + _GAP + html_page.table(head, rows) + _note(notes)


def _history(history: ModelHistory) -> Markup:
    if not history.versions and not history.promotions:
        return _nothing("nothing was trained for this project yet")
    changes = html_page.table(
        ("when", "serves from then on", "before", "reason"),
        [
            (_when(one.promoted_at), one.version or "the base version", one.previous or "the base version", one.reason)
            for one in history.promotions
        ],
    )
    gate = [
        (
            row.manifest.version,
            _when(row.created_at),
            row.status,
            len(row.manifest.training_keys),
            _change(row, "held_out"),
            _change(row, "replay"),
            row.manifest.reason,
        )
        for row in history.versions
    ]
    head = ("version", "made", "status", "images", "held-out, old to new", "replay, old to new", "the gate's reason")
    return (changes if history.promotions else _nothing("no promotion yet")) + _GAP + html_page.table(head, gate)


def _change(row: VersionRow, part: str) -> str:
    """The gate's mean IoU before and after, as far as the manifest has it."""
    values = [row.manifest.gate.get(f"{part}_{age}") for age in ("old", "new")]
    return " to ".join(f"{value:.3f}" if isinstance(value, int | float) else "?" for value in values)


def _seconds(labels: Sequence[CountedLabel]) -> list[float]:
    return [label.seconds for label in labels if label.seconds is not None]


def _periods(first: date, last: date) -> tuple[list[date], int]:
    """Starts of the bars from ``first`` to ``last``, and the days of each: one, or as many as keep them readable."""
    days = (last - first).days + 1
    width = -(-days // _MOST_BARS)
    return [first + timedelta(days=offset) for offset in range(0, days, width)], width


def _counts(edges: Sequence[date], width: int, labels: Sequence[CountedLabel]) -> npt.NDArray[np.int64]:
    places = [(label.day - edges[0]).days // width for label in labels]
    counts: npt.NDArray[np.int64] = np.bincount(places, minlength=len(edges))
    return counts


def _dates(days: Sequence[date]) -> npt.NDArray[np.float64]:
    """Days as matplotlib's numbers."""
    from matplotlib.dates import date2num

    return np.array([date2num(day) for day in days], np.float64)


def _plot(draw: Callable[[Axes], None], alt: str, height: float = 3.2) -> Markup:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return html_page.plot(file.getvalue(), alt)


def use_dates(axes: Axes) -> None:
    """Days along the x axis, readable also where there is one day alone."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, DayLocator

    first, last = axes.dataLim.intervalx
    if last - first < _FEW_DAYS:  # no hours: what is counted are days
        axes.set_xlim(first - 1.5, last + 1.5)
        locator: DayLocator | AutoDateLocator = DayLocator()
    else:
        locator = AutoDateLocator(minticks=1, maxticks=10, interval_multiples=True)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _nothing(why: str) -> Markup:
    return _note(f"{why[0].upper() + why[1:]}.")


def _note(text: str) -> Markup:
    return Markup('<p class="dim">{}</p>').format(text)


def _number(value: float | None, form: str) -> str:
    return "not known" if value is None else form.format(value)


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if abs(seconds) >= 3600 else f"{seconds / 60:,.1f} min"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")

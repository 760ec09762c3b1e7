"""Every comparison with what users have today, one after the other: ``python -m benchmarks`` (``make bench``).

Each module measures interleaved pairs and prints one JSON object: row name -> {"ms", "<other>_ms", "ratio", ...}. Here
they are collected into one table, ``runs/bench/<name>.json`` and the plot ``runs/bench/ratios.png``. With
``--measured`` the JSON of an earlier run is taken where it is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

NAMES = ("brush_rle", "clicks", "cold_click", "stage2", "export")
Rows = dict[str, dict[str, float]]


def run(name: str, out: Path) -> Rows:
    """The rows of one benchmark, measured in a process of its own and kept in ``out``."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    (out / f"{name}.json").write_text(done.stdout)
    rows: Rows = json.loads(done.stdout)
    return rows


def table(results: dict[str, Rows]) -> str:
    """Ours, the other's and the ratio, one line per row."""
    lines = [f"{'':40}{'ours ms':>10}{'other ms':>10}{'ratio':>8}"]
    for name, rows in results.items():
        for row, values in rows.items():
            other = next(value for key, value in values.items() if key.endswith("_ms"))
            lines.append(f"{name + ': ' + row:40}{values['ms']:10.2f}{other:10.2f}{values['ratio']:7.1f}x")
    return "\n".join(lines)


def plot(results: dict[str, Rows], path: Path) -> None:
    """How many times faster each row is than its counterpart, on a logarithmic axis."""
    from matplotlib.figure import Figure

    names = [f"{name.replace('_', ' ')}: {row}" for name, rows in results.items() for row in rows]
    ratios = [values["ratio"] for rows in results.values() for values in rows.values()]
    figure = Figure(figsize=(8, 0.28 * len(names) + 1), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(names, ratios, color="#4363d8", height=0.7)
    axes.bar_label(bars, fmt="%.1fx", padding=3, fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlim(right=max(ratios) * 2)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel("times faster than what users have today (median of interleaved pairs)")
    axes.invert_yaxis()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(NAMES), help="which ones; all without")
    parser.add_argument("--out", type=Path, default=Path("runs", "bench"))
    parser.add_argument("--measured", action="store_true", help="take what is in --out, measure only what is not")
    parser.add_argument("--plot", type=Path, help="where the plot goes, else ratios.png in --out")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in arguments.names:
        kept = arguments.out / f"{name}.json"
        results[name] = (
            json.loads(kept.read_text()) if arguments.measured and kept.exists() else run(name, arguments.out)
        )
    print(table(results))
    plot(results, arguments.plot or arguments.out / "ratios.png")


if __name__ == "__main__":
    main()

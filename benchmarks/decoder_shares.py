"""The paper's 10 % experiment with the compact segmenter: how many masks does fine-tuning the decoder need?

    python -m benchmarks.decoder_shares --data FOLDER/nwpu_vhr10 --base WEIGHTS --left-out airplane harbor

Fine-tunes the mask decoder of WEIGHTS (frozen encoder, equal numbers of steps) on shares of the masks of the training
part and measures the test part with ground-truth boxes as the only prompts: no foreground point, no boundary
optimization. The categories of ``--left-out`` are those that the base weights never saw (``exclude_categories`` of
their training); only for these the share says how many masks the whole model has ever seen. Prints one JSON object and
writes figures and plot to ``--out``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from backend.evaluation.expressions import evaluate, read_questions
from backend.pipeline import load_pipeline
from backend.training.decoder.run import run_decoder_training
from backend.training.decoder.training import DecoderOptions
from dataset_tools.categories import canonical
from dataset_tools.image_files import read
from dataset_tools.metrics import CONVENTIONS

SHARES = (0.1, 0.25, 0.5, 1.0)


def base_config(weights: Path, threads: int, path: Path) -> Path:
    """A pipeline config with the compact segmenter ``weights`` and boxes as the only prompts."""
    values = {
        "grounder": {"kind": "compact", "weights": "compact_grounder"},
        "segmenter": {"kind": "compact-sam", "weights": str(weights.resolve())},
        "foreground_points": {"enabled": False},
        "boundary": {"enabled": False},
        "device": "cpu",
        "threads": threads,
    }
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def measure(config: Path, data: Path, left_out: set[str]) -> dict[str, Any]:
    """mIoU of the test part's objects: all, those of ``left_out``, the others, and by category."""
    pipeline = load_pipeline(config)
    examples = [example for example in read_questions(data, "test") if example.targets]
    done = evaluate(pipeline, examples, read, boxes="ground-truth", convention=CONVENTIONS["native"])
    groups: dict[str, list[float]] = {"all": [], "left_out": [], "seen": []}
    for outcome in done.instances:
        category = canonical(outcome.question.label) or outcome.question.label
        iou = outcome.iou(CONVENTIONS["native"])
        for name in ("all", "left_out" if category in left_out else "seen", category):
            groups.setdefault(name, []).append(iou)
    return {name: {"mIoU": sum(ious) / len(ious), "n": len(ious)} for name, ious in groups.items() if ious}


def plot(results: dict[str, dict[str, Any]], path: Path) -> None:
    """mIoU over the share of the masks, one line per group."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    shares = sorted(results, key=float)
    ticks = range(len(shares))
    for name, label in (("left_out", "categories new to the base"), ("all", "all"), ("seen", "the others")):
        if name in results[shares[0]]["test"]:
            values = [100 * results[share]["test"][name]["mIoU"] for share in shares]
            axes.plot(
                ticks, values, marker="o", markersize=4, label=f"{label} (n {results[shares[0]]['test'][name]['n']})"
            )
    axes.set_xticks(ticks, [f"{100 * float(share):.0f} %" for share in shares])
    axes.set(xlabel="masks the decoder was fine-tuned on", ylabel="mIoU, ground-truth boxes")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=3)
    figure.savefig(path, dpi=90)


def main(options: argparse.Namespace) -> None:
    """Run every share that ``--out`` does not hold yet, then print and plot."""
    options.out.mkdir(parents=True, exist_ok=True)
    config = base_config(options.base, options.threads, options.out / "base.yaml")
    left_out = {canonical(name) or name for name in options.left_out}
    path = options.out / "results.json"
    results: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    for share in (0.0, *SHARES):
        if str(share) in results:
            continue
        started, result = time.perf_counter(), {}
        used = config
        if share:
            folder = options.out / f"share_{round(100 * share)}"
            used, _ = run_decoder_training(
                config,
                options.data,
                folder,
                DecoderOptions(steps=options.steps),
                share=share,
                views=options.views,
                threads=options.threads,
                embeddings=options.out / "embeddings",
                resume=(folder / "config.yaml").exists(),
            )
            figures = json.loads((folder / "figures.json").read_text())
            result = {"masks": figures["masks"], "images": figures["images"], "step": figures["step"]}
            result["validation"] = {
                name: [figures[name]["box_iou"], figures[name]["score"]] for name in ("before", "after")
            }
        result |= {"test": measure(used, options.data, left_out), "seconds": round(time.perf_counter() - started)}
        results[str(share)] = result
        path.write_text(json.dumps(results, indent=1))
        print(f"share {share}: {result}", file=sys.stderr, flush=True)
    plot(results, options.out / "decoder_shares.png")
    print(json.dumps(results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True, help="compact segmenter weights (.safetensors)")
    parser.add_argument("--left-out", nargs="*", default=[], help="categories that the base never saw")
    parser.add_argument("--out", type=Path, default=Path("runs/decoder_shares"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--views", type=int, default=2, help="augmented windows per mask")
    parser.add_argument("--threads", type=int, default=1)
    main(parser.parse_args())

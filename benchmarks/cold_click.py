"""SAMs on a CPU, an image of 1024 px that was never embedded: first click and further ones: ``python -m
benchmarks.cold_click``.

Each model runs with torch and with OpenVINO, in float32 (the same masks) and bfloat16, every pair in a process of its
own, in turn, so that its peak memory is known; weights are random, of the published sizes. Beside the peak stands what
of it are pages of torch's own libraries, which the CUDA build has gigabytes of. What the machine can do at most is the
fastest float32 product that torch or OpenVINO makes of matrices like ViT-B's, in the same run. The ratios of CPU times
hold on a machine that others use too; run it with one thread then, since waiting threads spin. With ``--warm`` each
model embeds one image only, and all else are rounds of warm clicks in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from backend.pipeline.segmentation import Segmenter

SIDE = 1024
WARM_CLICKS = 10
ENGINES = {"torch": ("torch", False), "openvino f32": ("openvino", False), "openvino bf16": ("openvino", True)}
MODELS = ("vit_b", "sam2_hiera_tiny", "edgetam", "sam_hq_vit_b")
VIT_B_GFLOP = 972
Answers = dict[str, dict[str, list[dict[str, float]]]]


def segmenter_of(model: str, engine: str) -> Segmenter:
    """The model at its published size with random weights."""
    import torch
    import transformers

    from backend.pipeline.segmentation.hf_sam import HfSamSegmenter
    from backend.pipeline.segmentation.sam import SamSegmenter

    runs, autocast = ENGINES[engine]
    given: Any = {"weights_hash": "random", "autocast": autocast, "engine": runs, "embedding_dtype": "float16"}
    torch.manual_seed(0)
    if model == "vit_b":
        from segment_anything import sam_model_registry

        return SamSegmenter(sam_model_registry["vit_b"](), **given)
    if model == "sam_hq_vit_b":
        images: Any = transformers.SamImageProcessor()
        processor: Any = transformers.SamHQProcessor(images)
        network: Any = transformers.SamHQModel(transformers.SamHQConfig())
    else:
        processor = transformers.Sam2Processor(transformers.Sam2ImageProcessor())
        if model == "edgetam":
            backbone = transformers.TimmWrapperConfig(
                architecture="repvit_m1",
                model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
            )
            vision = transformers.EdgeTamVisionConfig(backbone_config=backbone.to_dict())
            network = transformers.EdgeTamModel(transformers.EdgeTamConfig(vision_config=vision.to_dict()))
        else:
            network = transformers.Sam2Model(transformers.Sam2Config())
    return HfSamSegmenter(network, processor, device="cpu", **given)


def work(model: str, engine: str, threads: int, *, warm_only: bool = False) -> None:
    """Load, say so, then for every line on stdin make one cold click and some warm ones: a line of JSON each.

    ``warm_only``: what would be further cold clicks are warm ones, too.
    """
    import torch

    from backend.pipeline.types import Prompts

    torch.set_num_threads(threads)
    segmenter = segmenter_of(model, engine)
    print(json.dumps({"loaded": True}), flush=True)
    for number, _ in enumerate(sys.stdin):
        image = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        place = np.array([[300, 400]], np.float32)
        start, cpu = time.perf_counter(), time.process_time()
        if not (number and warm_only):
            embedding = segmenter.embed(image)
        mask = segmenter.decode(embedding, Prompts(place, np.ones(1, np.int64))).mask
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        warm, warm_cpu = time.perf_counter(), time.process_time()
        for again in range(WARM_CLICKS):
            segmenter.decode(embedding, Prompts(place + again, np.ones(1, np.int64)))
        warm, warm_cpu = time.perf_counter() - warm, time.process_time() - warm_cpu
        answer = {
            "ms": seconds * 1e3,
            "cpu_ms": cpu * 1e3,
            "warm_ms": warm * 1e3 / WARM_CLICKS,
            "warm_cpu_ms": warm_cpu * 1e3 / WARM_CLICKS,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "torch_library_mib": library_mib(),
            "pixels": int(mask.sum()),
        }
        print(json.dumps(answer), flush=True)


def library_mib(process: int | str = "self") -> float:
    """MiB of a process' memory that are pages of the files of torch and of NVIDIA's libraries."""
    mine, kib = False, 0
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        if "-" in (first := line.split(maxsplit=1)[0]) and not first.endswith(":"):
            mine = any(part in line for part in ("/torch/lib/", "/nvidia/", "/triton/"))
        elif mine and first == "Rss:":
            kib += int(line.split()[1])
    return kib / 1024


def products(threads: int) -> float:
    """10^9 floating point operations per CPU second of the fastest float32 product."""
    import torch
    from torch import nn

    from backend.pipeline.segmentation.openvino_engine import compile_network

    torch.set_num_threads(threads)
    layer = nn.Linear(768, 3072, bias=False).eval().requires_grad_(False)
    tokens = torch.randn(4096, 768)
    fast: list[Callable[[torch.Tensor], Any]] = [layer, compile_network(layer, [torch.zeros_like(tokens)])]
    seconds = []
    for run in fast:
        for _ in range(12):
            start = time.process_time()
            run(tokens)
            seconds.append(time.process_time() - start)
    return 2 * 4096 * 768 * 3072 / 1e9 / min(seconds)


@contextlib.contextmanager
def worker(model: str, engine: str, threads: int, *, warm_only: bool) -> Iterator[subprocess.Popen[str]]:
    """A process that has loaded; ended afterwards."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.cold_click", "--worker", model, engine]
    command += ["--threads", str(threads), *(["--warm"] if warm_only else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.communicate()  # the end of its input ends it


def click(process: subprocess.Popen[str]) -> dict[str, float]:
    """One cold click of a worker and what followed."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    answer: dict[str, float] = json.loads(process.stdout.readline())
    return answer


def measure(
    models: list[str], repeats: int, threads: int, *, alone: bool = False, warm_only: bool = False
) -> dict[str, dict[str, float]]:
    """Medians in milliseconds of clicks taken in turn, their ratios, and peak memory.

    ``alone``: one model after another; ``warm_only``: rows of warm clicks, in float32.
    """
    engines = [name for name in ENGINES if not (warm_only and name.endswith("bf16"))]
    found: Answers = {model: {engine: [] for engine in engines} for model in models}
    pairs = [(model, engine) for model in models for engine in engines]
    for together in [[pair] for pair in pairs] if alone else [pairs]:
        with contextlib.ExitStack() as stack:
            workers = {pair: stack.enter_context(worker(*pair, threads, warm_only=warm_only)) for pair in together}
            for _ in range(repeats):
                for (model, engine), process in workers.items():
                    found[model][engine].append(click(process))
                    print(model, engine, found[model][engine][-1], file=sys.stderr, flush=True)
    if not warm_only:
        return rows(found, products(threads))
    return {name: row for name, row in rows(found, 1.0).items() if name.startswith("warm")}


def rows(found: Answers, gflops: float) -> dict[str, dict[str, float]]:
    """What was measured as rows; ``gflops`` is the fastest float32 product."""

    def median(values: list[dict[str, float]], key: str) -> float:
        return statistics.median(value[key] for value in values)

    def ratio(others: list[dict[str, float]], ours: list[dict[str, float]], key: str) -> float:
        return statistics.median(b[key] / a[key] for a, b in zip(ours, others, strict=True))

    table: dict[str, dict[str, float]] = {}
    vit_b = found.get("vit_b", {}).get("openvino f32")
    for model, engines in found.items():
        torch = engines["torch"]
        for engine in list(engines)[1:]:
            answers = engines[engine]
            row = table[f"cold click {SIDE}, {model} {engine}"] = {
                "ms": median(answers, "ms"),
                "torch_ms": median(torch, "ms"),
                "ratio": ratio(torch, answers, "ms"),
                "cpu_ms": median(answers, "cpu_ms"),
                "cpu_ratio": ratio(torch, answers, "cpu_ms"),
                "peak_mib": answers[-1]["peak_mib"],
                "torch_library_mib": answers[-1]["torch_library_mib"],
                "torch_peak_mib": torch[-1]["peak_mib"],
            }
            if model == "vit_b" and engine == "openvino f32":
                row["share_of_peak"] = VIT_B_GFLOP / (row["cpu_ms"] / 1e3) / gflops
            elif vit_b:
                row["cpu_of_vit_b"] = 1 / ratio(vit_b, answers, "cpu_ms")
            warm = table[f"warm click {SIDE}, {model} {engine}"] = {
                "ms": median(answers, "warm_ms"),
                "torch_ms": median(torch, "warm_ms"),
                "ratio": ratio(torch, answers, "warm_ms"),
                "cpu_ms": median(answers, "warm_cpu_ms"),
                "cpu_ratio": ratio(torch, answers, "warm_cpu_ms"),
            }
            if vit_b:
                warm["cpu_of_vit_b"] = 1 / ratio(vit_b, answers, "warm_cpu_ms")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of each engine")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["vit_b", "sam2_hiera_tiny"])
    parser.add_argument("--alone", action="store_true", help="one process at a time: a quarter of the memory, no pairs")
    parser.add_argument("--warm", action="store_true", help="one cold click a model, then warm ones only, in float32")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        model, engine = arguments.worker
        work(model, engine, arguments.threads, warm_only=arguments.warm)
        return
    results = measure(
        arguments.models, arguments.repeats, arguments.threads, alone=arguments.alone, warm_only=arguments.warm
    )
    if arguments.json:
        print(json.dumps(results))
        return
    for name, row in results.items():
        more = "".join(f", {key} {value:.2f}" for key, value in row.items() if key in ("share_of_peak", "cpu_of_vit_b"))
        if "peak_mib" in row:
            more += f", peak {row['peak_mib']:.0f} MiB ({row['torch_library_mib']:.0f} of them torch's libraries)"
        print(
            f"{name:42} {row['ms']:8.0f} ms, torch {row['torch_ms']:8.0f} ms, ratio {row['ratio']:.2f}, of CPU time"
            f" {row['cpu_ratio']:.2f}{more}"
        )


if __name__ == "__main__":
    main()

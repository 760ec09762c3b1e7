"""A cold click with ViT-B: an image that was never embedded, one click, its mask: ``python -m benchmarks.cold_click``.

Torch eager (segment-anything's own encoder) against OpenVINO in float32, which gives the same masks, and in bfloat16.
Each runs in a process of its own, in turn, so that its peak memory is known; weights are random. The ratio of CPU times
holds on a machine that others use too; run it with one thread then, since waiting threads spin.
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
from collections.abc import Iterator

import numpy as np

SIDE = 1024
ENGINES = {"torch": ("torch", False), "openvino f32": ("openvino", False), "openvino bf16": ("openvino", True)}


def work(name: str, threads: int) -> None:
    """Load, say so, then for every line on stdin make one cold click: a line of JSON on stdout each."""
    import torch
    from segment_anything import sam_model_registry

    from backend.pipeline.segmentation.sam import SamSegmenter
    from backend.pipeline.types import Prompts

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    engine, autocast = ENGINES[name]
    sam = sam_model_registry["vit_b"]()
    segmenter = SamSegmenter(sam, weights_hash="random", autocast=autocast, engine=engine)  # type: ignore[arg-type]
    print(json.dumps({"loaded": True}), flush=True)
    click = Prompts(np.array([[300, 400]], np.float32), np.ones(1, np.int64))
    for number, _ in enumerate(sys.stdin):
        image = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        start, cpu = time.perf_counter(), time.process_time()
        mask = segmenter.decode(segmenter.embed(image), click).mask
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        answer = {"ms": seconds * 1e3, "cpu_ms": cpu * 1e3, "peak_mib": peak, "pixels": int(mask.sum())}
        print(json.dumps(answer), flush=True)


@contextlib.contextmanager
def worker(name: str, threads: int) -> Iterator[subprocess.Popen[str]]:
    """A process that has loaded; ended afterwards."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.cold_click",
        "--worker",
        name,
        "--threads",
        str(threads),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.communicate()  # the end of its input ends it


def click(process: subprocess.Popen[str]) -> dict[str, float]:
    """One cold click of a worker."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    answer: dict[str, float] = json.loads(process.stdout.readline())
    return answer


def measure(repeats: int, threads: int) -> dict[str, dict[str, float]]:
    """Medians in milliseconds of clicks taken in turn, the ratios to torch, and peak memory."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ENGINES}
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(worker(name, threads)) for name in ENGINES}
        for _ in range(repeats):
            for name, process in workers.items():
                found[name].append(click(process))
    times, cpu = (
        {name: [answer[key] for answer in answers] for name, answers in found.items()} for key in ("ms", "cpu_ms")
    )
    return {
        f"cold click {SIDE}, {name}": {
            "ms": statistics.median(times[name]),
            "torch_ms": statistics.median(times["torch"]),
            "ratio": statistics.median(b / a for a, b in zip(times[name], times["torch"], strict=True)),
            "cpu_ms": statistics.median(cpu[name]),
            "cpu_ratio": statistics.median(b / a for a, b in zip(cpu[name], cpu["torch"], strict=True)),
            "peak_mib": found[name][-1]["peak_mib"],
            "torch_peak_mib": found["torch"][-1]["peak_mib"],
        }
        for name in list(ENGINES)[1:]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of each engine")
    parser.add_argument("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.threads)
        return
    results = measure(arguments.repeats, arguments.threads)
    if arguments.json:
        print(json.dumps(results))
        return
    for name, row in results.items():
        print(
            f"{name:30} {row['ms']:8.0f} ms, torch {row['torch_ms']:8.0f} ms, ratio {row['ratio']:.2f},"
            f" of CPU time {row['cpu_ratio']:.2f},"
            f" peak {row['peak_mib']:.0f} MiB, torch {row['torch_peak_mib']:.0f} MiB"
        )


if __name__ == "__main__":
    main()

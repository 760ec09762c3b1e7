"""Training by several processes (torchrun): who I am, what we share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

__all__ = ["Processes", "device_of", "processes"]


@dataclass(frozen=True)
class Processes:
    """This process among those of one training.

    Attributes:
        index: from 0; process 0 writes the run's files.
        count: 1 without torchrun.
        device: this process's GPU, or the CPU.
    """

    index: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.index == 0

    def share(self, value: Any) -> Any:
        """Process 0's ``value``, in every process (tensors and plain values)."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def total(self, values: list[float]) -> list[float]:
        """The sums of ``values`` over the processes."""
        if self.count == 1:
            return values
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(sums)
        return [float(value) for value in sums]


def device_of(name: str) -> torch.device:
    """``auto``: the GPU if there is one, else the CPU; every other name as torch knows it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """The processes that torchrun started (NCCL on GPUs, Gloo on CPUs), or this one alone.

    Args:
        device: ``cpu``, ``cuda`` (each process takes the GPU of its local rank) or ``auto`` (``cuda`` if there is one).
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = device_of(device)
    if chosen == torch.device("cuda"):
        chosen = torch.device(f"cuda:{local}")
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), count, chosen)
    finally:
        distributed.destroy_process_group()

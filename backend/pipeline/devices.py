"""Where a network computes, and in which precision.

A GPU whose memory does not suffice: the work is done on the CPU instead, counted, and said once in the log. bfloat16
where it saves time: on GPUs, and on CPUs that multiply it.
"""

from __future__ import annotations

import copy
import gc
import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import nn

__all__ = ["MemoryFallback", "in_bfloat16", "multiplies_bfloat16", "placed", "resolved"]

logger = logging.getLogger(__name__)

ModuleT = TypeVar("ModuleT", bound=nn.Module)
ResultT = TypeVar("ResultT")


class MemoryFallback(Generic[ModuleT]):
    """Runs a network where it is, and once more on the CPU if the device runs out of memory.

    The network stays on its device: memory is often short for a moment only, when others use the same GPU. The copy on
    the CPU is made when it is first needed and kept. Safe for threads.

    Args:
        module: a network that is only read.
        what: its name in the log.

    Attributes:
        count: called once for each run that had to be repeated on the CPU.
    """

    def __init__(self, module: ModuleT, what: str) -> None:
        self._module = module
        self._what = what
        self._on_cpu: ModuleT | None = None
        self._lock = threading.Lock()
        self.count: Callable[[], object] = lambda: None

    def run(self, compute: Callable[[ModuleT], ResultT]) -> ResultT:
        """``compute`` of the network, or of its copy on the CPU; must move its inputs to where the network is."""
        try:
            return compute(self._module)
        except torch.OutOfMemoryError as error:
            reason = str(error).splitlines()[0]
        # Outside of the handler: the exception's traceback kept the tensors of the failed attempt alive.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.count()
        return compute(self._copy(reason))

    def _copy(self, reason: str) -> ModuleT:
        with self._lock:
            if self._on_cpu is None:
                logger.warning(
                    "%s does not fit into the GPU's memory (%s): it runs on the CPU whenever that happens, slowly. "
                    "Use a smaller model, half precision (autocast), or device: cpu",
                    self._what,
                    reason,
                )
                self._on_cpu = _cpu_copy(self._module)
            return self._on_cpu


def resolved(name: str) -> str:
    """``auto`` as the GPU if there is one, else the CPU; every other name as it is."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def placed(module: ModuleT, device: str, what: str) -> ModuleT:
    """``module`` moved to ``device``, or left on the CPU with a warning if it does not fit."""
    try:
        return module.to(device)
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
    logger.warning("%s does not fit into the memory of %s (%s): it stays on the CPU", what, device, reason)
    return module.to("cpu")


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 natively.

    A CPU without AVX512-BF16 (or AMX, which comes with it) emulates it: up to a hundred times slower than float32, and
    oneDNN's fused convolutions refuse it where there is no AVX-512 at all.
    """
    return device.type != "cpu" or bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def in_bfloat16(device: torch.device, wanted: bool = True) -> torch.autocast:
    """The context in which a network on ``device`` computes in bfloat16, if that is ``wanted`` and saves time there."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and multiplies_bfloat16(device))


def _cpu_copy(module: ModuleT) -> ModuleT:
    """A copy on the CPU, made without a byte of the device's memory."""
    memo: dict[int, object] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("cpu", copy=True), requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.detach().to("cpu", copy=True)
    return copy.deepcopy(module, memo)

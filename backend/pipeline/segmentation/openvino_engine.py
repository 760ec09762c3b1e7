"""OpenVINO as the engine of a torch network on CPUs: the same numbers in float32, in a fraction of the time.

torch's matrix products do not use AVX-512 on every CPU; OpenVINO's do. Nothing leaves the machine: the network is read
through OpenVINO's own front end, not through its conversion tool, which reports its use to Intel.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from backend.errors import ConfigError

__all__ = ["CompiledNetwork", "compile_network"]

Precision = Literal["f32", "bf16"]


class CompiledNetwork:
    """A network that OpenVINO runs. Thread-safe: one call at a time, since each uses all of its threads."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._outputs = len(compiled.outputs)
        self._lock = threading.Lock()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The network's outputs for float32 ``inputs`` on the CPU, as tensors of their own."""
        arrays = [np.ascontiguousarray(tensor.numpy()) for tensor in inputs]
        with self._lock:
            found = self._request.infer(arrays, share_inputs=True, share_outputs=False)
            return tuple(torch.from_numpy(np.asarray(found[index])) for index in range(self._outputs))


def compile_network(
    network: nn.Module,
    example: Sequence[Tensor],
    *,
    shapes: Mapping[int, Sequence[int]] | None = None,
    precision: Precision = "f32",
    threads: int | None = None,
) -> CompiledNetwork:
    """``network`` in evaluation mode, as OpenVINO runs it.

    Args:
        network: a module on the CPU whose inputs and outputs are float32 tensors.
        example: inputs to trace it with; their shapes are the only ones that it takes, except for ``shapes``.
        shapes: input's place -> its shape, -1 for sides of any length.
        precision: ``f32`` is exact; ``bf16`` is faster where the CPU has it, and rounds.
        threads: None takes as many as torch has now.

    Raises:
        ConfigError: OpenVINO is not installed.
    """
    try:
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    except ImportError as error:
        raise ConfigError(
            f'segmenter.engine is openvino, which is not installed ({error}): pip install "pslg-sam[openvino]", or'
            " set it to torch"
        ) from error
    wanted: dict[int, list[int]] = {place: list(tensor.shape) for place, tensor in enumerate(example)}
    wanted.update({place: list(shape) for place, shape in (shapes or {}).items()})
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the tracer's: it is deprecated, and constants of the network are constants
        frontend = FrontEndManager().load_by_framework("pytorch")
        traced = TorchScriptPythonDecoder(network, example_input=tuple(example))  # named, for convert() reads it too
        model = frontend.convert(frontend.load(traced))
    model.reshape(wanted)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,  # the default is bf16 on CPUs that have it
        "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
    }
    return CompiledNetwork(openvino.Core().compile_model(model, "CPU", settings))

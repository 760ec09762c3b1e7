"""OpenVINO as the engine of a torch network on CPUs: the same numbers in float32, in a fraction of the time.

torch's matrix products do not use AVX-512 on every CPU; OpenVINO's do. The network is read as torch exports it, which
runs nothing: tracing ViT-B would take 4 GB and a minute. Nothing leaves the machine: OpenVINO's front end is used, not
its conversion tool, which reports its use to Intel.
"""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from backend.memory import give_back
from dataset_tools.errors import ConfigError

__all__ = ["CompiledNetwork", "compile_network"]

Precision = Literal["f32", "bf16"]


class CompiledNetwork:
    """A network that OpenVINO runs. Thread-safe: one call at a time, since each uses all of its threads.

    Args:
        compiled: OpenVINO's model.
        forgetful: free the memory of what lies between inputs and outputs after each call.
    """

    def __init__(self, compiled: Any, *, forgetful: bool = False) -> None:
        self._compiled = compiled
        self._forgetful = forgetful
        self._request = compiled.create_infer_request()
        self._outputs = len(compiled.outputs)
        self._lock = threading.Lock()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The network's outputs for float32 ``inputs`` on the CPU, as tensors of their own."""
        arrays = [np.ascontiguousarray(tensor.numpy()) for tensor in inputs]
        with self._lock:
            found = self._request.infer(arrays, share_inputs=True, share_outputs=False)
            outputs = tuple(torch.from_numpy(np.asarray(found[index])) for index in range(self._outputs))
            if self._forgetful:
                self._compiled.release_memory()
            return outputs


def compile_network(
    network: nn.Module,
    example: Sequence[Tensor],
    *,
    varying: Sequence[int] = (),
    precision: Precision = "f32",
    threads: int | None = None,
    forgetful: bool = False,
) -> CompiledNetwork:
    """``network`` in evaluation mode, as OpenVINO runs it.

    Args:
        network: a module on the CPU whose inputs and outputs are float32 tensors.
        example: inputs of the only shapes that it takes, except for ``varying``.
        varying: places of the inputs whose first side may have any length from 2 on.
        precision: ``f32`` is exact; ``bf16`` is faster where the CPU has it, and rounds.
        threads: None takes as many as torch has now.
        forgetful: see ``CompiledNetwork``; of an encoder, that memory is as much as the rest of it.

    Raises:
        ConfigError: OpenVINO is not installed.
    """
    try:
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
    except ImportError as error:
        raise ConfigError(
            f'segmenter.engine is openvino, which is not installed ({error}): pip install "pslg-sam[openvino]", or'
            " set it to torch"
        ) from error
    any_length = {0: torch.export.Dim.DYNAMIC}
    dynamic = tuple(any_length if place in varying else None for place in range(len(example)))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch.export about its own parts
        program = torch.export.export(network, tuple(example), dynamic_shapes=dynamic if varying else None)
        graph = program.run_decompositions(_decompositions()).module()
        exported = TorchFXPythonDecoder(graph, dynamic_shapes=bool(varying))
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(exported))
    model.reshape({i: [-1 if i in varying else len(x), *x.shape[1:]] for i, x in enumerate(example)})
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,  # the default is bf16 on CPUs that have it
        "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
    }
    with ThreadPoolExecutor(1, "openvino") as other:
        # OpenVINO gives the thread that compiles a signal stack of its own and frees it with the model, in whichever
        # thread that is; the next signal that Python handles there would end the process. So a thread that ends does
        # it.
        compiled = other.submit(openvino.Core().compile_model, model, "CPU", settings).result()
    del program, graph, exported, frontend, model
    gc.collect()  # the exported graphs refer to each other
    give_back()
    return CompiledNetwork(compiled, forgetful=forgetful)


def _decompositions() -> Any:
    """torch's table of operations to take apart, less those that OpenVINO knows as they are."""
    from openvino.frontend.pytorch.torchdynamo.export_decompositions import ops_to_not_decompose
    from torch.export.decomp_utils import CustomDecompTable

    table: Any = CustomDecompTable()  # type: ignore[no-untyped-call]
    # OpenVINO's own list lacks the layer norm, whose parts take five passes over the features instead of one.
    for operation in (*ops_to_not_decompose(), torch.ops.aten.native_layer_norm.default):
        if operation in table:
            table.pop(operation)
    return table

"""A training run's folder: configuration, log, checkpoints, best weights and curves.

Layout of the folder, every file but the log written atomically::

    config.yaml        the configuration the run was started with; a resumed run must have the same
    log.jsonl          one JSON object per line: {"step": int, "kind": "train" | "validation", "seconds": float, ...}
    checkpoint.pt      everything needed to go on; loads with ``weights_only=True``
    plateau.pt         the checkpoint before the rate fell: put in checkpoint.pt's place, it prolongs the run
    best.safetensors   the weights with the best value of the run's criterion
    best.json          {"step": int, "criterion": str, "value": float}
    curves.png         one panel per logged quantity

Random numbers come from ``step_generator(seed, step)``: what a step draws depends on nothing but seed and step, so a
resumed run draws what an uninterrupted one would have drawn, without generator states in the checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from backend.pipeline.weights.safetensors_bytes import serialized
from dataset_tools import atomic
from dataset_tools.errors import ConfigError, WeightsError

__all__ = [
    "IMAGENET",
    "Ema",
    "TrainingRun",
    "load_recipe",
    "parameter_groups",
    "read_weights",
    "save_weights",
    "seed_everything",
    "step_generator",
]

IMAGENET = "imagenet"
"""Value of ``init`` that starts a backbone from ImageNet's weights and everything else from nothing."""


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The mapping in the YAML file ``path`` with ``overrides`` applied.

    Args:
        path: YAML file holding one mapping.
        overrides: ``key=value`` or ``section.key=value``; the value is read as YAML.

    Raises:
        ConfigError: the file is missing or no mapping; an override is malformed or names an unknown key.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the training config {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"the training config {path} is not valid YAML: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"the training config {path} must hold a mapping, found {type(config).__name__}")
    for override in overrides:
        key, separator, value = override.partition("=")
        section: Any = config
        *parents, leaf = key.split(".")
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if not separator or not isinstance(section, dict) or leaf not in section:
            raise ConfigError(f"override {override!r} must read key=value with a key of {path}, e.g. seed=1")
        section[leaf] = yaml.safe_load(value)
    return config


def seed_everything(seed: int) -> None:
    """Seed torch's global generator, which initialises weights; draws during training use ``step_generator``."""
    torch.manual_seed(seed)


def step_generator(seed: int, step: int) -> np.random.Generator:
    """A numpy generator that depends on ``seed`` and ``step`` only."""
    return np.random.default_rng((seed, step))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in the safetensors file ``path``, half precision made float32.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    try:
        tensors = load_file(path)
    except FileNotFoundError as error:
        raise WeightsError(f"no weights to start from at {path}: train the stage before or set init to null") from error
    except SafetensorError as error:
        raise WeightsError(f"the weights {path} are damaged ({error}): restore the file") from error
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def save_weights(
    path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None, metadata: dict[str, str] | None = None
) -> None:
    """Write ``tensors`` to the safetensors file ``path`` atomically, floating ones cast to ``dtype`` if given."""
    ready = {
        name: (value.detach().to(dtype) if dtype is not None and value.is_floating_point() else value.detach())
        .contiguous()
        .cpu()
        for name, value in tensors.items()
    }
    atomic.write_bytes(path, serialized(ready, metadata))


class Ema:
    """Exponential moving average of a module's parameters; its buffers (BatchNorm statistics) are averaged alike.

    Args:
        module: the module that is trained.
        decay: weight of the past; the first steps use less, (1 + n) / (10 + n), so that the average forgets the start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.tensors = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's present values."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in module.state_dict().items():
            average = self.tensors[name]
            if average.is_floating_point():
                average.lerp_(value.to(average.dtype), 1 - decay)
            else:
                average.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"updates": self.updates, "tensors": self.tensors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""
        self.updates = int(state["updates"])
        self.tensors = {
            name: value.to(self.tensors[name].device, copy=True) for name, value in state["tensors"].items()
        }


class TrainingRun:
    """Bookkeeping of one training run in ``folder``; the training loop itself belongs to the model.

    Args:
        folder: checked at once, so that another run's is refused before images are read; made and written to by
            ``restore``, so that a training whose data cannot be read leaves nothing behind.
        config: plain values only (it is written as YAML and compared when resuming).
        criterion: name of the validation quantity that selects the best weights.
        mode: whether a larger or a smaller criterion is better.
        resume: go on from the folder's checkpoint; without one the run starts from the beginning.
        curves: whether ``plot`` draws; not worth its seconds in a folder that nobody will look at.

    Raises:
        ConfigError: the folder holds a run and ``resume`` is False, or its config differs from ``config``.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *,
        criterion: str,
        mode: Literal["max", "min"] = "max",
        resume: bool = False,
        curves: bool = True,
    ) -> None:
        self.folder = folder
        self.config = dict(config)
        self.curves = curves
        self.criterion = criterion
        self.mode = mode
        self.best_value: float | None = None
        self._seconds_before = 0.0
        self._started = time.monotonic()
        if (folder / "config.yaml").exists():
            if not resume:
                raise ConfigError(f"{folder} already holds a run: continue it with --resume or choose another --out")
            before = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
            changed = sorted(key for key in {*before, *config} if before.get(key) != config.get(key))
            if changed:
                raise ConfigError(
                    f"{folder} was started with another config ({', '.join(changed)} differ): resume with that config "
                    "or choose another --out"
                )

    @property
    def seconds(self) -> float:
        """Time spent training, earlier parts of a resumed run included."""
        return self._seconds_before + time.monotonic() - self._started

    def restore(self) -> dict[str, Any] | None:
        """What the last ``save`` was given, with ``step``; None at the start. Later lines of the log are dropped.

        From here on the folder is this run's: it is made, and the config written.

        Raises:
            WeightsError: the checkpoint is damaged.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic.write_text(self.folder / "config.yaml", yaml.safe_dump(self.config, sort_keys=False))
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            atomic.write_text(self.folder / "log.jsonl", "")
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            self.best_value = state["run"]["best_value"]
            self._seconds_before = state["run"]["seconds"]
        except Exception as error:
            raise WeightsError(f"the checkpoint {path} is damaged ({error}): delete it to start again") from error
        self._started = time.monotonic()
        kept = [line for line in self.entries() if line["step"] <= state["step"]]
        atomic.write_text(self.folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        return state

    def save(self, step: int, **state: Any) -> None:
        """Write the checkpoint: ``state`` must hold tensors and plain values only (state dicts)."""
        run = {"best_value": self.best_value, "seconds": self.seconds}
        with atomic.open_bytes(self.folder / "checkpoint.pt") as file:
            torch.save({"step": step, "run": run, **state}, file)

    @property
    def has_plateau(self) -> bool:
        """Whether the checkpoint before the decay of the rate was kept."""
        return (self.folder / "plateau.pt").exists()

    def keep_plateau(self) -> None:
        """Keep the present checkpoint beside the next ones: a later run can go on where the rate was still high."""
        atomic.write_bytes(self.folder / "plateau.pt", (self.folder / "checkpoint.pt").read_bytes())

    def log(self, kind: Literal["train", "validation"], step: int, **values: float) -> None:
        """Append one line of ``values`` to the log."""
        line = {"step": step, "kind": kind, "seconds": round(self.seconds, 1)}
        line |= {name: round(float(value), 6) for name, value in values.items()}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def entries(self) -> list[dict[str, Any]]:
        """The lines of the log."""
        path = self.folder / "log.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def keep_if_best(self, step: int, value: float, tensors: Mapping[str, Tensor]) -> bool:
        """Write ``tensors`` as the best weights if ``value`` of the criterion beats every earlier one."""
        if self.best_value is not None and (value <= self.best_value) == (self.mode == "max"):
            return False
        self.keep(step, value, tensors)
        return True

    def keep(self, step: int, value: float, tensors: Mapping[str, Tensor]) -> None:
        """Write ``tensors`` as the best weights, whatever came before."""
        self.best_value = value
        save_weights(self.folder / "best.safetensors", tensors)
        best = {"step": step, "criterion": self.criterion, "value": value}
        atomic.write_text(self.folder / "best.json", json.dumps(best) + "\n")

    def plot(self) -> None:
        """Draw ``curves.png``: one panel per logged quantity over the steps."""
        if not self.curves:
            return
        from matplotlib.figure import Figure

        series: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
        for line in self.entries():
            for name, value in line.items():
                if name not in ("step", "kind", "seconds"):
                    steps, values = series.setdefault(name, {}).setdefault(line["kind"], ([], []))
                    steps.append(line["step"])
                    values.append(value)
        if not series:
            return
        columns = min(4, len(series))
        rows = -(-len(series) // columns)
        figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
        for panel, (name, by_kind) in zip(
            figure.subplots(rows, columns, squeeze=False).flat, series.items(), strict=False
        ):
            for kind, (steps, values) in by_kind.items():
                panel.plot(steps, values, label=kind, linewidth=1)
            panel.set_title(name)
            panel.set_xlabel("step")
            panel.legend()
        with atomic.open_bytes(self.folder / "curves.png") as file:
            figure.savefig(file, format="png", dpi=80)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters for an optimizer; weight decay for matrices and kernels only."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]

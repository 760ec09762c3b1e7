"""Puts a training run of LQVG together: network, data, processes, and the checkpoint in the published layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from backend.pipeline.grounding.lqvg import load_lqvg
from backend.pipeline.grounding.lqvg.architecture import Architecture
from backend.pipeline.grounding.lqvg.checkpoint import checkpoint_content
from backend.pipeline.grounding.lqvg.inference import load_tokenizer
from backend.pipeline.grounding.lqvg.network import LqvgNetwork
from backend.pipeline.weights.refusals import refusal
from backend.training.lqvg.data import grounding_examples
from backend.training.lqvg.settings import LqvgSettings
from backend.training.lqvg.training import train_lqvg
from backend.training.processes import processes
from backend.training.run import TrainingRun, seed_everything
from dataset_tools import atomic
from dataset_tools.errors import ConfigError, WeightsError

__all__ = ["run_lqvg_training"]


def run_lqvg_training(
    data: Path,
    tokenizer: Path,
    out: Path,
    config: dict[str, Any],
    *,
    split: str = "train",
    validation_split: str = "val",
    device: str = "auto",
    resume: bool = False,
) -> Path:
    """Train by ``config``; called by every process of a torchrun.

    Args:
        data: a dataset folder of any format, DIOR-RSVG and REFER among them.
        tokenizer: folder with roberta-base's ``vocab.json`` and ``merges.txt``.
        out: folder of the run.
        config: the keys of ``backend/training/lqvg/lqvg.yaml``.
        split: of ``data``, to train on.
        validation_split: of ``data``, selects the best weights.
        device: ``auto``, ``cpu`` or ``cuda``.
        resume: go on from the run's last checkpoint.

    Returns:
        ``out/lqvg.pth``: the best weights by ``P@0.5`` in the published file's layout.

    Raises:
        ConfigError: the config cannot work, or ``out`` holds another run.
        DatasetError: the data is missing, damaged or of an unknown layout.
        WeightsError: weights to start from, or the tokenizer, are missing or of another kind.
    """
    weights = out / "lqvg.pth"
    settings = LqvgSettings.of(config)
    with processes(device) as group:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        started_with = {**config, "data": str(data), "split": split, "validation_split": validation_split}
        run = TrainingRun(out, started_with, criterion="P@0.5", resume=resume) if group.is_first else None
        words = load_tokenizer(tokenizer)
        training, validation = grounding_examples(data, split), grounding_examples(data, validation_split)
        network = first_network(settings)
        if words.vocabulary > network.architecture.vocabulary:
            raise ConfigError(
                f"the tokenizer in {tokenizer} has {words.vocabulary} entries, the network only "
                f"{network.architecture.vocabulary}: set architecture.vocabulary or give its own tokenizer"
            )
        train_lqvg(run, settings, network, words, training, validation, group)
        if run is not None:
            from safetensors.torch import load_file

            network.load_state_dict(load_file(out / "best.safetensors"))
            with atomic.open_bytes(weights) as file:
                torch.save(checkpoint_content(network.cpu()), file)
    return weights


def first_network(settings: LqvgSettings) -> LqvgNetwork:
    """The network a run starts from: ``init``, or random weights with ``resnet`` and ``roberta`` put in.

    Raises:
        WeightsError: a file is missing, damaged or of another kind.
    """
    seed_everything(settings.seed)
    if settings.init:
        network = load_lqvg(Path(settings.init))
        if not isinstance(network, LqvgNetwork):
            raise TypeError(f"load_lqvg returned {type(network).__name__}")
        return network
    network = LqvgNetwork(settings.architecture or Architecture())
    if settings.resnet:
        _load_part(
            network.get_submodule("backbone.0.body"), Path(settings.resnet), dropped=("fc.", "num_batches_tracked")
        )
    if settings.roberta:
        _load_roberta(network, Path(settings.roberta))
    return network


def _load_part(module: torch.nn.Module, path: Path, dropped: tuple[str, ...]) -> None:
    """Put the state dict in ``path`` into ``module``, without the names that hold one of ``dropped``."""
    try:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling damaged data raises whatever it likes
            raise refusal(path, error) from error
        module.load_state_dict({n: t for n, t in state.items() if not any(part in n for part in dropped)})
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"{path} does not hold the weights of this {type(module).__name__}: {error}") from error


def _load_roberta(network: LqvgNetwork, folder: Path) -> None:
    from transformers import RobertaModel

    try:
        found = RobertaModel.from_pretrained(folder, local_files_only=True)  # nosec B615 # a local folder
        network.text_encoder.load_state_dict(found.state_dict())
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{folder} does not hold the RoBERTa of this architecture: {error}") from error

"""From a config to the pipeline that it describes: adapters, their options, weights, devices."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from backend.memory import use_huge_pages
from backend.pipeline.config import GROUNDERS, SEGMENTERS, PipelineConfig, SegmenterConfig, load_config
from backend.pipeline.grounding import Grounder
from backend.pipeline.options import with_environment
from backend.pipeline.pslg_sam import PslgSam
from backend.pipeline.segmentation import Segmenter
from backend.pipeline.weights import registry as weight_files
from dataset_tools.errors import ConfigError

__all__ = ["load_pipeline", "load_segmenter"]

_OWN_KEYWORDS = (
    "weights",
    "device",
    "embedding_dtype",
    "tokenizer",
    "engine",
    "shared",
)  # the config has keys of its own for them


def load_pipeline(config: str | Path | PipelineConfig) -> PslgSam:
    """Build the pipeline of a config: a shipped one's name, a YAML file's path, or a checked ``PipelineConfig``.

    Raises:
        ConfigError: the config cannot work.
        WeightsError: weights are missing, damaged or of another kind; the message says what to run.
    """
    use_huge_pages()
    if not isinstance(config, PipelineConfig):
        config = load_config(config)
    make_grounder, options = _adapter(GROUNDERS[config.grounder.kind], "grounder", config.grounder.options)
    _adapter(SEGMENTERS[config.segmenter.kind], "segmenter", config.segmenter.options)
    parameters = inspect.signature(make_grounder).parameters
    wanted = "weights" in parameters and parameters["weights"].default is inspect.Parameter.empty
    if (config.grounder.weights is None and wanted) or (config.grounder.weights and "weights" not in parameters):
        raise ConfigError(
            f"grounder.weights: {'missing; a' if config.grounder.weights is None else 'not taken; no'} grounder of kind"
            f" {config.grounder.kind} has weights"
        )
    files = weight_files.resolve(config)
    if config.threads is not None:
        _set_threads(config.threads)
    if files.grounder is not None:
        options["weights"] = files.grounder
    if files.tokenizer is not None:
        options["tokenizer"] = files.tokenizer
    if "device" in parameters:
        options["device"] = _resolved(config.device)
    shared: dict[Any, Any] = {}  # what grounder and segmenter of one checkpoint have in common
    if "shared" in parameters:
        options["shared"] = shared
    grounder = make_grounder(**options)
    if config.mask_from == "grounder" and not getattr(grounder, "outlines", False):
        raise ConfigError(
            f"mask_from is grounder, but a grounder of kind {config.grounder.kind} finds boxes only; use segmenter"
        )
    segmenter = load_segmenter(config.segmenter, device=config.device, shared=shared)
    return PslgSam(cast(Grounder, grounder), segmenter, config, weight_files.model_version(config))


def load_segmenter(config: SegmenterConfig, *, device: str = "auto", shared: dict[Any, Any] | None = None) -> Segmenter:
    """The promptable model alone, as ``load_pipeline`` builds it; the same errors.

    ``shared`` holds what a grounder of the same checkpoint brought.
    """
    use_huge_pages()
    make, options = _adapter(SEGMENTERS[config.kind], "segmenter", config.options)
    keywords: dict[str, Any] = {"embedding_dtype": config.embedding_dtype, **options}
    if shared is not None and "shared" in inspect.signature(make).parameters:
        keywords["shared"] = shared
    if config.engine != "torch":
        if "engine" not in inspect.signature(make).parameters:
            raise ConfigError(
                f"segmenter.engine: {config.engine} cannot run a segmenter of kind {config.kind}; use torch"
            )
        keywords["engine"] = config.engine
        device = "cpu" if device == "auto" else device
    return cast(Segmenter, make(weight_files.require(config.weights), device=_resolved(device), **keywords))


def _resolved(device: str) -> str:
    from backend.pipeline.devices import resolved  # which imports torch

    return resolved(device)


def _set_threads(count: int) -> None:
    import cv2
    import torch

    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def _adapter(target: str, section: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function ``module:function`` and the keywords that ``options`` make for it.

    Raises:
        ConfigError: it does not take one of the options, or an environment variable is not set.
    """
    module, function = target.split(":")
    load = cast(Callable[..., Any], getattr(importlib.import_module(module), function))
    keywords = with_environment(options, section)
    taken = [name for name in inspect.signature(load).parameters if name not in _OWN_KEYWORDS]
    if unknown := sorted(keywords.keys() - set(taken)):
        raise ConfigError(
            f"{section}.options: unknown {', '.join(unknown)}; this {section} takes {', '.join(taken) or 'none'}"
        )
    return load, keywords

"""Folders of ``save_pretrained``: a model of transformers, whole or not at all, and its processor."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from backend.pipeline.weights.kinds import checkpoint_kind
from dataset_tools.errors import ConfigError, WeightsError

__all__ = ["load_model", "load_processor", "require_type"]

_PACKAGES = {"timm": "timm"}
"""Packages that some models need beside transformers, and the extra that brings each."""


def require_type(folder: Path, types: Collection[str], what: str, like: str = "") -> str:
    """The model type that ``config.json`` gives; raises WeightsError unless it is one of ``types``.

    Args:
        folder: of ``save_pretrained``.
        types: as transformers names them.
        what: what such a folder holds, for the message.
        like: an example of one, for the message.
    """
    kind = checkpoint_kind(folder).removeprefix("transformers ")
    if kind not in types:
        raise WeightsError(
            f"{folder} holds {kind!r}, not {what} ({', '.join(types)}): give a folder written by save_pretrained or"
            f" fetched from the hub{f', like {like}' if like else ''}"
        )
    return kind


def load_model(kind: Any, source: Path | str, *, dtype: Any = None) -> Any:
    """The model in a folder, of a class of transformers (or an ``Auto`` class); nothing of it is left at random.

    Args:
        kind: the class.
        source: the folder; a hub id is fetched.
        dtype: of the model's values, float32 if None.

    Raises:
        WeightsError: it cannot be read; or tensors are missing, left over or of other sizes, which are named: a
            checkpoint with renamed tensors would otherwise answer at random.
        ConfigError: a package that this model needs is not installed.
    """
    import torch
    from safetensors import SafetensorError

    try:
        model, report = kind.from_pretrained(  # nosec B615 # no code: safetensors
            source,
            local_files_only=isinstance(source, Path),
            use_safetensors=True,
            dtype=dtype or torch.float32,
            output_loading_info=True,
        )
    except ImportError as error:
        raise ConfigError(_missing_package(source, error)) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise WeightsError(f"{source} is incomplete or damaged: {error}") from error
    for what, how in (("missing_keys", "lacks"), ("unexpected_keys", "has unknown"), ("mismatched_keys", "has other")):
        if names := sorted(str(name) for name in report[what]):
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise WeightsError(
                f"{source} {how} tensors ({len(names)}): {shown}. This {type(model).__name__} would answer at random;"
                " fetch the checkpoint of the transformers version that is installed, or update transformers"
            )
    return model


def load_processor(kind: Any, source: Path | str) -> Any:
    """The processor (and tokenizer) in a folder, of a class of transformers; the same errors."""
    try:
        return kind.from_pretrained(source, local_files_only=isinstance(source, Path))  # nosec B615 # no code
    except ImportError as error:
        raise ConfigError(_missing_package(source, error)) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise WeightsError(f"{source} has no usable processor and tokenizer: {error}") from error


def _missing_package(source: Path | str, error: ImportError) -> str:
    reason = " ".join(str(error).split())
    extra = next((extra for package, extra in _PACKAGES.items() if package in reason), None)
    fix = f': pip install "pslg-sam[{extra}]"' if extra else ""
    return f"the model in {source} needs a package that is not installed ({reason[:200]}){fix}"

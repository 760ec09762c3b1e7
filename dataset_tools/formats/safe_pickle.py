"""Pickles of plain builtins: read without running what they might contain."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from dataset_tools.errors import DatasetError


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every global: lists, dicts, tuples, strings and numbers need none."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy":
            raise pickle.UnpicklingError(
                f"it holds numpy values ({module}.{name}); loaders index by builtin numbers: write int(id) for each id"
            )
        raise pickle.UnpicklingError(f"it wants to load {module}.{name}")


def load(path: Path) -> Any:
    """The content of a pickle that holds nothing but builtin containers, strings and numbers.

    Raises:
        DatasetError: the file is missing, damaged, or holds anything else (such a pickle can run any code).
    """
    try:
        return _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="utf-8").load()
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist") from None
    except Exception as error:  # damaged pickles raise almost anything
        raise DatasetError(f"{path} is not a pickle of plain lists, dicts, strings and numbers: {error}") from error


def dump(value: Any) -> bytes:
    """``value`` as pickle protocol 2, which Python 2 loaders of the field read too.

    Raises:
        DatasetError: ``value`` holds something other than builtins, which loaders could not index or load.
    """
    data = pickle.dumps(value, protocol=2)
    try:
        _PlainUnpickler(io.BytesIO(data)).load()
    except pickle.UnpicklingError as error:
        raise DatasetError(f"only plain builtins can be written: {error}") from error
    return data

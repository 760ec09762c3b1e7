"""The results of an annotation in one form: pairs of a shape and its labels are one, and what is not read is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dataset_tools.errors import DatasetError
from dataset_tools.label_studio.notes import stated
from dataset_tools.label_studio.regions import SHAPES

__all__ = ["annotations_of", "results_of", "unread"]

_UNREAD = ("bitmask", "bitmasklabels", "vector", "vectorlabels", "cuboid", "cuboidlabels", "magicwand")
"""Types of regions that outline something and that are not read. Key points are clicks, not outlines."""
_PLAIN = {kind.removesuffix("labels"): kind for kind in SHAPES}


def annotations_of(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The submitted annotations of a task, those of old exports (``completions``) too; skipped ones are left out.

    Raises:
        DatasetError: they carry no results.
    """
    given = task.get("annotations") or task.get("completions") or []
    if not isinstance(given, list) or not all(isinstance(annotation, dict) for annotation in given):
        raise DatasetError(
            f"its annotations are no objects but {str(given)[:60]}: ids alone hold no masks; export the project as JSON"
        )
    annotations = [annotation for annotation in given if not annotation.get("was_cancelled")]
    # JSON_MIN and other flat exports carry no results.
    if any(not isinstance(annotation.get("result"), list) for annotation in annotations):
        raise DatasetError("its annotations have no 'result'; export the project as JSON, not as JSON-MIN")
    return [{**annotation, "result": list(results_of(annotation["result"]))} for annotation in annotations]


def results_of(results: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """The results with every pair of a shape (``<Brush>``) and its labels (``<Labels>``) as one labelled region.

    The two of a pair share their id; a plain shape whose label was never chosen has no label. Notes are left out, and
    candidates are settled (``notes.stated``).
    """
    labels = {
        result["id"]: result["value"]["labels"]
        for result in results
        if isinstance(result, dict)
        and result.get("type") == "labels"
        and result.get("id") is not None
        and isinstance(result.get("value"), dict)
        and isinstance(result["value"].get("labels"), list)
    }
    for result in stated(results):
        if not isinstance(result, dict):
            continue
        kind = _PLAIN.get(str(result.get("type")))
        if kind is not None and isinstance(result.get("value"), dict):
            found = labels.get(result.get("id"), [])
            yield {**result, "type": kind, "value": {**result["value"], kind: found}}
        else:
            yield result


def unread(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The types of regions that outline something and are not read, each once."""
    return sorted({str(result.get("type")) for result in results if result.get("type") in _UNREAD})

"""The house stays as docs/architecture.md draws it: which room may import which, read from the syntax trees."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import accumulate
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# Room -> rooms it may import besides itself. A module belongs to the longest name that it begins with, so that a row is
# a folder or a single module; "backend" and "dataset_tools" are what lies directly in these folders and has no row.
_BASE = "backend dataset_tools"
_DATA = f"{_BASE} dataset_tools.expressions dataset_tools.formats dataset_tools.synthetic"
_SERVER_BASE = "backend.server.protocol backend.server.images backend.server.metrics"
_LEARNING = "backend.learning.annotations backend.learning.versions backend.learning.retraining"
_NETWORKS = "backend.pipeline backend.pipeline.grounding backend.pipeline.segmentation backend.pipeline.weights"
_TRAINING = "backend.training " + " ".join(
    f"backend.training.{recipe}" for recipe in ("adapter", "decoder", "grounder", "lqvg", "segmenter")
)
ARROWS = {
    "backend.__main__": "backend.cli",
    "backend.cli": _BASE,  # the commands are imported by name, when they are called
    "backend.commands": f"{_DATA} {_LEARNING} {_NETWORKS} {_SERVER_BASE} {_TRAINING} backend.cli backend.batch "
    "backend.demo backend.evaluation backend.learning.ranking backend.learning.report backend.learning.simulation "
    "backend.server backend.server.editor dataset_tools.label_studio",
    "backend.demo": f"{_DATA} backend.pipeline dataset_tools.label_studio",
    "backend.batch": f"{_DATA} {_SERVER_BASE} backend.learning.ranking backend.pipeline backend.server "
    "backend.server.answers backend.server.editor dataset_tools.label_studio",
    # app, wsgi, label_studio_ml, service: what puts the rooms of the server together
    "backend.server": f"{_BASE} {_LEARNING} {_SERVER_BASE} backend.pipeline backend.pipeline.segmentation "
    "backend.server.answers backend.server.editor backend.server.models dataset_tools.label_studio",
    "backend.server.answers": f"{_BASE} {_SERVER_BASE} backend.pipeline backend.pipeline.segmentation "
    "backend.server.editor dataset_tools.label_studio",
    "backend.server.editor": f"{_BASE} backend.pipeline backend.pipeline.segmentation backend.server.protocol "
    "dataset_tools.label_studio dataset_tools.expressions",
    "backend.server.models": f"{_BASE} backend.pipeline backend.pipeline.grounding backend.learning.annotations "
    "backend.learning.versions",
    "backend.server.images": f"{_BASE} backend.pipeline dataset_tools.label_studio",
    "backend.server.metrics": f"{_BASE} backend.learning.versions dataset_tools.label_studio",
    "backend.server.protocol": _BASE,
    "backend.learning.simulation": f"{_DATA} {_NETWORKS} {_TRAINING} backend.evaluation backend.learning.ranking "
    "backend.learning.retraining",
    "backend.learning.report": f"{_BASE} dataset_tools.expressions backend.learning.annotations "
    "backend.learning.versions dataset_tools.label_studio",
    "backend.learning.retraining": f"{_DATA} {_NETWORKS} {_TRAINING} backend.evaluation backend.learning.annotations "
    "backend.learning.versions dataset_tools.label_studio",
    "backend.learning.ranking": f"{_BASE} {_NETWORKS}",
    "backend.learning.annotations": f"{_BASE} backend.learning.versions backend.pipeline backend.pipeline.grounding "
    "dataset_tools.expressions dataset_tools.label_studio",
    "backend.learning.versions": f"{_BASE} backend.pipeline.weights",
    "backend.training.adapter": f"{_DATA} {_NETWORKS} backend.training backend.training.grounder",
    "backend.training.decoder": f"{_DATA} {_NETWORKS} backend.training backend.training.segmenter",
    "backend.training.lqvg": f"{_DATA} {_NETWORKS} backend.training",
    "backend.training.segmenter": f"{_DATA} {_NETWORKS} backend.evaluation backend.training",
    "backend.training.grounder": f"{_DATA} {_NETWORKS} backend.training",
    "backend.training": f"{_BASE} backend.pipeline.weights",
    "backend.evaluation": f"{_DATA} {_NETWORKS}",
    "backend.pipeline": f"{_BASE} {_NETWORKS} dataset_tools.expressions",
    "backend.pipeline.grounding": f"{_BASE} backend.pipeline backend.pipeline.weights dataset_tools.expressions",
    "backend.pipeline.segmentation": f"{_BASE} backend.pipeline backend.pipeline.weights",
    "backend.pipeline.weights": f"{_BASE} backend.pipeline",
    "backend": "dataset_tools dataset_tools.expressions dataset_tools.label_studio",
    "dataset_tools.cli": "dataset_tools.commands",
    "dataset_tools.commands": "dataset_tools dataset_tools.checks dataset_tools.formats dataset_tools.label_studio "
    "dataset_tools.synthetic",
    "dataset_tools.checks": "dataset_tools dataset_tools.expressions dataset_tools.formats",
    "dataset_tools.label_studio": "dataset_tools dataset_tools.expressions",
    "dataset_tools.formats": "dataset_tools dataset_tools.expressions",
    "dataset_tools.synthetic": "dataset_tools",
    "dataset_tools.expressions": "dataset_tools",
    "dataset_tools": "dataset_tools.expressions dataset_tools.formats dataset_tools.label_studio",
}
MOST_MODULES = 25
HEAVY = {
    "matplotlib",
    "openvino",
    "pandas",
    "ray",
    "segment_anything",
    "sklearn",
    "torch",
    "torchvision",
    "transformers",
}


@dataclass(frozen=True)
class Arrow:
    """An import: the module that imports, the one that is imported, the name taken from it if that is no module."""

    source: str
    target: str
    name: str | None
    at_import: bool


@cache
def trees() -> dict[str, ast.Module]:
    """Syntax trees of all modules by dotted name; packages under their own name."""
    files = [path for top in ("backend", "dataset_tools") for path in sorted((REPOSITORY / top).rglob("*.py"))]
    return {_dotted(path): ast.parse(path.read_bytes(), path) for path in files}


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


@cache
def arrows() -> tuple[Arrow, ...]:
    """All imports, those in functions and for type checkers included."""
    return tuple(arrow for module, tree in trees().items() for arrow in _arrows(module, tree, at_import=True))


def _arrows(module: str, node: ast.AST, *, at_import: bool) -> Iterator[Arrow]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Arrow(module, alias.name, None, at_import) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.module is not None, f"{module}, line {child.lineno}: write imports in full"
            for alias in child.names:
                inner = f"{child.module}.{alias.name}"
                is_module = inner in trees()
                yield Arrow(module, inner if is_module else child.module, None if is_module else alias.name, at_import)
        else:
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from _arrows(module, child, at_import=at_import and not later and not for_types)


def room_of(module: str) -> str:
    parts = [".".join(module.split(".")[:count]) for count in range(module.count(".") + 1, 0, -1)]
    return next(part for part in parts if part in ARROWS)


def test_no_arrow_runs_back() -> None:
    wrong = {
        f"{arrow.source} imports {arrow.target}: {source} -> {target} is not in the table"
        for arrow in arrows()
        if arrow.target in trees()
        for source, target in [(room_of(arrow.source), room_of(arrow.target))]
        if source != target and target not in ARROWS[source].split()
    }
    assert sorted(wrong) == []


def test_the_table_names_rooms_that_exist() -> None:
    named = {*ARROWS, *(target for targets in ARROWS.values() for target in targets.split())}
    assert named - trees().keys() == set()


def test_nothing_private_is_imported_from_another_module() -> None:
    private = [f"{one.source}: {one.target}.{one.name}" for one in arrows() if (one.name or "").startswith("_")]
    assert [text for text in private if not text.endswith("__")] == []


def test_there_is_no_import_circle() -> None:
    graph: dict[str, set[str]] = {module: set() for module in trees()}
    for arrow in arrows():
        if arrow.target in graph:
            graph[arrow.source].add(arrow.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_no_folder_is_crowded() -> None:
    packages = {module for module in trees() if (REPOSITORY / module.replace(".", "/")).is_dir()}
    counts = Counter(module.rpartition(".")[0] for module in trees().keys() - packages)
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}


def test_no_class_name_stands_twice() -> None:
    places: dict[str, list[str]] = {}
    for module, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(module)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("entry", ["backend.cli", "backend.settings", "backend.server.protocol", "dataset_tools.cli"])
def test_nothing_heavy_is_imported_before_it_is_needed(entry: str) -> None:
    waiting = [entry]
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        packages = set(
            accumulate(module.split("."), lambda a, b: f"{a}.{b}")
        )  # a package's own file is run before its modules
        for one in packages - seen:
            seen.add(one)
            waiting += [arrow.target for arrow in arrows() if arrow.source == one and arrow.at_import]
    assert {name for name in seen if name.split(".")[0] in HEAVY} == set()

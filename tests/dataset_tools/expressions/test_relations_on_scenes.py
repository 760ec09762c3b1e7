"""The relation program on drawn scenes: true boxes answer what their expressions ask."""

from __future__ import annotations

from pathlib import Path

from benchmarks.relation_program import PERFECT, Detector, candidates, shares
from dataset_tools import synthetic
from dataset_tools.labelled import read


def test_true_boxes_answer_and_no_boxes_do_not(tmp_path: Path) -> None:
    """Boxes tell positions exactly; colours, and sizes of slanted objects, are a matter of pixels."""
    synthetic.write(tmp_path / "scenes", (synthetic.draw_scene(seed, width=160, height=128) for seed in range(3)), 0)
    data = read(tmp_path / "scenes")
    found = shares(data, candidates(data, PERFECT))
    for kind in ("region", "extreme", "all"):
        right, count = found[kind]
        assert right >= 0.9 * count > 0, (kind, found)
    nothing = shares(data, candidates(data, Detector(dropped=1.0)))
    assert nothing["one object"][0] == 0
    assert nothing["absent"][0] == nothing["absent"][1]

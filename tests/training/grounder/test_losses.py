"""Targets and losses of the compact grounder's detector."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.pipeline.grounding.compact.detections import peaks
from backend.pipeline.grounding.compact.network import STRIDES, DetectorOutput
from backend.training.grounder.augmentation import SHAPELESS, UNLABELLED, DetectorSample
from backend.training.grounder.losses import Targets, losses, make_targets

SIDE = 128


def sample(
    boxes: list[tuple[float, float, float, float]],
    labels: list[int],
    background: float = 1.0,
    kinds: list[int] | None = None,
) -> DetectorSample:
    return DetectorSample(
        np.zeros((SIDE, SIDE, 3), np.uint8),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(kinds or [-1] * len(labels), np.int64),
        np.full((SIDE // 4, SIDE // 4), UNLABELLED, np.uint8),
        np.full((2, SIDE // 4, SIDE // 4), background, np.float32),
    )


def perfect(targets: Targets, groups: tuple[int, ...] = ()) -> DetectorOutput:
    """The output that reports exactly what the targets ask for."""
    sides = []
    for level, stride in enumerate(STRIDES):
        n = targets.boxes[level].shape[-1]
        boxes = targets.boxes[level].reshape(len(targets.semantic), -1, 4, n, n)
        center = (torch.arange(n) + 0.5) * stride
        x, y = center.view(1, 1, -1), center.view(1, -1, 1)
        ends = x - boxes[:, :, 0], y - boxes[:, :, 1], boxes[:, :, 2] - x, boxes[:, :, 3] - y
        sides.append((torch.stack(ends, dim=2).clamp(min=1e-3) / stride).log().flatten(1, 2))
    heat = [torch.where(h >= 0.999, 12.0, -12.0) for h in targets.heat]
    semantic = torch.full((len(targets.semantic), 2, SIDE // 4, SIDE // 4), -12.0)
    return DetectorOutput(heat, sides, semantic, groups)


@pytest.mark.parametrize(
    ("box", "levels"),
    [((20, 30, 36, 42), {0}), ((10, 10, 50, 40), {0, 1}), ((4, 6, 104, 60), {1, 2}), ((0, 0, 128, 125), {2})],
)
def test_each_size_is_learnt_at_its_levels_and_read_back(
    box: tuple[float, float, float, float], levels: set[int]
) -> None:
    targets = make_targets([sample([box], [1])], 2)
    assert {level for level in range(3) if (targets.heat[level] == 1).any()} == levels
    assert targets.objects == len(levels)
    for level in levels:
        assert targets.weight[level].sum().item() == pytest.approx(1.0)
    boxes, _, labels = peaks(perfect(targets), 0.5)
    assert np.allclose(boxes, [box] * len(levels), atol=0.1)
    assert set(labels) == {1}


def test_a_place_and_what_lies_in_its_middle_have_boxes_of_their_own() -> None:
    track, field = (0, 8, 124, 110), (20, 20, 104, 98)  # one centre, as a soccer field has in a running track
    samples, groups = [sample([track, field], [1, 0])], (0, 1)
    targets = make_targets(samples, 2, groups)
    output = perfect(targets, groups)
    boxes, _, labels = peaks(output, 0.5)
    found = {label: box for box, label in zip(boxes.tolist(), labels.tolist(), strict=True)}
    assert np.allclose(found[1], track, atol=0.1)
    assert np.allclose(found[0], field, atol=0.1)
    assert losses(output, targets)["box"].item() < 0.01
    one_box = make_targets(samples, 2)
    boxes, _, labels = peaks(perfect(one_box), 0.5)
    assert all(not np.allclose(box, track, atol=5) for box in boxes)  # what the second box is for


def test_perfect_output_costs_next_to_nothing() -> None:
    targets = make_targets([sample([(20, 30, 44, 50), (60, 60, 110, 120)], [0, 1]), sample([], [])], 2)
    good = losses(perfect(targets), targets)
    blank = losses(
        DetectorOutput(
            [torch.full_like(h, -4.6) for h in targets.heat], [torch.zeros_like(b) for b in targets.boxes], None
        ),
        targets,
    )
    assert good["heat"].item() < 0.01
    assert good["box"].item() < 0.05
    assert blank["heat"].item() > 50 * good["heat"].item()
    assert blank["box"].item() > 5 * good["box"].item()


def test_silent_labels_cost_nothing_where_they_are_silent() -> None:
    loud = make_targets([sample([], [])], 2)
    silent = make_targets([sample([], [], background=0.0)], 2)
    output = perfect(loud)
    output.heat[0][0, 1, 5, 5] = 8.0  # a confident detection where no object is outlined
    assert losses(output, loud)["heat"].item() > 1
    assert losses(output, silent)["heat"].item() == 0


def test_the_smaller_of_two_overlapping_boxes_keeps_its_cells() -> None:
    small, large = (56.0, 56.0, 80.0, 80.0), (48.0, 46.0, 92.0, 90.0)
    targets = make_targets([sample([small, large], [0, 0])], 1)
    cell = 68 // 4
    assert targets.boxes[0][0, :, cell, cell].tolist() == list(small)


def test_losses_have_gradients_for_every_output() -> None:
    targets = make_targets([sample([(20, 30, 50, 52)], [0])], 2)
    output = perfect(targets)
    assert output.semantic is not None
    leaves = [output.heat[0], output.sides[0], output.semantic]
    for leaf in leaves:
        leaf += 0.3
        leaf.requires_grad_()
    torch.stack(list(losses(output, targets).values())).sum().backward()  # type: ignore[no-untyped-call]
    for leaf in leaves:
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
        assert leaf.grad.abs().sum() > 0


def test_an_object_is_learnt_as_its_category_and_as_its_kind() -> None:
    both = make_targets([sample([(20, 30, 36, 42)], [0], kinds=[1])], 2)
    assert torch.equal(both.heat[0][0, 0], both.heat[0][0, 1])
    assert both.objects == 1
    unknown = make_targets([sample([(20, 30, 36, 42)], [0])], 2)
    assert not unknown.heat[0][0, 1].any()


def test_boxes_without_outlines_say_nothing_of_masks() -> None:
    shapeless = sample([(20, 30, 36, 42)], [0])
    shapeless.semantic[:] = SHAPELESS
    targets = make_targets([shapeless], 2)
    output = perfect(targets)
    assert output.semantic is not None
    output.semantic[:] = 12.0
    assert losses(output, targets)["semantic"].item() == 0

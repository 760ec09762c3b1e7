"""What the compact grounder learns from a project's labels: its adapter, everything else frozen.

The adapter is a second head beside the detector's own (``DetectorConfig.adapter_width``): one 3 x 3 convolution over
the feature pyramid and one output per category. It adds to the heat of categories that are known and is the only
source for those that are not; their boxes get a correction of their own. Until it learns something the detector says
exactly what it said before, so that nothing known can be lost by accident.

Training reads cells, not images: of each view the cells at objects, those where the detector thinks of objects, and
some others, each with its 3 x 3 features. A step is then a product of two small matrices, and a round takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from backend.pipeline.devices import in_bfloat16
from backend.pipeline.grounding.compact.network import STRIDES, Detector, Head
from backend.training.adapter.rows import Rows, ViewCells
from backend.training.adapter.start import start_from_regression
from backend.training.adapter.views import FeatureCache, FeatureView, adapted_output
from backend.training.boxes import generalized_iou
from backend.training.grounder.losses import focal
from dataset_tools.labelled import LabelledImage

__all__ = ["AdapterData", "AdapterOptions", "train_adapter", "with_adapter"]


@dataclass(frozen=True)
class AdapterOptions:
    """How the adapter is trained.

    Attributes:
        steps: updates.
        rows: cells per update, half of them objects or look-alikes.
        learning_rate: at the start; it falls to zero along a cosine.
        output_rate: the output layer's learning rate as a multiple of it.
        weight_decay: AdamW's, on the weights.
        unlabelled: weight of "no such object here" where nobody has said so.
        background: cells drawn at random per view.
        hard: cells per view at which the detector sees some object, at most.
        mined: views searched for false alarms, in each of ``mining`` searches.
        mining: searches, at even distances.
        box_weight: weight of the box loss against the heat's.
        replay_weight: weight of the cells of replay images.
        seed: of everything drawn.
    """

    steps: int = 100
    rows: int = 2048
    learning_rate: float = 1e-3
    output_rate: float = 1.0
    weight_decay: float = 1e-2
    unlabelled: float = 0.1
    background: int = 150
    hard: int = 150
    mined: int = 60
    mining: int = 1
    box_weight: float = 1.0
    replay_weight: float = 0.5
    seed: int = 0


_AT_ONCE = 8192
"""Cells whose features are made at once."""
_ALARM = -2.2
"""Heat logit (a tenth of certainty) from which an unlabelled cell is a false alarm."""


class _Adapter(nn.Module):
    """The adapter on rows instead of maps; the same parameters as ``Detector.adapter``."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor, level: Tensor) -> Tensor:
        """float32[N, C + 4] of features float32[N, 9 * channels] (row, column, channel) at ``level`` int64[N]."""
        return functional.linear(self.hidden(features, level), self.head.out.weight.flatten(1), self.head.out.bias)

    def hidden(self, features: Tensor, level: Tensor) -> Tensor:
        """float32[N, width] of the same."""
        hidden = functional.linear(features, self.head.conv.weight.permute(0, 2, 3, 1).flatten(1))
        norms = [norm for norm in self.head.norms if isinstance(norm, nn.BatchNorm2d)]
        variance = torch.stack([norm.get_buffer("running_var") + norm.eps for norm in norms])
        scale = torch.stack([norm.weight for norm in norms]) * torch.rsqrt(variance)
        shift = torch.stack(
            [norm.bias - norm.get_buffer("running_mean") * own for norm, own in zip(norms, scale, strict=True)]
        )
        return functional.relu(hidden * scale[level] + shift[level])


def with_adapter(detector: Detector, new: Sequence[str], width: int, seed: int) -> Detector:
    """``detector`` (fused) with a fresh adapter that says nothing yet, for its own categories and ``new`` ones.

    The adapter's features begin as those of the detector's own head, which tell objects from background already.
    """
    core = len(detector.config.categories) - detector.config.adapted
    config = replace(
        detector.config,
        categories=detector.config.categories[:core] + tuple(new),
        adapter_width=width,
        adapted=len(new),
    )
    result = Detector(config).to(memory_format=torch.channels_last)
    result.eval()
    result.fuse()
    state = {name: value for name, value in detector.state_dict().items() if not name.startswith("adapter.")}
    result.load_state_dict(state, strict=False)
    adapter = _adapter_of(result)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        kernels = torch.randn(adapter.conv.weight.shape, generator=generator) * math.sqrt(
            2 / (9 * adapter.conv.in_channels)
        )
        shared = min(width, len(detector.heat.conv.weight))
        kernels[:shared] = detector.heat.conv.weight[:shared]
        adapter.conv.weight.copy_(kernels)
        for norm, own in zip(adapter.norms, detector.heat.norms, strict=True):
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(norm, name)[:shared] = getattr(own, name)[:shared]
        adapter.out.weight.zero_()
        adapter.bias.zero_()
    return result


def _adapter_of(detector: Detector) -> Head:
    if detector.adapter is None:
        raise ValueError("the detector has no adapter: make one with with_adapter")
    return detector.adapter


class AdapterData:
    """What an adapter is trained on: the cells of project and replay images, read once for any number of trainings.

    Args:
        cache: of the detector without adapter.
        categories: of the detector with adapter.
        trained: of these, the categories to learn; the others stay as they are.
        project: what was labelled, each image as often as it has views.
        replay: what the detector was trained on before.
        options: see ``AdapterOptions``.
        progress: called with the share done.
    """

    def __init__(
        self,
        cache: FeatureCache,
        categories: Sequence[str],
        trained: Sequence[str],
        project: Sequence[tuple[LabelledImage, FeatureView]],
        replay: Sequence[tuple[LabelledImage, FeatureView]],
        options: AdapterOptions,
        progress: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.cache = cache
        self.categories = tuple(categories)
        self.channels = np.array([self.categories.index(name) for name in trained], np.int64)
        self.options = options
        self.project = list(project)
        self.views = [*project, *replay]
        self.weights = [1.0] * len(project) + [options.replay_weight] * len(replay)
        self.rows = []
        rng = np.random.default_rng(options.seed)
        for number in range(len(self.views)):
            self.rows.append(self._weighted(number, self.cells(number).sample(options.background, options.hard, rng)))
            progress((number + 1) / len(self.views))

    def cells(self, number: int) -> ViewCells:
        """All cells of a view."""
        image, view = self.views[number]
        return ViewCells(self.cache, image, view, self.categories, self.channels, self.options.unlabelled)

    def false_alarms(self, detector: Detector, numbers: Sequence[int], rng: np.random.Generator) -> list[Rows]:
        """Cells of some of these views at which ``detector`` sees what is not labelled; they weigh as labels say."""
        found = []
        for number in rng.permutation(np.array(numbers, np.int64))[: self.options.mined]:
            view = self.cells(number)
            with torch.inference_mode(), in_bfloat16(torch.device("cpu")):
                output = adapted_output(detector, view.reading)
            heat = torch.cat([level[0].float().flatten(1).T for level in output.heat]).numpy()[:, self.channels]
            alarm = ((heat > _ALARM) & (view.background > 0)).any(axis=1) & ~view.positive
            chosen = np.flatnonzero(alarm)
            if len(chosen):
                chosen = rng.choice(chosen, min(self.options.hard, len(chosen)), replace=False)
                found.append(self._weighted(number, view.at(chosen)))
        return found

    def _weighted(self, number: int, rows: Rows) -> Rows:
        rows.weight *= self.weights[number]
        return rows


def train_adapter(
    detector: Detector,
    data: AdapterData,
    numbers: Sequence[int],
    steps: int,
    progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Train the adapter of ``detector`` (``with_adapter``) in place.

    Args:
        detector: changed in place; only the adapter.
        data: for the same categories.
        numbers: which of the data's views to train on.
        steps: updates.
        progress: called with the share done.
    """
    options = data.options
    rng = np.random.default_rng((options.seed, 1))
    rows = Rows.joined([data.rows[number] for number in numbers])
    adapter = _Adapter(_adapter_of(detector))
    _start(adapter, rows, data.channels, len(detector.config.categories) - detector.config.adapted)
    output = list(adapter.head.out.parameters())
    others = [*adapter.head.conv.parameters(), *adapter.head.norms.parameters()]
    groups = [{"params": others, "rate": options.learning_rate}]
    groups.append({"params": output, "rate": options.learning_rate * options.output_rate})
    optimizer = torch.optim.AdamW(groups, weight_decay=options.weight_decay)
    searches = {steps * (k + 1) // (options.mining + 1) for k in range(options.mining)}
    for step in range(steps):
        if step in searches:
            rows = Rows.joined([rows, *data.false_alarms(detector, numbers, rng)])
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = _loss(adapter, rows, data.channels, options, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(adapter.parameters(), 10.0)
        optimizer.step()
        progress((step + 1) / steps)


@torch.no_grad()
def _start(adapter: _Adapter, rows: Rows, channels: npt.NDArray[np.int64], core: int) -> None:
    """Begin at the regression of what is new, the channels from ``core`` on."""
    parts = [slice(first, first + _AT_ONCE) for first in range(0, len(rows), _AT_ONCE)]
    hidden = [
        adapter.hidden(torch.from_numpy(rows.features[part].astype(np.float32)), torch.from_numpy(rows.level[part]))
        for part in parts
    ]
    columns = [int(column) for column in np.flatnonzero(channels >= core)]
    start_from_regression(adapter.head, torch.cat(hidden), rows, columns, [int(channels[c]) for c in columns])


def _loss(
    adapter: _Adapter,
    rows: Rows,
    channels: npt.NDArray[np.int64],
    options: AdapterOptions,
    rng: np.random.Generator,
) -> Tensor:
    """Heat and box loss per object, estimated on ``options.rows`` cells, half of them hot."""
    hot, cold = np.flatnonzero(rows.hot), np.flatnonzero(~rows.hot)
    draws = [rng.choice(group, options.rows // 2) for group in (hot, cold) if len(group)]
    shares = [np.full(options.rows // 2, 2 * len(group) / options.rows) for group in (hot, cold) if len(group)]
    chosen = np.concatenate(draws)
    weight = torch.from_numpy((np.concatenate(shares) * rows.weight[chosen]).astype(np.float32))
    heat = torch.from_numpy(rows.heat[chosen])
    level = torch.from_numpy(rows.level[chosen])
    added = adapter(torch.from_numpy(rows.features[chosen].astype(np.float32)), level)
    logits = torch.from_numpy(rows.base[chosen]) + added[:, channels]
    # Every category counts alike, however often it was labelled.
    objects = np.maximum((rows.weight[:, None] * (rows.heat >= 0.999)).sum(axis=0), 3.0)
    each = focal(logits, heat, torch.from_numpy(rows.background[chosen])) / torch.from_numpy(objects.astype(np.float32))
    loss = (weight[:, None] * each).sum()
    box_weight = torch.from_numpy(rows.box_weight[chosen]) * weight
    boxed = box_weight > 0
    if boxed.any():
        sides = torch.from_numpy(rows.sides[chosen]) + added[:, -4:]
        stride = torch.tensor(STRIDES)[level]
        lengths = sides.clamp(-4, 5).exp() * stride[:, None]
        centre = torch.from_numpy(rows.cell[chosen])
        box = torch.cat([centre - lengths[:, :2], centre + lengths[:, 2:]], dim=1)
        errors = 1 - generalized_iou(box[boxed], torch.from_numpy(rows.box[chosen])[boxed])
        loss = loss + options.box_weight * (box_weight[boxed] * errors).sum() / float(objects.sum()) * len(channels)
    return loss

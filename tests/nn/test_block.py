"""The gate's hand-written gradient against finite differences and composed operations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from seqdyn.nn.block import BlockOperators, S4Block, gate

WIDTH, BATCH, COVARIATES = 3, 2, 2


def make_block(length: int, num_covariates: int = COVARIATES) -> S4Block:
    """A block in float64 whose layer norm has left its initial values."""
    block = S4Block(WIDTH, length, 4, num_covariates, "nplr-legs").double()
    with torch.no_grad():
        block.norm.weight.normal_()
        block.norm.bias.normal_()
    return block


def inputs(length: int, shift_batch: int = BATCH) -> tuple[Tensor, Tensor, Tensor]:
    double = {"dtype": torch.float64}
    h, shift = torch.randn(WIDTH, BATCH, length, **double), torch.randn(WIDTH, shift_batch, 1, **double)
    return h, shift, torch.randn(COVARIATES, BATCH, length, **double)


def by_definition(block: S4Block, h: Tensor, shift: Tensor, covariates: Tensor | None) -> Tensor:
    """tanh(o) sigmoid(o) with o = z + S4(LayerNorm(z)) + W u + b, from torch's own operations."""
    z = (h + shift).permute(1, 2, 0)  # (B, L, D)
    normed = nn.functional.layer_norm(z, (WIDTH,), block.norm.weight, block.norm.bias, eps=1e-5)
    o = z + block.s4(normed)
    if covariates is not None:
        o = o + block.covariates(covariates.permute(1, 2, 0))
    return (torch.tanh(o) * torch.sigmoid(o)).permute(2, 0, 1)


@pytest.mark.parametrize("length", [5, 8])
@pytest.mark.parametrize("shift_batch", [1, BATCH])
@pytest.mark.parametrize("with_covariates", [True, False])
def test_value_and_every_gradient_are_those_of_composed_operations(
    length: int, shift_batch: int, with_covariates: bool
) -> None:
    block = make_block(length, COVARIATES if with_covariates else 0)
    h, shift, covariates = inputs(length, shift_batch)
    variables = [h.requires_grad_(), shift.requires_grad_()]
    used = {
        name: p for name, p in block.named_parameters() if name.split(".")[0] in ("norm", "s4", "covariates")
    }
    variables += used.values()
    if with_covariates:
        variables.append(covariates.requires_grad_())
    known = covariates if with_covariates else None

    value, expected = gate(h, shift, block.operators(), known), by_definition(block, h, shift, known)

    torch.testing.assert_close(value, expected)
    weights = torch.randn_like(value)
    gradients = torch.autograd.grad((value * weights).sum(), variables)
    for gradient, want in zip(
        gradients, torch.autograd.grad((expected * weights).sum(), variables), strict=True
    ):
        assert bool((want != 0).any())
        torch.testing.assert_close(gradient, want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("length", [4, 5])
def test_the_gradient_is_that_of_finite_differences(length: int) -> None:
    operators = make_block(length).operators()
    h, shift, covariates = inputs(length)
    names = ("spectrum", "offset", "mix", "mix_bias", "drive", "drive_bias")
    values = [getattr(operators, name).detach().requires_grad_() for name in names]

    def function(h: Tensor, shift: Tensor, covariates: Tensor, *values: Tensor) -> Tensor:
        return gate(h, shift, operators._replace(**dict(zip(names, values, strict=True))), covariates)

    variables = [h.requires_grad_(), shift.requires_grad_(), covariates.requires_grad_(), *values]
    assert torch.autograd.gradcheck(function, variables)


def frozen(operators: BlockOperators) -> BlockOperators:
    return BlockOperators(*(None if value is None else value.detach() for value in operators))


def test_with_frozen_parameters_the_gradient_of_the_input_is_the_same() -> None:
    # Sampling takes this road: it saves less and multiplies in place.
    block = make_block(7)
    h, shift, covariates = inputs(7)
    h.requires_grad_()

    (gradient,) = torch.autograd.grad(gate(h, shift, frozen(block.operators()), covariates).square().sum(), h)

    (expected,) = torch.autograd.grad(gate(h, shift, block.operators(), covariates).square().sum(), h)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("trained", ["spectrum", "offset", "mix", "mix_bias", "drive"])
def test_each_operator_can_be_trained_alone(trained: str) -> None:
    operators = make_block(6).operators()
    h, shift, covariates = inputs(6)
    alone = frozen(operators)._replace(**{trained: getattr(operators, trained).detach().requires_grad_()})

    (gradient,) = torch.autograd.grad(
        gate(h, shift, alone, covariates).square().sum(), getattr(alone, trained)
    )

    (expected,) = torch.autograd.grad(
        gate(h, shift, operators, covariates).square().sum(), getattr(operators, trained)
    )
    torch.testing.assert_close(gradient, expected)


def test_inputs_are_left_as_they_were() -> None:
    block = make_block(6)
    h, shift, covariates = inputs(6)
    operators = frozen(block.operators())
    before = [value.clone() for value in (h, shift, covariates, *operators)]

    gate(h.requires_grad_(), shift, operators, covariates).sum().backward()

    for value, old in zip((h.detach(), shift, covariates, *operators), before, strict=True):
        assert torch.equal(value, old)


def test_a_constant_channel_vector_is_normalised_without_a_division_by_zero() -> None:
    # All channels equal: the variance over channels is 0 and only eps stands in the denominator.
    block = make_block(5)
    h = torch.ones(WIDTH, BATCH, 5, dtype=torch.float64, requires_grad=True)
    shift = torch.zeros(WIDTH, 1, 1, dtype=torch.float64)

    value = gate(h, shift, block.operators())

    torch.testing.assert_close(value, by_definition(block, h, shift, None))
    (gradient,) = torch.autograd.grad(value.sum(), h)
    assert bool(torch.isfinite(gradient).all())


def test_no_covariates_mean_no_weights_for_them() -> None:
    block = make_block(5, num_covariates=0)

    assert block.covariates is None
    assert not any("covariates" in name for name, _ in block.named_parameters())

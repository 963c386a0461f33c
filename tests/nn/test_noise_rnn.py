"""The recurrent network that is driven by noise."""

from __future__ import annotations

import pytest
import torch

from seqdyn.nn.noise_rnn import NoiseRNN


@pytest.mark.parametrize(("activation", "bias"), [("relu", False), ("tanh", True)])
def test_a_run_is_that_of_torchs_own_network(activation: str, bias: bool) -> None:
    network = NoiseRNN(3, 5, 2, activation, bias).double()
    reference = torch.nn.RNN(2, 5, nonlinearity=activation, bias=bias).double()
    with torch.no_grad():
        reference.weight_hh_l0.copy_(network.recurrent)
        reference.weight_ih_l0.copy_(network.input)
        if network.bias is not None:
            reference.bias_hh_l0.copy_(network.bias)
            reference.bias_ih_l0.zero_()
    noise, start = torch.randn(7, 4, 2, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)

    run = network(noise, start)

    expected, _ = reference(noise, start[None])
    torch.testing.assert_close(run.hidden, expected)
    logits = expected @ network.readout.t() + (0 if network.readout_bias is None else network.readout_bias)
    torch.testing.assert_close(run.logits, logits)


def test_single_steps_make_up_a_run() -> None:
    network = NoiseRNN(3, 5, 2, bias=True)
    noise, hidden = torch.randn(7, 4, 2), torch.randn(4, 5)

    run = network(noise, hidden)
    for x, expected in zip(noise, run.hidden, strict=True):
        hidden = network.step(hidden, x)
        torch.testing.assert_close(hidden, expected)

    torch.testing.assert_close(network.step(hidden), network.step(hidden, torch.zeros(4, 2)))


@pytest.mark.parametrize(("bias", "homogeneous"), [(False, True), (True, False)])
def test_d1_without_biases_a_rectifier_scales_with_its_noise(bias: bool, homogeneous: bool) -> None:
    network = NoiseRNN(3, 20, 4, bias=bias)
    noise, start = torch.randn(50, 6, 4), torch.randn(6, 20)

    small, large = network(noise, start), network(4 * noise, 4 * start)

    assert torch.equal(4 * small.hidden, large.hidden) is homogeneous
    assert torch.equal(small.logits.argmax(-1), large.logits.argmax(-1)) is homogeneous

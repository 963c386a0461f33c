"""Recurrent networks of plain torch as dynamics objects.

The weights are copied once; what later happens to the module, and the mode it is in, do not matter.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seqdyn.dynamics.maps import MapDynamics, Step
from seqdyn.dynamics.probing import check_readout

__all__ = ["from_torch"]

_NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


def from_torch(
    module: nn.Module, readout: nn.Module | Callable[[Tensor], Tensor] | None = None
) -> MapDynamics:
    """Wrap a trained recurrent network.

    The state is what the cell carries: h for ``nn.RNN`` and ``nn.GRU``, h and c side by side (2H units, h
    first) for ``nn.LSTM``. With several layers the states of the layers stand side by side, lowest first.
    Dropout between layers is off, as in evaluation.

    Args:
        module: ``nn.RNN``, ``nn.GRU``, ``nn.LSTM``, or one of their cells.
        readout: Layer or function from the output of the top layer, (..., H), to outputs; a module is copied.

    Returns:
        The dynamics, in the dtype and on the device of the module. One layer of ``nn.RNN`` or ``nn.RNNCell``
        has a preactivation; gated cells and stacks of layers have none.

    Raises:
        ValueError: If the module is of another kind, bidirectional or with projections, or the readout does
            not take its output.
    """
    if not isinstance(module, nn.RNNBase | nn.RNNCellBase):
        raise ValueError(
            f"module must be nn.RNN, nn.GRU, nn.LSTM or one of their cells, got {type(module).__name__}; "
            "give the recurrent layer itself (model.rnn), or wrap a function: seqdyn.dynamics.from_callable."
        )
    layers = _layers(module)
    sizes = [layer.state_size for layer in layers]
    size, output = module.hidden_size, slice(sum(sizes[:-1]), sum(sizes[:-1]) + module.hidden_size)
    steps = [_STEPS[layer.kind](layer) for layer in layers]

    def step(h: Tensor, u: Tensor | None) -> Tensor:
        parts = []
        for advance, part in zip(steps, h.split(sizes, dim=-1), strict=True):
            parts.append(advance(part, u))
            u = parts[-1][..., :size]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    plain = len(layers) == 1 and layers[0].kind == "rnn"
    read = None if readout is None else _reading(readout, output)
    if read is not None:
        check_readout(read, layers[0].recurrent.new_zeros(sum(sizes)))
    return MapDynamics(
        step=steps[0] if len(layers) == 1 else step,
        readout=read,
        state_size=sum(sizes),
        input_size=module.input_size,
        preactivation=_drive(layers[0]) if plain else None,
        activation=layers[0].nonlinearity if plain else None,
    )


class _Layer(NamedTuple):
    """Copied weights of one layer; gates of the published torch order are stacked along the rows."""

    kind: str
    recurrent: Tensor
    recurrent_bias: Tensor
    input: Tensor
    input_bias: Tensor
    state_size: int
    nonlinearity: Callable[[Tensor], Tensor]


def _layers(module: nn.RNNBase | nn.RNNCellBase) -> list[_Layer]:
    if getattr(module, "bidirectional", False):
        raise ValueError("a bidirectional network reads the future: it is no dynamical system in time.")
    if getattr(module, "proj_size", 0):
        raise ValueError(f"an LSTM with projections is not supported, got proj_size={module.proj_size}.")
    kind = type(module).__name__.removesuffix("Cell").lower()
    if kind not in _STEPS:
        raise ValueError(f"module must be an RNN, GRU or LSTM, got {type(module).__name__}.")
    nonlinearity = _NONLINEARITIES[getattr(module, "nonlinearity", "tanh")]
    suffixes = [f"_l{i}" for i in range(module.num_layers)] if isinstance(module, nn.RNNBase) else [""]
    layers = []
    for suffix in suffixes:
        weights = {name: _copied(module, f"{name}{suffix}") for name in ("weight_hh", "weight_ih")}
        zeros = weights["weight_hh"].new_zeros(len(weights["weight_hh"]))
        biases = [_copied(module, f"{name}{suffix}", zeros) for name in ("bias_hh", "bias_ih")]
        size = module.hidden_size * (2 if kind == "lstm" else 1)
        layers.append(
            _Layer(kind, weights["weight_hh"], biases[0], weights["weight_ih"], biases[1], size, nonlinearity)
        )
    return layers


def _copied(module: nn.Module, name: str, default: Tensor | None = None) -> Tensor:
    value = getattr(module, name, None)
    value = default if value is None else value
    assert value is not None
    return value.detach().clone()


def _reading(readout: nn.Module | Callable[[Tensor], Tensor], output: slice) -> Callable[[Tensor], Tensor]:
    if isinstance(readout, nn.Module):
        readout = copy.deepcopy(readout).eval().requires_grad_(False)
    return lambda h: readout(h[..., output])


def _from_input(layer: _Layer, u: Tensor | None) -> Tensor:
    return layer.input_bias if u is None else u @ layer.input.mT + layer.input_bias


def _drive(layer: _Layer) -> Step:
    return lambda h, u: h @ layer.recurrent.mT + layer.recurrent_bias + _from_input(layer, u)


def _rnn(layer: _Layer) -> Step:
    drive = _drive(layer)
    return lambda h, u: layer.nonlinearity(drive(h, u))


def _gru(layer: _Layer) -> Step:
    def step(h: Tensor, u: Tensor | None) -> Tensor:
        inputs = _from_input(layer, u).chunk(3, dim=-1)
        recurrent = (h @ layer.recurrent.mT + layer.recurrent_bias).chunk(3, dim=-1)
        reset, update = (torch.sigmoid(a + b) for a, b in zip(inputs[:2], recurrent[:2], strict=True))
        candidate = torch.tanh(inputs[2] + reset * recurrent[2])
        return candidate + update * (h - candidate)

    return step


def _lstm(layer: _Layer) -> Step:
    def step(h: Tensor, u: Tensor | None) -> Tensor:
        hidden, cell = h.chunk(2, dim=-1)
        gates = _from_input(layer, u) + hidden @ layer.recurrent.mT + layer.recurrent_bias
        keep_in, forget, candidate, out = gates.chunk(4, dim=-1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(keep_in) * torch.tanh(candidate)
        return torch.cat([torch.sigmoid(out) * torch.tanh(cell), cell], dim=-1)

    return step


_STEPS: dict[str, Callable[[_Layer], Step]] = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}

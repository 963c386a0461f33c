"""The categorical hidden Markov model in Pyro: a check of the recursions, a start for Bayesian work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from seqdyn.inference.checks import Values

if TYPE_CHECKING:
    from seqdyn.inference.hmm import HMM

__all__ = ["as_pyro_distribution", "pyro_model"]


def pyro_model(
    hmm: HMM,
    symbols: Values,
    lengths: Values | None = None,
    *,
    concentration: float | None = None,
    sticky: float = 0.0,
) -> None:
    """The model as a Pyro program with enumerated states ``hmm_state_0``, ``hmm_state_1``, ...

    With ``TraceEnum_ELBO(max_plate_nesting=1)`` and an empty guide the negative loss is the sum of
    :func:`seqdyn.inference.hmm.log_likelihood`; ``infer_discrete`` gives posterior draws of the states and,
    at temperature 0, the most probable path. It is many times slower than the recursions: use it where the
    parameters have priors.

    Args:
        hmm: Model; with priors only its numbers of states and symbols count.
        symbols: Whole numbers (series, time), -1 where missing.
        lengths: Length of each series, (series,).
        concentration: Draw ``initial`` and the rows of ``transition`` and ``emission`` from symmetric
            Dirichlet laws with this concentration instead of taking them from ``hmm``.
        sticky: Added to the concentration of staying in a state.

    Raises:
        ValueError: If symbols or lengths do not fit, or a concentration is not positive.
    """
    import pyro
    import pyro.distributions as dist
    from pyro import poutine

    x, _ = hmm.prepare(symbols, lengths)
    initial, transition, emission = hmm.initial, hmm.transition, hmm.emission
    if concentration is not None:
        if not concentration > 0 or not sticky >= 0:
            raise ValueError(
                f"concentration must be positive and sticky at least 0, got {concentration} and {sticky}; "
                "concentration=1.0 is uniform."
            )
        flat = torch.ones_like(initial) * concentration
        stay = sticky * torch.eye(hmm.num_states, dtype=flat.dtype, device=flat.device)
        initial = pyro.sample("initial", dist.Dirichlet(flat))
        transition = pyro.sample("transition", dist.Dirichlet(flat + stay).to_event(1))
        emission = pyro.sample(
            "emission", dist.Dirichlet(torch.full_like(emission, concentration)).to_event(1)
        )
    # Logits keep zeros exact: given probabilities, Categorical lifts them to machine precision.
    laws, table = transition.log(), emission.log()
    state: Tensor | None = None
    with pyro.plate("series", len(x), dim=-1):
        for step in pyro.markov(range(x.shape[1])):
            logits = initial.log() if state is None else laws[state]
            # After the end of a series the chain runs on unseen, which adds a factor of one.
            state = pyro.sample(
                f"hmm_state_{step}", dist.Categorical(logits=logits), infer={"enumerate": "parallel"}
            )
            seen = x[:, step] >= 0
            with poutine.mask(mask=seen):  # type: ignore[call-overload]
                symbol = dist.Categorical(logits=table[state])
                pyro.sample(f"symbol_{step}", symbol, obs=x[:, step].clamp_min(0))


def as_pyro_distribution(hmm: HMM) -> Any:
    r"""The model as a ``pyro.distributions.DiscreteHMM`` over sequences without missing steps.

    Pyro's class applies one transition before the first observation. It is given a law :math:`\tilde\pi` with
    :math:`\tilde\pi A = \pi`, so that its ``log_prob`` is that of this model.

    Raises:
        ValueError: If no law leads to ``hmm.initial`` in one transition.
    """
    import pyro.distributions as dist
    from scipy.optimize import nnls

    with torch.no_grad():
        forward = hmm.transition.T.cpu().numpy()
        before, error = nnls(forward, hmm.initial.cpu().numpy())
        if error > 1e-10:
            raise ValueError(
                f"no law of an earlier state leads to initial={hmm.initial.tolist()} in one transition "
                f"(nearest {np.round(forward @ before, 4).tolist()}), as Pyro's DiscreteHMM needs; use "
                "pyro_model instead."
            )
        logits = torch.as_tensor(before, device=hmm.initial.device).log()
        return dist.DiscreteHMM(
            logits, hmm.transition.log(), dist.Categorical(logits=hmm.emission.log()), validate_args=False
        )

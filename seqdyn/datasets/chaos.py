r"""Textbook systems whose exponents and fixed points are known: oracles for ``seqdyn.analysis``, and data.

Each function returns a :class:`System`: the dynamics object and, beside it, what is known of it for the
default parameters. Exponents are per step for maps and per unit of time for flows; with other parameters the
published ones do not hold and are left out. Unless stated otherwise they are from Sprott (2003), "Chaos and
Time-Series Analysis", appendix A.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.data.convert import from_numpy
from seqdyn.dynamics.arguments import Dynamics
from seqdyn.dynamics.flows import FlowDynamics
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.dynamics.rollout import simulate

__all__ = [
    "System", "chua", "duffing", "henon", "ikeda", "logistic", "lorenz", "lorenz96", "rossler", "trajectory",
    "van_der_pol",
]  # fmt: skip


@dataclass(frozen=True)
class System:
    """A dynamical system and what is known of it.

    Attributes:
        name: Its name.
        dynamics: The map or flow; it computes in the precision of the state.
        features: Names of the coordinates.
        parameters: Values of the parameters.
        start: A state in the basin of the attractor.
        step_size: A sensible Runge-Kutta step; ``None`` for a map.
        exponents: Published Lyapunov exponents, falling; empty where none are known for the parameters.
        fixed_points: All fixed points that have a closed form, (P, C).
        source: Where equations and exponents are published.
    """

    name: str
    dynamics: Dynamics
    features: tuple[str, ...]
    parameters: dict[str, float]
    start: tuple[float, ...]
    step_size: float | None
    exponents: tuple[float, ...]
    fixed_points: np.ndarray = field(compare=False)
    source: str


def lorenz(sigma: float = 10.0, rho: float = 28.0, beta: float = 8 / 3) -> System:
    r"""Lorenz's convection.

    .. math::
        \dot x = \sigma (y - x), \quad \dot y = x (\rho - z) - y, \quad \dot z = x y - \beta z

    Source: Lorenz (1963), J. Atmos. Sci. 20, 130-141.
    """

    def drift(state: Tensor, time: float) -> Tensor:
        x, y, z = state.unbind(-1)
        return torch.stack([sigma * (y - x), x * (rho - z) - y, x * y - beta * z], dim=-1)

    points = [[0.0, 0.0, 0.0]]
    if rho > 1:
        r = math.sqrt(beta * (rho - 1))
        points += [[r, r, rho - 1], [-r, -r, rho - 1]]
    known = (sigma, rho, beta) == (10.0, 28.0, 8 / 3)
    return System(
        "Lorenz", FlowDynamics(drift, 0.0, 3), ("x", "y", "z"), {"sigma": sigma, "rho": rho, "beta": beta},
        (1.0, 1.0, 20.0), 0.01, (0.9056, 0.0, -14.5723) if known else (), np.array(points),
        "Lorenz (1963), J. Atmos. Sci. 20, 130-141; exponents: Sprott (2003)",
    )  # fmt: skip


def rossler(a: float = 0.2, b: float = 0.2, c: float = 5.7) -> System:
    r"""Rössler's band: :math:`\dot x = -y - z,\ \dot y = x + a y,\ \dot z = b + z (x - c)`.

    Source: Rössler (1976), Phys. Lett. A 57, 397-398.
    """

    def drift(state: Tensor, time: float) -> Tensor:
        x, y, z = state.unbind(-1)
        return torch.stack([-y - z, x + a * y, b + z * (x - c)], dim=-1)

    root = c * c - 4 * a * b
    heights = [] if root < 0 or a == 0 else [(c + sign * math.sqrt(root)) / (2 * a) for sign in (-1, 1)]
    points = np.array([[a * z, -z, z] for z in heights]).reshape(-1, 3)
    known = (a, b, c) == (0.2, 0.2, 5.7)
    return System(
        "Rössler", FlowDynamics(drift, 0.0, 3), ("x", "y", "z"), {"a": a, "b": b, "c": c}, (-9.0, 0.0, 0.0),
        0.02, (0.0714, 0.0, -5.3943) if known else (), points,
        "Rössler (1976), Phys. Lett. A 57, 397-398; exponents: Sprott (2003)",
    )  # fmt: skip


def henon(a: float = 1.4, b: float = 0.3) -> System:
    r"""Hénon's map: :math:`x' = 1 - a x^2 + y,\ y' = b x`; its exponents add up to ln |b|.

    Source: Hénon (1976), Commun. Math. Phys. 50, 69-77.
    """

    def step(state: Tensor, u: Tensor | None) -> Tensor:
        x, y = state.unbind(-1)
        return torch.stack([1 - a * x * x + y, b * x], dim=-1)

    root = (1 - b) ** 2 + 4 * a
    values = [] if root < 0 or a == 0 else [(b - 1 + sign * math.sqrt(root)) / (2 * a) for sign in (1, -1)]
    known = (a, b) == (1.4, 0.3)
    return System(
        "Hénon", MapDynamics(step, None, 2, 0), ("x", "y"), {"a": a, "b": b}, (0.0, 0.0), None,
        (0.41922, -1.62319) if known else (), np.array([[x, b * x] for x in values]).reshape(-1, 2),
        "Hénon (1976), Commun. Math. Phys. 50, 69-77; exponents: Sprott (2003)",
    )  # fmt: skip


def logistic(r: float = 4.0) -> System:
    r"""The logistic map :math:`x' = r x (1 - x)`; for r = 4 its exponent is ln 2.

    Source: May (1976), Nature 261, 459-467.
    """
    points = [[0.0]] if r == 1 or r == 0 else [[0.0], [1 - 1 / r]]
    return System(
        "logistic", MapDynamics(lambda x, u: r * x * (1 - x), None, 1, 0), ("x",), {"r": r}, (0.1234,), None,
        (math.log(2),) if r == 4 else (), np.array(points), "May (1976), Nature 261, 459-467",
    )  # fmt: skip


def ikeda(alpha: float = 6.0, beta: float = 0.4, gamma: float = 1.0, mu: float = 0.9) -> System:
    r"""Light in a ring cavity; with :math:`\phi = \beta - \alpha / (1 + x^2 + y^2)`,

    .. math::
        x' = \gamma + \mu (x \cos\phi - y \sin\phi), \quad y' = \mu (x \sin\phi + y \cos\phi)

    and exponents that add up to 2 ln μ.

    Source: Ikeda (1979), Opt. Commun. 30, 257-261.
    """

    def step(state: Tensor, u: Tensor | None) -> Tensor:
        x, y = state.unbind(-1)
        phase = beta - alpha / (1 + x * x + y * y)
        cos, sin = phase.cos(), phase.sin()
        return torch.stack([gamma + mu * (x * cos - y * sin), mu * (x * sin + y * cos)], dim=-1)

    known = (alpha, beta, gamma, mu) == (6.0, 0.4, 1.0, 0.9)
    return System(
        "Ikeda", MapDynamics(step, None, 2, 0), ("x", "y"),
        {"alpha": alpha, "beta": beta, "gamma": gamma, "mu": mu}, (0.1, 0.1), None,
        (0.5076, -0.7183) if known else (), np.empty((0, 2)),
        "Ikeda (1979), Opt. Commun. 30, 257-261; exponents: Sprott (2003)",
    )  # fmt: skip


def duffing(damping: float = 0.25, amplitude: float = 0.4, frequency: float = 1.0) -> System:
    r"""A forced particle in two wells, its phase θ as third coordinate:

    .. math::
        \dot x = v, \quad \dot v = x - x^3 - b v + A \sin\theta, \quad \dot\theta = \Omega

    Source: Duffing (1918); parameters and exponents of the forced two-well oscillator: Sprott (2003).
    """

    def drift(state: Tensor, time: float) -> Tensor:
        x, v, phase = state.unbind(-1)
        force = x - x**3 - damping * v + amplitude * phase.sin()
        return torch.stack([v, force, torch.full_like(x, frequency)], dim=-1)

    known = (damping, amplitude, frequency) == (0.25, 0.4, 1.0)
    parameters = {"damping": damping, "amplitude": amplitude, "frequency": frequency}
    return System(
        "Duffing", FlowDynamics(drift, 0.0, 3), ("x", "v", "phase"), parameters, (0.2, 0.0, 0.0), 0.02,
        (0.1571, 0.0, -0.4071) if known else (), np.empty((0, 3)), "Sprott (2003), two-well oscillator",
    )  # fmt: skip


def chua(alpha: float = 9.0, beta: float = 100 / 7, inner: float = 8 / 7, outer: float = 5 / 7) -> System:
    r"""Chua's circuit with its piecewise linear diode:

    .. math::
        \dot x = \alpha (y - x - f(x)), \quad \dot y = x - y + z, \quad \dot z = -\beta y, \quad
        f(x) = -o\,x - \tfrac12 (i - o) (|x + 1| - |x - 1|)

    with slopes -i inside and -o outside of |x| < 1.

    Source: Matsumoto, Chua & Komuro (1985), IEEE Trans. Circuits Syst. 32, 797-818; exponents: Sprott (2003).
    """

    def drift(state: Tensor, time: float) -> Tensor:
        x, y, z = state.unbind(-1)
        diode = -outer * x - 0.5 * (inner - outer) * ((x + 1).abs() - (x - 1).abs())
        return torch.stack([alpha * (y - x - diode), x - y + z, -beta * y], dim=-1)

    points = [[0.0, 0.0, 0.0]]
    if inner > 1 > outer:
        x = (inner - outer) / (1 - outer)
        points += [[x, 0.0, -x], [-x, 0.0, x]]
    known = (alpha, beta, inner, outer) == (9.0, 100 / 7, 8 / 7, 5 / 7)
    return System(
        "Chua", FlowDynamics(drift, 0.0, 3), ("x", "y", "z"),
        {"alpha": alpha, "beta": beta, "inner": inner, "outer": outer}, (0.1, 0.0, 0.0), 0.02,
        (0.3271, 0.0, -2.5197) if known else (), np.array(points),
        "Matsumoto, Chua & Komuro (1985), IEEE Trans. Circuits Syst. 32, 797-818; exponents: Sprott (2003)",
    )  # fmt: skip


def lorenz96(size: int = 40, forcing: float = 8.0) -> System:
    r"""A ring of weather sites: :math:`\dot x_i = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F`.

    All exponents add up to -size. Of the default system the largest is known, about 1.67.

    Source: Lorenz (1996), Proc. Seminar on Predictability, ECMWF; exponent: Lorenz & Emanuel (1998), J.
    Atmos. Sci. 55, 399-414 (doubling time 2.1 days, a day being 0.2 units).
    """
    check_count(size, "size", least=4)

    def drift(state: Tensor, time: float) -> Tensor:
        after, before, second = (state.roll(shift, dims=-1) for shift in (-1, 1, 2))
        return (after - second) * before - state + forcing

    start = [forcing] * size
    start[0] += 0.01
    known = (size, forcing) == (40, 8.0)
    return System(
        "Lorenz-96", FlowDynamics(drift, 0.0, size), tuple(f"x_{i}" for i in range(size)),
        {"forcing": forcing}, tuple(start), 0.02, (1.67,) if known else (), np.full((1, size), forcing),
        "Lorenz (1996); exponent: Lorenz & Emanuel (1998), J. Atmos. Sci. 55, 399-414",
    )  # fmt: skip


def van_der_pol(mu: float = 1.0) -> System:
    r"""A relaxation oscillator with a limit cycle: :math:`\dot x = v,\ \dot v = \mu (1 - x^2) v - x`.

    Source: van der Pol (1926), Phil. Mag. 2, 978-992.
    """

    def drift(state: Tensor, time: float) -> Tensor:
        x, v = state.unbind(-1)
        return torch.stack([v, mu * (1 - x * x) * v - x], dim=-1)

    return System(
        "van der Pol", FlowDynamics(drift, 0.0, 2), ("x", "v"), {"mu": mu}, (2.0, 0.0), 0.02, (),
        np.zeros((1, 2)), "van der Pol (1926), Phil. Mag. 2, 978-992",
    )  # fmt: skip


def trajectory(
    system: System,
    num_steps: int,
    *,
    num_series: int = 1,
    spread: float = 0.01,
    transient: int = 1000,
    step_size: float | None = None,
    sample_every: int = 1,
    seed: int | None = None,
) -> xr.Dataset:
    """Sequences from a system, started near its ``start`` and let run for a while first.

    Args:
        system: One of the systems of this module.
        num_steps: Time steps T of the result.
        num_series: Number of series M.
        spread: Standard deviation of the starts around ``system.start``.
        transient: Steps before the first one recorded.
        step_size: Integration step of a flow; that of the system by default.
        sample_every: Steps between two recorded ones.
        seed: Seed of the starts.

    Returns:
        ``target (series, time, feature)`` in float64; ``time`` in steps of a map, units of time of a flow.

    Raises:
        ValueError: If an argument is out of range, or a series leaves the finite numbers.
    """
    num_steps, every = check_count(num_steps, "num_steps"), check_count(sample_every, "sample_every")
    check_count(num_series, "num_series")
    flow = isinstance(system.dynamics, FlowDynamics)
    step_size = (system.step_size if step_size is None else step_size) if flow else step_size
    rng = np.random.default_rng(seed)
    start = np.array(system.start) + spread * rng.standard_normal((num_series, len(system.start)))
    states = simulate(
        system.dynamics, start, 1 + (num_steps - 1) * every, burn_in=transient, step_size=step_size
    )
    values = states[:, ::every].numpy()
    if not np.isfinite(values).all():
        row = int((~np.isfinite(values).all(axis=(1, 2))).argmax())
        raise ValueError(f"series {row} of {system.name} diverges; give a smaller spread or step_size.")
    unit = 1.0 if step_size is None else step_size
    data = from_numpy(values, time=np.arange(num_steps) * every * unit, features=list(system.features))
    data.attrs = {"system": system.name, "source": system.source, **system.parameters}
    if seed is not None:
        data.attrs["seed"] = seed
    return data

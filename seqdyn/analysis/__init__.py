"""Reverse engineering of learned dynamics: every tool takes a dynamics object and returns a Dataset.

*Steps.* A tool that runs chains side by side takes ``num_steps``, the steps of all chains together, rounded
up to a multiple of ``num_chains``; before them each chain takes ``burn_in`` steps that do not count. A tool
that follows given starts (dim ``start``) takes ``num_steps`` of each. :func:`reference_run` is the run that
all of them make; where ``reference=`` may be given, it is such a run, or states (chain, time, unit).

*Inputs.* ``input=`` of shape (X,) is a constant input; where there is noise, the noise is added to it. The
default is the map's own, ``dynamics.input``. A batch (B, X) is a set of conditions: the tool runs under each
of them with the same seed, hence the same noise, and the result has the dim ``condition`` and
``condition_input (condition, input)``; :mod:`seqdyn.analysis.conditions` says what becomes of labels that
only some conditions have. Given starts, noise or reference runs are the same under all of them.
:func:`fixed_points` puts the points of all conditions along ``point``, with the coordinate ``condition``.
:func:`jacobian` and :func:`local_spectra`, like :func:`seqdyn.dynamics.simulate`, take one input for each
state.

*Results.* Complex variables (eigenvalues) are complex in memory; files hold their real and imaginary parts.
``attrs`` say version, seed, precision and settings. Activity that diverges raises
:class:`seqdyn.errors.NonFiniteError`, unless the result can say so (``reason``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqdyn._lazy import attach

if TYPE_CHECKING:
    from seqdyn.analysis.autonomous import autonomous_dynamics as autonomous_dynamics
    from seqdyn.analysis.autonomous import growth_rate as growth_rate
    from seqdyn.analysis.averaged import mean_map as mean_map
    from seqdyn.analysis.connectivity import populations as populations
    from seqdyn.analysis.fixed import fixed_points as fixed_points
    from seqdyn.analysis.groups import greedy_group as greedy_group
    from seqdyn.analysis.groups import group_effect as group_effect
    from seqdyn.analysis.interventions import clamp as clamp
    from seqdyn.analysis.interventions import perturb as perturb
    from seqdyn.analysis.interventions import scale as scale
    from seqdyn.analysis.interventions import silence as silence
    from seqdyn.analysis.jacobians import drive_matrices as drive_matrices
    from seqdyn.analysis.jacobians import jacobian as jacobian
    from seqdyn.analysis.jacobians import local_spectra as local_spectra
    from seqdyn.analysis.kicks import kick_units as kick_units
    from seqdyn.analysis.lyapunov import lyapunov_spectrum as lyapunov_spectrum
    from seqdyn.analysis.noise import noise_sweep as noise_sweep
    from seqdyn.analysis.orbits import orbit as orbit
    from seqdyn.analysis.pairs import composition as composition
    from seqdyn.analysis.projection import pca as pca
    from seqdyn.analysis.projection import project as project
    from seqdyn.analysis.projection import subspace_angles as subspace_angles
    from seqdyn.analysis.readout import logit_gradients as logit_gradients
    from seqdyn.analysis.readout import readout_axes as readout_axes
    from seqdyn.analysis.runs import reference_run as reference_run
    from seqdyn.analysis.segments import regimes as regimes
    from seqdyn.analysis.sensitivity import noise_sensitivity as noise_sensitivity
    from seqdyn.analysis.speed import speed_field as speed_field
    from seqdyn.analysis.stability import cone_growth as cone_growth
    from seqdyn.analysis.stays import residence as residence
    from seqdyn.analysis.stochastic import resonance as resonance
    from seqdyn.analysis.training import change_point as change_point
    from seqdyn.analysis.training import training_dynamics as training_dynamics

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "autonomous_dynamics": "autonomous",
        "change_point": "training",
        "clamp": "interventions",
        "composition": "pairs",
        "cone_growth": "stability",
        "drive_matrices": "jacobians",
        "fixed_points": "fixed",
        "greedy_group": "groups",
        "group_effect": "groups",
        "growth_rate": "autonomous",
        "jacobian": "jacobians",
        "kick_units": "kicks",
        "local_spectra": "jacobians",
        "logit_gradients": "readout",
        "lyapunov_spectrum": "lyapunov",
        "mean_map": "averaged",
        "noise_sensitivity": "sensitivity",
        "noise_sweep": "noise",
        "orbit": "orbits",
        "pca": "projection",
        "perturb": "interventions",
        "populations": "connectivity",
        "project": "projection",
        "readout_axes": "readout",
        "reference_run": "runs",
        "regimes": "segments",
        "residence": "stays",
        "resonance": "stochastic",
        "scale": "interventions",
        "silence": "interventions",
        "speed_field": "speed",
        "subspace_angles": "projection",
        "training_dynamics": "training",
    },
)

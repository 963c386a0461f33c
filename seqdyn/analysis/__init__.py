"""Reverse engineering of learned dynamics: every tool takes a dynamics object and returns a Dataset.

Complex variables (eigenvalues) are complex in memory; files hold their real and imaginary parts. ``attrs``
say version, seed, precision and settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqdyn._lazy import attach

if TYPE_CHECKING:
    from seqdyn.analysis.averaged import mean_map as mean_map
    from seqdyn.analysis.fixed import fixed_points as fixed_points
    from seqdyn.analysis.interventions import clamp as clamp
    from seqdyn.analysis.interventions import perturb as perturb
    from seqdyn.analysis.interventions import scale as scale
    from seqdyn.analysis.interventions import silence as silence
    from seqdyn.analysis.jacobians import drive_matrices as drive_matrices
    from seqdyn.analysis.jacobians import jacobian as jacobian
    from seqdyn.analysis.jacobians import local_spectra as local_spectra
    from seqdyn.analysis.lyapunov import lyapunov_spectrum as lyapunov_spectrum
    from seqdyn.analysis.projection import pca as pca
    from seqdyn.analysis.projection import project as project
    from seqdyn.analysis.projection import subspace_angles as subspace_angles
    from seqdyn.analysis.speed import speed_field as speed_field
    from seqdyn.analysis.stability import cone_growth as cone_growth

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "clamp": "interventions",
        "cone_growth": "stability",
        "drive_matrices": "jacobians",
        "fixed_points": "fixed",
        "jacobian": "jacobians",
        "local_spectra": "jacobians",
        "lyapunov_spectrum": "lyapunov",
        "mean_map": "averaged",
        "pca": "projection",
        "perturb": "interventions",
        "project": "projection",
        "scale": "interventions",
        "silence": "interventions",
        "speed_field": "speed",
        "subspace_angles": "projection",
    },
)

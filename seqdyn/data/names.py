"""Names of dims and variables; public through :mod:`seqdyn.data.schema`."""

from __future__ import annotations

__all__ = [
    "CELL",
    "CONDITION",
    "COVARIATE",
    "COVARIATES",
    "EXTRAPOLATED",
    "EXTRAPOLATION",
    "FEATURE",
    "GROWTH",
    "INPUT",
    "OBSERVED",
    "OUTCOME",
    "OUTPUT",
    "PARTICLE",
    "QUERY",
    "QUERY_X",
    "QUERY_Y",
    "SAMPLE",
    "SERIES",
    "SUPPORT",
    "SUPPORT_X",
    "SUPPORT_Y",
    "SYMBOL",
    "TARGET",
    "TASK",
    "TIME",
    "WEIGHT",
    "WINDOW",
    "X",
]

SERIES, TIME, FEATURE, COVARIATE = "series", "time", "feature", "covariate"
SAMPLE, PARTICLE, TASK, WINDOW = "sample", "particle", "task", "window"
TARGET, OBSERVED, SYMBOL, COVARIATES, X = "target", "observed", "symbol", "covariates", "x"
OUTCOME = "outcome"
EXTRAPOLATION, EXTRAPOLATED = "extrapolation_from", "extrapolated"
WEIGHT, GROWTH, CONDITION, CELL = "weight", "growth", "condition", "cell"
SUPPORT, QUERY, INPUT, OUTPUT = "support", "query", "input", "output"
SUPPORT_X, SUPPORT_Y, QUERY_X, QUERY_Y = "support_x", "support_y", "query_x", "query_y"

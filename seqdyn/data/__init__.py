"""Reading, checking and batching data: sequences, snapshots and episodes as xarray Datasets."""

from __future__ import annotations

from seqdyn._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "ClassPool": "episodes",
        "EpisodeDataModule": "episodes",
        "SequenceDataModule": "sequences",
        "SequenceWindows": "windows",
        "SnapshotDataModule": "snapshots",
        "check_episodes": "schema",
        "check_sequences": "schema",
        "check_snapshots": "schema",
        "convert": "convert",
        "describe": "schema",
        "episodes": "episodes",
        "fingerprint": "schema",
        "forecast_dataset": "convert",
        "frequency": "schema",
        "from_netcdf": "convert",
        "from_numpy": "convert",
        "from_pandas": "convert",
        "future_times": "schema",
        "hide_context": "missing",
        "observed_mask": "schema",
        "read": "read",
        "read_sequences": "read",
        "read_snapshots": "read",
        "read_symbols": "discrete",
        "schema": "schema",
        "sequences": "sequences",
        "snapshots": "snapshots",
        "split_alternate": "snapshot_splits",
        "split_snapshots": "snapshot_splits",
        "stack_snapshots": "convert",
        "summary": "schema",
        "to_anndata": "cells",
        "to_netcdf": "convert",
        "to_pandas": "convert",
        "windows": "windows",
    },
)

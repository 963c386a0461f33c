"""A fit for test_kill.py: run as a script it resumes or begins the run in a folder, and may kill itself."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from seqdyn.models import TSDiff

NUM_EPOCHS, NUM_BATCHES = 4, 300


def fit(run: Path) -> TSDiff:
    """Begin the run in a folder, or go on with it."""
    values = np.random.default_rng(0).random((3, 80, 1)).astype(np.float32)
    data = xr.Dataset(
        {"target": (("series", "time", "feature"), values)},
        {"series": ["a", "b", "c"], "time": np.arange(80), "feature": ["y"]},
    )
    model = TSDiff(
        context_length=24, prediction_length=6, lags=(), hidden_size=8, num_blocks=1, state_size=8,
        embedding_size=8, num_diffusion_steps=8, batch_size=8, batches_per_epoch=NUM_BATCHES,
    )  # fmt: skip
    return model.fit(
        data, val=data.isel(time=slice(40, None)), max_epochs=NUM_EPOCHS, seed=7, ema_decay=0.99, run_dir=run,
        resume=True, checkpoint_every=3, enable_progress_bar=False,
    )  # fmt: skip


def kill_at(function: str, name: str, call: int) -> None:
    """Let the process kill itself just before the n-th call of a function for files of a name."""
    calls = 0

    def count(file: str) -> bool:
        nonlocal calls
        calls += name in file
        return name in file and calls == call

    def before(original: Callable[..., Any], file: Callable[..., str]) -> Callable[..., Any]:
        def hooked(*args: Any, **kwargs: Any) -> Any:
            if count(file(*args)):
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        return hooked

    def half_written(checkpoint: Any, file: Any) -> None:
        save(checkpoint, file)
        if count(file.name):
            file.truncate(file.tell() // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    save = torch.save
    if function == "save":
        torch.save = half_written
    elif function == "replace":
        os.replace = before(os.replace, lambda source, target: str(target))
    else:
        os.fsync = before(os.fsync, lambda descriptor: os.readlink(f"/proc/self/fd/{descriptor}"))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        kill_at(**json.loads(sys.argv[2]))
    fit(Path(sys.argv[1]))

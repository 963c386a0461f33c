"""Make ``hESC_data.npz`` from the array of arrays that its authors publish.

``hESC_data.npy`` holds five arrays of unequal length as pickled objects. This script reads them with a reader
that can build arrays and nothing else, and stores all cells in one plain array::

    python datasets/hesc/prepare.py hESC_data.npy --output hESC_data.npz

Place the result at ``<folder>/sbirr/hESC_data.npz`` and set ``SEQDYN_DATA=<folder>``.
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["ArrayUnpickler", "main", "read_object_array"]

_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),  # how Python 2 and protocol 2 write bytes
}


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickled arrays and refuses every other object."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few functions that rebuild an array.

        Raises:
            ValueError: If the file asks for anything else.
        """
        if (module, name) not in _ALLOWED:
            raise ValueError(f"the file wants {module}.{name}, which no array needs; it was not read.")
        return super().find_class(module, name)


def read_object_array(path: Path) -> list[np.ndarray]:
    """Read a ``.npy`` file that holds a one-dimensional array of arrays.

    Args:
        path: The file.

    Returns:
        The arrays, in order.

    Raises:
        ValueError: If the file holds anything else.
    """
    with path.open("rb") as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"{path} has .npy version {version}, expected (1, 0).")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype.kind != "O" or len(shape) != 1:
            raise ValueError(f"{path} holds {dtype} of shape {shape}, expected a list of arrays.")
        return [np.asarray(array, dtype=float) for array in ArrayUnpickler(stream).load()]


def main(arguments: list[str] | None = None) -> None:
    """Convert the file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="hESC_data.npy")
    parser.add_argument("--output", type=Path, default=Path("hESC_data.npz"))
    options = parser.parse_args(arguments)
    clouds = read_object_array(options.source)
    snapshot = np.repeat(np.arange(len(clouds)), [len(cloud) for cloud in clouds])
    np.savez(options.output, x=np.concatenate(clouds), snapshot=snapshot)


if __name__ == "__main__":
    main()

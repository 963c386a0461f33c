"""Time TSDiff's steps beside a matrix product, each case in a process of its own.

Run ``python -m experiments.benchmarks.tsdiff`` from the root of the repository, on an idle machine. ``--case
NAME`` takes one case (and may be repeated), ``--profile`` says where the time goes instead. README.md beside
this file says what the columns mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from experiments.benchmarks.paired import measure_apart, profile_apart
from experiments.record import append_row, provenance

# Not the cases' own table: a module that loads torch would weigh on the processes this one starts.
CASES = (
    "training-step",
    "denoising-step",
    "guided-step",
    "guided-step-xt",
    "s4-kernel",
    "s4-kernel-gradient",
)
MODULE = "experiments.benchmarks.tsdiff_cases"
# The product of matrices gains more from AVX-512 than the rest of a step does: ratios taken with it do not
# compare with ratios taken without.
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
RESULTS = Path(__file__).parents[1] / "results" / "benchmarks_tsdiff.csv"
COLUMNS = "{:20} {:>9} {:>9} {:>9}   {:24} {:>8} {:>8}"


def row(case: str, pairs: int, avx2: bool) -> dict[str, object]:
    """Measure one case."""
    measured = measure_apart(MODULE, case, pairs=pairs, environment=AVX2 if avx2 else None)
    digits = {"peak_mb": 0, "import_mb": 0}
    rounded = {name: round(value, digits.get(name, 5)) for name, value in measured.items()}
    setting = {"pairs": pairs, "threads": 1, "instructions": "avx2" if avx2 else "all"}
    return {"case": case, **rounded, **setting, **provenance()}


def table(rows: Iterable[dict[str, object]]) -> Iterable[str]:
    """Lines of the table of :func:`row`'s results, as they come."""
    yield COLUMNS.format(
        "case", "CPU s", "wall s", "matmul s", "ratio (least to greatest)", "peak MB", "imports"
    )
    for one in rows:
        yield COLUMNS.format(
            str(one["case"]),
            f"{one['cpu_seconds']:.4f}",
            f"{one['wall_seconds']:.4f}",
            f"{one['reference_cpu_seconds']:.4f}",
            f"{one['ratio']:.2f} ({one['ratio_min']:.2f} to {one['ratio_max']:.2f})",
            f"{one['peak_mb']:.0f}",
            f"{one['import_mb']:.0f}",
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=CASES, action="append", help="one case; all by default")
    parser.add_argument(
        "--pairs", type=int, default=20, help="timed calls of a case and of the matrix product"
    )
    parser.add_argument("--avx2", action="store_true", help="keep from instructions beyond AVX2")
    parser.add_argument("--profile", action="store_true", help="print each case's most expensive operations")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file that the rows are appended to")
    arguments = parser.parse_args()
    cases, environment = arguments.case or CASES, AVX2 if arguments.avx2 else None
    if arguments.profile:
        for case in cases:
            print(case, profile_apart(MODULE, case, environment=environment), sep="\n", flush=True)
        return

    def rows() -> Iterable[dict[str, object]]:
        for case in cases:
            one = row(case, arguments.pairs, arguments.avx2)
            append_row(one, arguments.results)
            yield one

    for line in table(rows()):
        print(line, flush=True)


if __name__ == "__main__":
    main()

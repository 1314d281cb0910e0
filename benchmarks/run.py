"""Run the benchmarks one after another, and say which failed.

    python benchmarks/run.py [--full] [NAME ...]

Without names all of them; small sizes, in minutes, unless `--full` asks for those that each has by itself.
What a benchmark cannot do without is named where it is missing, and the benchmark skipped; peers that it can do
without it names and leaves out itself. The exit status is 1 if one failed.
"""

import argparse
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared" / "data"
NAMES = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "run")

# Arguments of a small run, where the sizes of the benchmark itself take long.
SMALL = {
    "assembly_stages": "--sizes 4 5",
    "blas_libraries": "--cells 10 --dense 600 --rounds 1",
    "colorings_by_size_and_ranks": "--side 40 --ranks 1,2 --most 1e5",
    "colorings_vs_peers": "--patterns (g2d9|enm12)_1e4 --orders natural,best --peers",
    "eigenpairs_vs_peers": "--quick",
    "estimates_vs_peers": "--networks small",
    "faults": "--kills 3",
    "hostile_jobs": "12",
    "jax_hessians_vs_peers": "peers --functions chain --rounds 1 --repeats 3",
    "lobpcg_by_size": "8 14",
    "lobpcg_vs_factorization": "8",
    "methods_side_by_side": "--cells 6",
    "near_far": "--side 4 --only ions --pairs 3",
    "network_curvature_vs_peers": "--quick",
    "network_extremes_vs_arpack": "--quick",
    "overhead_vs_slepc4py": "--sides 10 --plane 60",
    "overhead_inside_hosts": "--quick",
    "panel_products": "--cells 8 --rounds 3",
    "scaled_spectra_survey": "--runs 100 --ranks 1",
    "buckling_vs_peers": "--side 20",
    "phonons_vs_phonopy": "--sizes 2 3 --points 40",
    "selected_inverse": "--edge 14 --rounds 1",
    "service_memory_over_jobs": "300 1",
    "service_vs_process_starts": "100",
    "structured_preconditioners": "--quick",
    "traffic_by_ranks": "--ranks 1 2 3 --sides 6 10 --cells 3 5",
    "wrong_spectra_survey": "--matrices hb_bcsst01 hb_lund --most 10",
}

PACKAGES = {
    "estimates_vs_peers": "torch",
    "jax_hessians_vs_peers": "jax",
    "network_curvature_vs_peers": "torch",
    "network_extremes_vs_arpack": "torch",
    "phonons_vs_phonopy": "ase",
    "structured_preconditioners": "torch",
    "thermochemistry_vs_ase": "torch",
}
READS_DATA = ("scaled_spectra_survey", "wrong_spectra_survey")


def missing(name: str) -> str:
    """Return what is missing that a benchmark cannot do without, or nothing."""
    package = PACKAGES.get(name)
    if package and find_spec(package) is None:
        return package
    return f"{DATA}" if name in READS_DATA and not DATA.exists() else ""


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", choices=[*NAMES, []], default=[], metavar="NAME", help=", ".join(NAMES)
    )
    parser.add_argument("--full", action="store_true", help="in the sizes that each benchmark has by itself")
    given = parser.parse_args()
    failed, skipped = [], []
    for name in given.names or NAMES:
        print(f"\n=== {name}", flush=True)
        if absent := missing(name):
            print(f"skipped: there is no {absent}")
            skipped.append(name)
            continue
        words = [] if given.full else SMALL.get(name, "").split()
        began = time.monotonic()
        status = subprocess.run([sys.executable, HERE / f"{name}.py", *words], check=False).returncode
        print(f"{time.monotonic() - began:.0f} s" + (f", exit status {status}" if status else ""))
        if status:
            failed.append(name)
    print(f"\nskipped: {', '.join(skipped) or 'none'}\nfailed: {', '.join(failed) or 'none'}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

#!/bin/sh
# All tests: lint, everything on one rank (two tests at a time), then the collective tests on 2, 3 and 4.
set -eu
cd "$(dirname "$0")/.."
REFERENCES=$(mktemp -d)  # dense spectra are computed once for all the runs
export REFERENCES
export OMPI_MCA_hwloc_base_binding_policy=none  # else all runs that go on at a time share the first core
export OMPI_MCA_mpi_yield_when_idle=1  # ranks outnumber cores: one that waits must let another work
trap 'rm -rf "$REFERENCES"' EXIT
if [ -d .git ]; then ruff check . && ruff format --check .; fi
python -m pytest -q -n 2 --dist worksteal tests
for ranks in 2 3 4; do
    echo "collective tests on $ranks ranks"
    case $ranks in  # more ranks than cores are slow: each file on one number of them
        2) where="tests/correctness/test_[admptw]*.py tests/correctness/test_f[io]*.py tests/correctness/test_curvature.py
                  tests/correctness/test_el*.py tests/correctness/test_es*.py tests/service/test_checkpoint.py tests/hosts" ;;
        3) where="tests/correctness/test_coloring_ranks.py tests/correctness/test_[no]*.py" ;;
        4) where="tests/correctness/test_eigs.py tests/correctness/test_intervals.py tests/correctness/test_feast.py
                  tests/correctness/test_stencil.py tests/hosts/test_embedding.py" ;;
    esac
    # shellcheck disable=SC2086
    timeout 600 mpiexec -n $ranks python -m pytest -q -x -m "not thorough" $where
done

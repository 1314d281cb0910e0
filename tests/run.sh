#!/bin/sh
# All tests: lint, everything on one rank (two tests at a time), then the collective tests on 2, 3 and 4.
set -eu
cd "$(dirname "$0")/.."
REFERENCES=$(mktemp -d)  # dense spectra are computed once for all the runs
export REFERENCES
export OMPI_MCA_hwloc_base_binding_policy=none  # else all runs that go on at a time share the first core
trap 'rm -rf "$REFERENCES"' EXIT
if [ -d .git ]; then ruff check . && ruff format --check .; fi
python -m pytest -q -n 2 --dist worksteal tests
for ranks in 2 3 4; do
    echo "collective tests on $ranks ranks"
    [ $ranks = 2 ] && these="thorough or not thorough" || these="not thorough"
    timeout 600 mpiexec -n $ranks python -m pytest -q -x -m "$these" tests/correctness tests/hosts
done

#!/bin/sh
# All tests: lint, everything on one rank, then the collective tests on 2, 3 and 4.
set -eu
cd "$(dirname "$0")/.."
if [ -d .git ]; then ruff check . && ruff format --check .; fi
python -m pytest -q tests
for ranks in 2 3 4; do
    echo "collective tests on $ranks ranks"
    [ $ranks = 2 ] && these="thorough or not thorough" || these="not thorough"
    timeout 600 mpiexec -n $ranks python -m pytest -q -x -m "$these" tests/correctness tests/hosts
done

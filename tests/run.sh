#!/bin/sh
# Lint, then the tests of each number of ranks, by their marks.
#   tests/run.sh        in minutes: without the thorough ones, on 2 ranks the essential ones
#   tests/run.sh all    all but the slow ones, on 1 to 4 ranks; the essential ones with 64-bit indices, too
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
case ${1:-} in
    all) on_one= on_many= several="2 3 4" ;;
    "") on_one="not thorough" on_many="essential and not thorough" several=2 ;;
    *) echo "tests/run.sh: nothing or all, not '$1'" >&2; exit 2 ;;
esac
REFERENCES=$(mktemp -d)  # dense spectra are computed once for all the runs
export REFERENCES
trap 'rm -rf "$REFERENCES"' EXIT
# Ranks outnumber cores: all runs that go on at a time must not share the first one, and who waits must let another work.
export OMPI_MCA_hwloc_base_binding_policy=none PRTE_MCA_hwloc_default_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1
if [ -e .git ]; then
    ruff check .
    ruff format --check .
    mypy
fi
echo "tests on 1 rank, two at a time"
python -m pytest -q -rs -n 2 --dist worksteal -m "$on_one" tests
for ranks in $several; do
    echo "tests on $ranks ranks"
    timeout 2400 mpiexec -n "$ranks" python -m pytest -q -rs -x -m "$on_many" tests
done
[ -z "$on_many" ] || exit 0
# The distribution has a second build of PETSc, which the environment of its first one finds by two variables.
PETSC_DIR=$(ls -d /usr/lib/petscdir/petsc64-*/*-real 2>/dev/null | tail -n 1)
SLEPC_DIR=$(ls -d /usr/lib/slepcdir/slepc64-*/*-real 2>/dev/null | tail -n 1)
export PETSC_DIR SLEPC_DIR
unset SPARSEHESS_PASSED  # it names what has passed with the other one
if ! python -c "import petsc4py.PETSc as it; raise SystemExit(it.IntType().itemsize < 8)"; then
    echo "no tests with 64-bit indices: this environment takes no PETSc that has them" >&2
    exit "${SPARSEHESS_CI:-0}"
fi
echo "tests on 2 ranks, with 64-bit indices"
timeout 2400 mpiexec -n 2 python -m pytest -q -rs -x -m "essential and not thorough" tests

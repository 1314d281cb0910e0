#!/bin/sh
# Build the newest PETSc, SLEPc, petsc4py, slepc4py and mpi4py from PyPI against the system's
# MPI, MUMPS and ScaLAPACK. Wheels are kept per set of versions, so a second environment takes
# seconds. About 20 CPU-minutes the first time. With STACK=cuda for NVIDIA's devices too: nvcc must be there, and
# CUDA_ARCH says for which (default all-major).
set -eu
venv=$1
stack=${2:-latest}
pip="$venv/bin/python -m pip"
quiet=${SETUP_QUIET:--q}
export PIP_DISABLE_PIP_VERSION_CHECK=1

newest() { $pip index versions "$1" 2>/dev/null | sed -n '1s/.*(\(.*\)).*/\1/p'; }
petsc=${PETSC_VERSION:-$(newest petsc)}
slepc=${SLEPC_VERSION:-$(newest slepc)}
[ -n "$petsc" ] && [ -n "$slepc" ] || { echo "sparsehess: PyPI does not answer: set PETSC_VERSION and SLEPC_VERSION" >&2; exit 1; }
cuda="--with-cuda=0" kind=
if [ "$stack" = cuda ]; then
    nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
    [ -x "$nvcc" ] || { echo "sparsehess: STACK=cuda needs nvcc, of the CUDA toolkit, on PATH" >&2; exit 1; }
    cuda="--with-cuda=1 --with-cuda-dir=$(dirname "$(dirname "$(readlink -f "$nvcc")")") --with-cuda-arch=${CUDA_ARCH:-all-major}"
    kind=cuda-
fi
wheels=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/sparsehess/${kind}petsc-$petsc-slepc-$slepc-$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("SOABI"))')
mkdir -p "$wheels"

build() {  # NAME==VERSION: from the kept wheel, or from source; never from pip's own cache,
           # which does not know for which PETSC_DIR a wheel was built
    name=${1%%=*}
    if ! ls "$wheels/$name"-*.whl >/dev/null 2>&1; then
        echo "sparsehess: building $1 (once)"
        $pip wheel $quiet --no-cache-dir --no-deps --no-build-isolation --no-binary "$name" -w "$wheels" "$1"
    fi
    $pip install $quiet --no-deps --force-reinstall "$wheels/$name"-*.whl
}

$pip install $quiet "setuptools<81" wheel "cython>=3" "numpy>=2"
multiarch=$(gcc -print-multiarch)
export MAKEFLAGS="-j$(nproc)"
build "mpi4py==${MPI4PY_VERSION:-$(newest mpi4py)}"
lib=/usr/lib/$multiarch
libraries() { for name in "$@"; do printf '%s,' "$lib/lib$name.so"; done | sed 's/,$//'; }
export PETSC_CONFIGURE_OPTIONS="--with-debugging=0 COPTFLAGS=-O2 CXXOPTFLAGS=-O2 FOPTFLAGS=-O2 \
 $cuda --with-x=0 --with-fortran-bindings=0 \
 --with-blaslapack-lib=[$(libraries openblas)] \
 --with-mumps-include=/usr/include --with-mumps-lib=[$(libraries dmumps zmumps smumps cmumps mumps_common pord)] \
 --with-scalapack-lib=[$(libraries scalapack-openmpi)] \
 --with-ptscotch-include=/usr/include/scotch --with-ptscotch-lib=[$(libraries ptesmumps ptscotch ptscotcherr esmumps scotch scotcherr)]"
unset PETSC_DIR PETSC_ARCH SLEPC_DIR
build "petsc==$petsc"
PETSC_DIR=$("$venv/bin/python" -c 'import petsc; print(petsc.get_petsc_dir())'); export PETSC_DIR
build "petsc4py==${PETSC4PY_VERSION:-$petsc}"
build "slepc==$slepc"
SLEPC_DIR=$("$venv/bin/python" -c 'import slepc; print(slepc.get_slepc_dir())'); export SLEPC_DIR
build "slepc4py==${SLEPC4PY_VERSION:-$slepc}"
echo "sparsehess: PETSc $petsc and SLEPc $slepc for $multiarch in $venv"

#!/bin/sh
# environment.sh STACK VENV [hosts] [slow]: make the virtual environment VENV for STACK=system|latest|cuda: system
# packages, petsc4py and slepc4py, a pinned numpy, the build tools, sparsehess itself with its compiled kernels;
# with `hosts` the programs that it is embedded in, with `slow` what the slow tests need.
# Called by the Makefile and by image.sh; safe to call again.
set -eu
stack=$1
venv=$2
shift 2
# What the user has told cd, Python and pip for elsewhere must not lead out of the environment.
unset CDPATH PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_ROOT
export PIP_USER=0
here=$(cd "$(dirname "$0")" && pwd)
project=$(dirname "$here")
python=${PYTHON:-/usr/bin/python3}
quiet=${SETUP_QUIET:--q}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

say() { echo "sparsehess: $*"; }
fail() { echo "sparsehess: $*" >&2; exit 1; }

# --- system packages -------------------------------------------------------------------
need() {  # PACKAGE …: install those that are not there
    missing= native=$(dpkg --print-architecture 2>/dev/null || true)
    for package in "$@"; do
        # A line for each architecture that it is there for.
        dpkg-query -W -f '${Architecture} ${db:Status-Status}\n' "$package" 2>/dev/null \
            | grep -Eqx "($native|all) installed" || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || fail "these Debian packages are needed, and there is no apt-get here:$missing"
    if [ "$(id -u)" = 0 ]; then root=
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then root="sudo"
    elif command -v sudo >/dev/null && [ -t 0 ]; then root="sudo"
    else fail "need root or sudo once, to run: apt-get install --no-install-recommends$missing"
    fi
    say "installing$missing"
    log=$(mktemp)
    # sudo lets no variable through; a machine that has just started upgrades itself, with the lock in its hand.
    { $root apt-get update && $root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y \
        --no-install-recommends $missing; } >"$log" 2>&1 </dev/null \
        || { tail -n 20 "$log" >&2; fail "apt-get could not install:$missing"; }
    rm -f "$log"
}
case $stack in system | latest | cuda) ;; *) fail "STACK is system, latest or cuda, not '$stack'" ;; esac
packages=$(cat "$here/debian-packages.txt")
[ "$stack" = system ] || packages="$packages $(cat "$here/debian-packages-latest.txt")"
hosts=
for more in "$@"; do
    case $more in hosts) hosts=yes ;; slow) ;; *) fail "what may be added is hosts and slow, not '$more'" ;; esac
    packages="$packages $(cat "$here/debian-packages-$more.txt")"
done
need $packages
[ -x "$python" ] || fail "no Python at $python: set PYTHON to the one that the distribution's petsc4py was built for"

# --- the virtual environment, and what must stay fixed in it ---------------------------
if [ "$stack" != system ]; then
    case $project$venv in *" "*) fail "PETSc does not build in a folder with a space in its path: $project" ;; esac
    "$python" -m venv "$venv"
    echo "numpy>=2" >"$venv/constraints.txt"
else
    "$python" -m venv --system-site-packages "$venv"
    # The compiled petsc4py loads only beside the numpy ABI it was built for: the distribution's, not the user's own.
    "$python" -I -c 'import numpy; v = numpy.__version__; print(f"numpy>={v},<{int(v.split(chr(46))[0]) + 1}")' >"$venv/constraints.txt"
fi
venv=$(cd "$venv" && pwd)
# As an address: pip splits paths at spaces.
"$venv/bin/python" -c 'import pathlib, sys; print("[global]\nconstraint =", pathlib.Path(sys.argv[1]).as_uri())' \
    "$venv/constraints.txt" >"$venv/pip.conf"
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# A numpy in ~/.local would stand before the distribution's, and pip would take for there what has no script here.
echo "import site; site.ENABLE_USER_SITE = False" >"$site/no-packages-of-the-user.pth"

# The distribution's, whatever stands before it on PATH (conda's, another environment's) or MPICH's is preferred to it:
# under another MPI's launcher each process is a world of its own.
PATH=/usr/bin:/bin:$PATH
mpiexec=
for each in mpiexec mpiexec.openmpi; do
    [ -n "$mpiexec" ] || ! "$each" --version 2>&1 | grep -Eqi 'open.?(mpi|rte)' || mpiexec=$(command -v "$each")
done
[ -n "$mpiexec" ] || fail "there is no mpiexec of Open MPI under /usr/bin or on PATH"
sed "s|@MPIEXEC@|$mpiexec|" "$here/mpiexec.bash" >"$venv/bin/mpiexec"
chmod +x "$venv/bin/mpiexec"

# --- petsc4py and slepc4py -------------------------------------------------------------
if [ "$stack" != system ]; then
    sh "$here/petsc-latest.sh" "$venv" "$stack"
else
    # Debian looks under /usr/lib/petsc, which only its development package makes: say where they are.
    real=$(find /usr/lib/petscdir /usr/lib/slepcdir -type d -path '*-real/lib/python3/dist-packages' ! -path '*64-[0-9]*' 2>/dev/null | sort -V)
    [ -n "$real" ] || fail "the distribution's petsc4py (real scalars) was not found under /usr/lib/petscdir"
    # As Debian does: another build, with complex scalars or 64-bit indices, where PETSC_DIR and SLEPC_DIR name it.
    other='import os, sys; sys.path += [os.path.join(os.environ[name], "lib/python3/dist-packages") for name in ("PETSC_DIR", "SLEPC_DIR") if os.environ.get(name)]'
    printf '%s\n' "$other" "$real" >"$site/petsc-slepc-of-the-distribution.pth"
fi

# --- sparsehess and its kernels --------------------------------------------------------
# Built apart from the distribution's Python packages, some of which (pythran) get in Cython's way.
"$venv/bin/python" -m pip install $quiet -c "$venv/constraints.txt" -e "$project[demo,test${hosts:+,hosts,docs}]"
if [ -n "$hosts" ]; then
    # PyTorch for processors alone: from the index where it has such builds (its answer to a version that there is not
    # names all), else the distribution's. The plain one brings gigabytes for NVIDIA's devices.
    torch=$("$venv/bin/python" -m pip install --dry-run --no-deps torch==0 2>&1 | grep -oE '[0-9][0-9.]*\+cpu' | tail -n 1 || true)
    if [ -n "$torch" ]; then "$venv/bin/python" -m pip install $quiet -c "$venv/constraints.txt" "torch==$torch"; else need python3-torch; fi
fi
"$venv/bin/python" -c "import sparsehess.runtime as r; r.initialize([]); import sparsehess.coloring.graph_kernels" \
    || fail "the environment was made but does not import: see the message above"
say "environment ready in $venv"

#!/bin/sh
# What makes an image of a bare distribution, for PLATFORM=cpu|latest|cuda: the environment, and a user who is
# not root. Called by the Dockerfile and the Apptainer definition, as root, in the image.
set -eu
unset CDPATH
umask 022  # another user than root is to read it
platform=${1:-}
case $platform in
    cpu) stack=system ;;
    latest | cuda) stack=$platform ;;
    *) echo "sparsehess: PLATFORM is cpu, latest or cuda, not '$platform'" >&2; exit 2 ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
sh "$here/environment.sh" "$stack" "$(dirname "$here")/.venv"
id sparsehess >/dev/null 2>&1 || useradd --create-home --shell /bin/sh sparsehess
rm -rf /var/lib/apt/lists/* "${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/pip"

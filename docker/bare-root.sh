#!/bin/sh
# A bare Debian in a folder, and commands in it: nothing that is installed on this machine can hide a missing step.
#   sh docker/bare-root.sh make SUITE ROOT            bookworm or trixie, by debootstrap, with git and make
#   sh docker/bare-root.sh run ROOT FOLDER COMMAND …  in FOLDER of it; processes and mounts end with the command
# Settings of the machine for proxies, mirrors, certificates and pip are carried in. Status 3 of `make`: there can be
# no such root here (root, debootstrap, mount and PID namespaces are needed).
set -eu
umask 022  # apt reads what is carried in as a user of its own
export HOME="${HOME:-/root}"

cannot() { echo "sparsehess: no bare Debian here: $*" >&2; exit 3; }

# --- what the machine has been told of its network ---------------------------------------
carried="/etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt /etc/pip.conf"

mirror() {
    [ -n "${DEBIAN_MIRROR:-}" ] && { echo "$DEBIAN_MIRROR"; return; }
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null \
        | grep -v '^#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | grep . || echo http://deb.debian.org/debian
}

places_of_pip() {  # files and folders that pip's settings name; of an index, the folder that holds it and its files
    { cat /etc/pip.conf "$HOME/.config/pip/pip.conf" "${PIP_CONFIG_FILE:-/dev/null}" 2>/dev/null || true
      echo "${PIP_FIND_LINKS:-} ${PIP_CONSTRAINT:-} ${PIP_CONFIG_FILE:-} ${PIP_CERT:-} ${SSL_CERT_FILE:-} ${REQUESTS_CA_BUNDLE:-}"; } \
        | grep -oE '(^|[ =]|file://)/[^ ]+' | sed -E 's,^file://(.*)/[^/]*$,\1,; s,^[ =],,' | sort -u \
        | while read -r place; do [ ! -e "$place" ] || [ "${place#/etc/ssl/}" != "$place" ] || echo "$place"; done
}

make() {
    suite=$1 root=$2
    [ "$(id -u)" = 0 ] || cannot "root is needed"
    command -v debootstrap >/dev/null || cannot "apt-get install debootstrap"
    unshare --mount --pid --fork true 2>/dev/null || cannot "namespaces for mounts and processes are refused"
    log=$(mktemp)
    debootstrap --variant=minbase --include=ca-certificates,git,make "$suite" "$root" "$(mirror)" >"$log" 2>&1 \
        || { tail -n 5 "$log" >&2; rm -f "$log"; cannot "debootstrap of $suite failed"; }
    rm -f "$log"
    chmod 755 "$root"  # the root of a distribution is open to all its users, a folder of mktemp is not
    for file in $carried; do
        [ ! -e "$file" ] || { mkdir -p "$root$(dirname "$file")"; cp "$file" "$root$file"; }
    done
    cp -R /usr/local/share/ca-certificates/. "$root/usr/local/share/ca-certificates/" 2>/dev/null || true
    cp /etc/apt/apt.conf.d/*proxy* "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
    [ ! -e "$HOME/.config/pip/pip.conf" ] || { mkdir -p "$root/root/.config/pip"; cp "$HOME/.config/pip/pip.conf" "$root/root/.config/pip/"; }
}

# --- a command in it ---------------------------------------------------------------------
run() {
    export ROOT=$1 FOLDER=$2
    shift 2
    PLACES=$(places_of_pip); export PLACES
    # /sys tells Open MPI of cores; /dev is the machine's own, but for the shared memory.
    exec unshare --mount --pid --fork --kill-child sh -eu -c '
        mount -t proc proc "$ROOT/proc"
        mount -t sysfs sysfs "$ROOT/sys"
        mount --rbind /dev "$ROOT/dev"
        mount -t tmpfs -o mode=1777 shm "$ROOT/dev/shm"
        for place in $PLACES; do
            if [ -d "$place" ]; then mkdir -p "$ROOT$place"; else mkdir -p "$ROOT$(dirname "$place")"; touch "$ROOT$place"; fi
            mount --bind "$place" "$ROOT$place"
        done
        kept=$(env | grep -E "^(PIP_|[A-Za-z]+_proxy|[A-Z]+_PROXY|SSL_CERT_|REQUESTS_CA_|OPENBLAS_|CI=|SPARSEHESS_)" || true)
        IFS="
"
        exec chroot "$ROOT" /usr/bin/env -i $kept HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
            sh -c '\''cd "$1" && shift && exec "$@"'\'' sh "$FOLDER" "$@"' sh "$@"
}

case ${1:-} in
    make | run) "$@" ;;
    *) echo "sparsehess: make SUITE ROOT or run ROOT FOLDER COMMAND, not '${1:-}'" >&2; exit 2 ;;
esac

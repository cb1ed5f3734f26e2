#!/usr/bin/env bash
# Runs one stage of what a tool does on a mount: run.sh TOOL STAGE. mod.rs does, and says what the stages are.
#
# AT is the tool's directory on the mount, BESIDE one that is not on it, ACKS a file for what was acknowledged, REPO the
# project's sources.
set -Eeuo pipefail

tool=$1
stage=$2
here=$(dirname "$(readlink -f "$0")")
: "${AT:?}" "${BESIDE:?}" "${ACKS:?}" "${REPO:?}"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL=C.UTF-8
trap 'printf "%s %s: line %s: %s\n" "$tool" "$stage" "$LINENO" "$BASH_COMMAND" >&2' ERR
# Has a stage that is ended from outside run its EXIT trap.
trap 'exit 143' TERM

# ack WORD...: notes that what came before has been acknowledged by the filesystem.
ack() {
    printf '%s\n' "$*" >>"$ACKS"
}

# acked WORD...: whether it was.
acked() {
    grep -qxF -- "$*" "$ACKS"
}

# acks WORD: the rest of the lines that begin with WORD.
acks() {
    sed -n "s/^$1 //p" "$ACKS"
}

fail() {
    printf '%s %s: %s\n' "$tool" "$stage" "$*" >&2
    exit 1
}

# same_trees ONE OTHER: fails if rsync finds any difference, in either direction.
same_trees() {
    local found
    found=$(rsync -aHAXn --checksum --delete --itemize-changes "$1/" "$2/"
        rsync -aHAXn --checksum --delete --itemize-changes "$2/" "$1/")
    [ -z "$found" ] || fail "$1 and $2 differ: $(head -n 20 <<<"$found")"
}

# plant_tree DIR: some thousand files in three directories: Perl's modules, this project's sources, one of everything odd.
plant_tree() {
    mkdir -p "$1/planted" "$1/sources"
    cp -a /usr/share/perl "$1/"
    cp -a "$REPO/docs" "$REPO/fs" "$REPO/tests" "$1/sources/"
    "$REPO/scripts/plant" "$1/planted"
    # These are a GiB long, and every comparison here reads them twice.
    truncate -s 20M "$1/planted/sparse/hole" "$1/planted/sparse/tail"
    rm "$1/planted/sparse/islands"
    local at
    for at in 0 3 17 39; do
        head -c 5000 /dev/urandom | dd of="$1/planted/sparse/islands" bs=1M seek=$at conv=notrunc status=none
    done
    # A socket is no file that anybody archives.
    rm "$1/planted/special/socket"
}

# readable: every byte of every file can be read, acknowledged or not.
readable() {
    find "$AT" -type f -exec cat {} + >/dev/null
}

# shellcheck source=/dev/null
. "$here/$tool.sh"
"$stage"

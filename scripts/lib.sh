# Shared by the scripts here; sourced, not run.
# shellcheck shell=bash

set -Eeuo pipefail

# What the sourcing script is called in its messages.
script=scripts/$(basename "$0")

# Where mkfs.btrfs and modprobe are, which not every shell of root's looks in.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# say TEXT: a line for the person who waits.
say() {
    printf '%s\n' "$*"
}

# fail SENTENCE [CODE]: says what is wrong and what to do, and ends the script.
fail() {
    printf '%s: %s\n' "$script" "$1" >&2
    exit "${2:-1}"
}

# Whatever fails without a sentence of its own is at least named.
trap 'printf "%s: line %s failed: %s\n" "$script" "$LINENO" "$BASH_COMMAND" >&2' ERR

# need_root: mounts, device nodes and trusted.* attributes are root's.
need_root() {
    [ "$(id -u)" = 0 ] ||
        fail "this mounts filesystems and makes device nodes, so it needs root: run  sudo env \"PATH=\$PATH\" \"HOME=\$HOME\" $script"
}

# need_packages COMMAND:PACKAGE...: installs the packages whose command is missing.
need_packages() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        fail "these are missing and there is no apt-get to install them with: ${missing[*]} (Debian's names): install them by hand"
    [ "$(id -u)" = 0 ] || fail "these packages are missing: install them with  sudo apt-get install ${missing[*]}"
    say "installing with apt-get: ${missing[*]}"
    local log
    log=$(mktemp)
    if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "${missing[@]}"; } \
        >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        rm -f "$log"
        fail "apt-get could not install ${missing[*]}: what it said is above"
    fi
    rm -f "$log"
}

# need_rust: a toolchain that is new enough for this repository (rust-version in Cargo.toml).
need_rust() {
    local wanted found
    # rustup puts it here, and non-login shells often do not look there.
    command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    { command -v cargo && command -v rustc; } >/dev/null ||
        fail "there is no Rust toolchain: install one from https://rustup.rs, then run this again"
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(rustc --version | cut -d ' ' -f 2)
    [ "$(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1)" = "$wanted" ] ||
        fail "rustc is $found, and $wanted or newer is needed: run  rustup update  (or install rustup from https://rustup.rs)"
    # zstd's and BLAKE3's C and assembly are compiled too.
    need_packages cc:build-essential
}

# need_fuse: /dev/fuse, with the module loaded if that is all that is missing.
need_fuse() {
    [ -c /dev/fuse ] || modprobe fuse 2>/dev/null || true
    [ -c /dev/fuse ] ||
        fail "/dev/fuse is not there: load the kernel's module with  modprobe fuse  (in a container, pass it in:  --device /dev/fuse --cap-add SYS_ADMIN)"
    { : <>/dev/fuse; } 2>/dev/null ||
        fail "/dev/fuse cannot be opened: run as root, in a container with  --device /dev/fuse --cap-add SYS_ADMIN"
}

# built_in PROFILE: where cargo puts what it builds.
built_in() {
    printf '%s\n' "${CARGO_TARGET_DIR:-target}/$1"
}

# ---- A directory for what is made on the way, and an end that leaves nothing behind ----

workdir=
mounted=()
started=()
last=()
kept=no

# at_end COMMAND: has clean_up call it first, whatever it gives. Nothing else traps a script's end: its exit code would be lost.
at_end() {
    last+=("$1")
}

# make_workdir GIB: a temporary directory with that much room, removed at the end.
make_workdir() {
    local base=${TMPDIR:-/var/tmp} free
    workdir=$(mktemp -d "$base/cairn.XXXXXX") || fail "$base cannot be written: set TMPDIR to a directory that can"
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    free=$(df --output=avail -B 1G "$workdir" | tail -n 1)
    [ "$free" -ge "$1" ] ||
        fail "$base has $free GiB free and $1 are needed: make room, or set TMPDIR to a directory that has it"
}

# clean_up: does what was asked for by at_end, unmounts what this script mounted, ends what it started, removes its directory.
clean_up() {
    local code=$? i left=no
    trap - EXIT ERR INT TERM
    set +e
    cd / || true
    for ((i = ${#last[@]} - 1; i >= 0; i--)); do
        "${last[i]}"
    done
    for ((i = ${#mounted[@]} - 1; i >= 0; i--)); do
        # A cairn volume's daemon has ended when this returns; for anything else it is an error.
        mountpoint -q "${mounted[i]}" && timeout 60 "${cairn:-false}" umount "${mounted[i]}" 2>/dev/null
        if mountpoint -q "${mounted[i]}"; then
            umount "${mounted[i]}" 2>/dev/null || umount -l "${mounted[i]}" || left=yes
        fi
    done
    for ((i = 0; i < ${#started[@]}; i++)); do
        kill "${started[i]}" 2>/dev/null && wait "${started[i]}" 2>/dev/null
    done
    if [ -z "$workdir" ]; then
        :
    elif [ "$kept" = yes ]; then
        say "kept: $workdir"
    elif [ "$left" = yes ]; then
        printf '%s: something is still mounted below %s, which is left as it is\n' "$script" "$workdir" >&2
    else
        # A daemon that folds on after its mount is gone may still make files for a moment.
        rm -rf --one-file-system "$workdir" 2>/dev/null || { sleep 2; rm -rf --one-file-system "$workdir"; }
    fi
    exit "$code"
}

# shellcheck shell=bash
# cargo: builds mkfs-cairn from sources on the mount into a target directory there, runs it there, builds it again. The
# whole project with CAIRN_TOOLS=full. Nothing is optimised: the filesystem is under test, not the compiler. That is a profile of its own,
# since dev's has crates that are optimised by name.

# What `cargo test` set is not for this build.
unset CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR CARGO_MANIFEST_DIR CARGO_ENCODED_RUSTFLAGS

what=(-p mkfs-cairn)
if [ "${CAIRN_TOOLS:-}" = full ]; then
    what=(--workspace --all-targets)
fi

plain=(--profile plain)
for setting in 'inherits="release"' opt-level=0 debug=false 'lto="off"' codegen-units=16 incremental=true; do
    plain+=(--config "profile.plain.$setting")
done

build() {
    (cd "$AT/src" && "${CARGO:-cargo}" build --offline --locked --target-dir "$AT/target" --color never \
        "${plain[@]}" "${what[@]}" 2>&1)
}

# A volume in a volume, made by a program that lies in one.
run_it() {
    rm -rf "$AT/volume"
    "$AT/target/plain/mkfs-cairn" -q "$AT/volume"
    [ -s "$AT/volume/superblock" ]
}

prepare() { :; }

work() {
    mkdir "$AT/src"
    # All of it: tests read documents, too.
    tar -C "$REPO" --exclude=./target --exclude=./.git -cf - . | tar -C "$AT/src" -xf -
    ack copied
    build
    ack built
    run_it
    touch "$AT/src/fs/format/src/lib.rs"
    echo '// One more line.' >>"$AT/src/mkfs/src/main.rs"
    build >"$BESIDE/again"
    grep -q 'Compiling mkfs-cairn' "$BESIDE/again" || fail 'a changed source was not built again'
    grep -q 'Compiling cairn-format' "$BESIDE/again" || fail 'a touched source was not built again'
    ! grep -q 'Compiling blake3' "$BESIDE/again" || fail 'what was not changed was built again'
    ack rebuilt
}

verify() {
    acked copied || return 0
    if acked rebuilt; then
        build >"$BESIDE/again"
        ! grep Compiling "$BESIDE/again" || fail 'something was built again and nothing was changed'
    elif ! acked built; then
        diff -r "$REPO/fs" "$AT/src/fs"
        # Over what the interrupted build left.
        build
    fi
    run_it
}

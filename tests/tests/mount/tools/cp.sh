# shellcheck shell=bash
# cp: with everything kept, with holes made, by reflink where there are any, from mount to mount.

tree=$BESIDE/tree

prepare() {
    plant_tree "$tree"
    head -c 3M /dev/urandom >"$BESIDE/zeros"
    head -c 20 /dev/urandom >"$BESIDE/input"
    head -c 30M /dev/zero >>"$BESIDE/zeros"
    head -c 3M /dev/urandom >>"$BESIDE/zeros"
}

work() {
    local part
    # Part by part, so that a kill finds some that are done.
    mkdir "$AT/parts"
    for part in perl sources planted; do
        cp -a "$tree/$part" "$AT/parts/"
        ack "part $part"
    done
    cp -a "$tree" "$AT/all"
    ack all
    cp -a --reflink=auto "$AT/all" "$AT/reflinked"
    ack reflinked
    cp --sparse=always "$BESIDE/zeros" "$AT/zeros"
    cp --sparse=never "$AT/zeros" "$AT/full"
    cp -a --sparse=auto "$AT/zeros" "$AT/sparse"
    cp --sparse=always "$AT/full" "$AT/again"
    ack zeros
    # What is there is kept, or kept under another name.
    cp -n "$BESIDE/input" "$AT/zeros" || true
    cp --backup=numbered "$tree/planted/lengths/4097" "$AT/zeros" && mv "$AT/zeros.~1~" "$AT/zeros"
    ack kept
}

verify() {
    local part
    for part in $(acks part); do same_trees "$tree/$part" "$AT/parts/$part"; done
    if acked all; then same_trees "$tree" "$AT/all"; fi
    if acked reflinked; then same_trees "$tree" "$AT/reflinked"; fi
    acked zeros || return 0
    local file
    for file in full sparse again; do cmp "$BESIDE/zeros" "$AT/$file"; done
    if acked kept; then cmp "$BESIDE/zeros" "$AT/zeros"; fi
    # Its 6 MiB may be counted twice for a while: in the journal and in chunks.
    [ "$(stat -c %b "$AT/sparse")" -lt 40000 ] || fail 'a hole was filled'
}

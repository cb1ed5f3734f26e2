# shellcheck shell=bash
# tar: a tree unpacked on the mount, compared there, packed from it.

tree=$BESIDE/tree

# What tar prints about access control lists and attributes is not asked for: rsync compares those.
pack() {
    tar --xattrs --xattrs-include='*' --acls -S "$@"
}

prepare() {
    plant_tree "$tree"
    # tar makes two of a fifo with two names.
    rm "$tree/planted/links/b/fifo-too"
    pack -cf "$BESIDE/tree.tar" -C "$tree" .
    tar -tf "$BESIDE/tree.tar" >"$BESIDE/names"
}

work() {
    mkdir "$AT/tree"
    ack begun
    # Prints each name before it is unpacked, and complaints about what failed: only names above the first of those count.
    # -P, lest symlinks be empty files until the end.
    pack -xvpP --same-owner -f "$BESIDE/tree.tar" -C "$AT/tree" >>"$ACKS" 2>&1
    ack unpacked
    pack --compare -f "$BESIDE/tree.tar" -C "$AT/tree"
    # From the mount: holes are found, and everything is there.
    pack -cf "$BESIDE/back.tar" -C "$AT/tree" .
    [ "$(stat -c %s "$BESIDE/back.tar")" -le $(($(stat -c %s "$BESIDE/tree.tar") * 11 / 10)) ] || fail 'holes were packed'
    pack --compare -f "$BESIDE/back.tar" -C "$tree"
    # From mount to mount.
    mkdir "$AT/second"
    pack -cf - -C "$AT/tree" . | pack -xpP --same-owner -f - -C "$AT/second"
    ack second
}

verify() {
    acked begun || return 0
    if acked unpacked; then
        same_trees "$tree" "$AT/tree"
    else
        # All but the last of the names, which may have been under way. A directory's times come at the end.
        sed -n '1d; /^tar: /q; p' "$ACKS" | sed '$d' >"$BESIDE/done"
        cmp -n "$(stat -c %s "$BESIDE/done")" "$BESIDE/done" "$BESIDE/names" || fail 'the names are in another order'
        sed '/\/$/d' "$BESIDE/done" >"$BESIDE/files"
        # Without a name it would compare all.
        [ ! -s "$BESIDE/files" ] ||
            tar --compare --no-recursion -f "$BESIDE/tree.tar" -C "$AT/tree" -T "$BESIDE/files"
        echo "$(wc -l <"$BESIDE/files") files were there"
    fi
    if acked second; then
        same_trees "$tree" "$AT/second"
    fi
}

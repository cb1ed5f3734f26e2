# shellcheck shell=bash
# rsync: hard links, access control lists, attributes and holes, both ways; into files in place; a second run has nothing
# to do.

tree=$BESIDE/tree

copy() {
    rsync -aHAX --numeric-ids "$@"
}

nothing_to_do() {
    local found
    found=$(copy -S --itemize-changes --delete "$@")
    [ -z "$found" ] || fail "a second run did: $(head -n 20 <<<"$found")"
}

prepare() {
    plant_tree "$tree"
}

work() {
    local part name
    mkdir "$AT/parts"
    # Part by part, so that a kill finds some that are done.
    for part in "$tree"/sources "$tree"/perl "$tree"/planted/{acls,links,names,sparse,times,wide,xattrs}; do
        name=${part#"$tree"/}
        mkdir -p "$AT/parts/$name"
        copy -S "$part/" "$AT/parts/$name/"
        ack "part $name"
    done
    copy -S "$tree/" "$AT/whole/"
    ack whole
    nothing_to_do "$tree/" "$AT/whole/"
    nothing_to_do "$AT/whole/" "$tree/"
    ack checked
    # Differences only, into the files that are there.
    cp -a "$tree/perl" "$BESIDE/perl"
    find "$BESIDE/perl" -type f -name '*.pm' -exec sed -i '20s/^/# one line more/' {} +
    copy --no-whole-file --inplace "$BESIDE/perl/" "$AT/whole/perl/"
    ack inplace
    copy -S --inplace --no-whole-file "$tree/perl/" "$AT/whole/perl/"
    ack undone
    copy -S "$AT/whole/" "$BESIDE/back/"
    same_trees "$tree" "$BESIDE/back"
    rm -rf "$BESIDE/back" "$BESIDE/perl"
}

verify() {
    local name
    while read -r name; do
        same_trees "$tree/$name" "$AT/parts/$name"
    done < <(acks part)
    if acked whole; then
        # An update that was interrupted is done again; where it was done, this has nothing to do.
        copy -S "$tree/" "$AT/whole/"
        same_trees "$tree" "$AT/whole"
    elif [ -d "$AT/whole" ]; then
        copy -S --delete "$tree/" "$AT/whole/"
        same_trees "$tree" "$AT/whole"
    fi
}

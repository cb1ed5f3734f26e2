# shellcheck shell=bash
# dd: O_DIRECT both ways with ends that no page has, over what is there, appended. Each file is also made beside the
# mount by the same commands, without O_DIRECT.

# Ends within a sector.
length=3146961

both() {
    local flags=$1 to=$2
    shift 2
    dd "$@" of="$BESIDE/$to" status=none
    # shellcheck disable=SC2086 # one word each
    dd "$@" of="$AT/$to" status=none $flags
}

prepare() {
    head -c $length /dev/urandom >"$BESIDE/input"
}

work() {
    local i
    for i in {1..12}; do
        both 'oflag=direct conv=fsync' "direct$i" if="$BESIDE/input" bs=$((i * 4096))
        ack "file direct$i"
        # In the middle of what is there, and across its end.
        both 'oflag=direct conv=notrunc,fsync' "direct$i" if="$BESIDE/input" bs=4096 count=77 seek=$((i * 9)) conv=notrunc
        both 'oflag=direct conv=notrunc,fdatasync' "direct$i" if="$BESIDE/input" bs=8192 count=99 seek=$((380 + i)) conv=notrunc
        ack "changed direct$i"
        # Steps that no page has.
        both 'conv=notrunc' "odd$i" if="$BESIDE/input" bs=$((1000 + i)) count=500 seek=$((i * 3)) conv=notrunc
        ack "file odd$i"
        dd if="$BESIDE/input" of="$AT/appended" bs=100003 count="$i" oflag=append conv=notrunc status=none
        dd if="$BESIDE/input" of="$BESIDE/appended" bs=100003 count="$i" oflag=append conv=notrunc status=none
        ack "appended $(stat -c %s "$BESIDE/appended")"
    done
}

verify() {
    local name last size
    # What came last of a file may have been changed on without an answer; all before it has not.
    last=$(acks file | sed -n 's/^direct//p' | tail -n 1)
    while read -r name; do
        if [ "$name" != "direct$last" ] || acked "changed $name"; then
            cmp "$BESIDE/$name" "$AT/$name"
            dd if="$AT/$name" iflag=direct bs=64K status=none | cmp - "$BESIDE/$name"
            dd if="$AT/$name" iflag=direct,skip_bytes,count_bytes skip=512 count=70001 bs=16K status=none |
                cmp - <(dd if="$BESIDE/$name" iflag=skip_bytes,count_bytes skip=512 count=70001 status=none)
        fi
    done < <(acks file)
    size=$(acks appended | tail -n 1)
    if [ -n "$size" ]; then cmp -n "$size" "$BESIDE/appended" "$AT/appended"; fi
}

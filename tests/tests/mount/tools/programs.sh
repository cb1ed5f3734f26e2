# shellcheck shell=bash disable=SC2154 # run.sh says where it is
# What programs do that no tool here does: mappings, locks, appending from two processes, offsets beyond 4 GiB.

far=$((5 << 30))

prepare() {
    head -c 20000003 /dev/urandom >"$BESIDE/input"
}

work() {
    python3 "$here/mappings.py" "$AT"
    python3 "$here/locks.py" "$AT"
    # flock(1), which waits for what another process holds.
    local i pids=()
    echo 0 >"$AT/count"
    for i in {1..4}; do
        # shellcheck disable=SC2016 # for the inner shell
        (for _ in {1..25}; do flock "$AT/count.lock" sh -c 'echo $(($(cat "$1") + 1)) >"$1"' sh "$AT/count"; done) &
        pids+=($!)
    done
    for i in "${pids[@]}"; do wait "$i"; done
    [ "$(cat "$AT/count")" = 100 ] || fail "a lock did not keep others out: $(cat "$AT/count") of 100"
    # Two shells that append to one file.
    (for i in {1..2000}; do echo "first $i"; done >>"$AT/log") &
    pids=($!)
    (for i in {1..2000}; do echo "second $i"; done >>"$AT/log") &
    pids+=($!)
    for i in "${pids[@]}"; do wait "$i"; done
    dd if="$BESIDE/input" of="$AT/far" bs=1M oflag=seek_bytes seek=$((far + 12345)) conv=notrunc status=none
    truncate -s 6G "$AT/far"
    ack all
}

verify() {
    acked all || return 0
    [ "$(sort -u "$AT/log" | wc -l)" = 4000 ] || fail 'an appended line is lost'
    [ "$(wc -l <"$AT/log")" = 4000 ] || fail 'there are more lines than were appended'
    [ "$(grep '^first' "$AT/log" | cut -d ' ' -f 2)" = "$(seq 1 2000)" ] || fail 'the lines are not in order'
    dd if="$AT/far" bs=1M iflag=skip_bytes,count_bytes skip=$((far + 12345)) count=20000003 status=none |
        cmp - "$BESIDE/input"
    cmp -n 3000000 "$AT/far" /dev/zero
    [ "$(stat -c %s "$AT/far")" = $((6 << 30)) ] || fail 'the length is wrong'
    [ "$(stat -c %b "$AT/far")" -lt 60000 ] || fail 'a hole takes room'
    # Sparse files stay so on their way to another filesystem.
    cp --sparse=auto "$AT/far" "$BESIDE/far"
    [ "$(stat -c %b "$BESIDE/far")" -lt 60000 ] || fail 'a hole was copied'
    rm "$BESIDE/far"
}

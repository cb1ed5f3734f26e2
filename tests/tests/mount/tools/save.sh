# shellcheck shell=bash disable=SC2154 # run.sh says where it is
# How editors save: a new file beside the old, fsync, rename over it; by sed, by install, by a program.

prepare() { :; }

work() {
    python3 "$here/save.py" write "$AT" 400 >>"$ACKS"
    ack saved
    seq 1 1000 >"$AT/numbers"
    local i
    for i in {1..30}; do
        sed -i "s/^$i\$/number $i/" "$AT/numbers"
        ack "number $i"
    done
}

verify() {
    local last
    last=$(acks version | tail -n 1)
    [ -z "$last" ] || python3 "$here/save.py" check "$AT" "$last"
    last=$(acks number | tail -n 1)
    if [ -n "$last" ]; then
        [ "$(grep -c '^number' "$AT/numbers")" -ge "$last" ] || fail "fewer than $last changes are there"
        [ "$(wc -l <"$AT/numbers")" = 1000 ] || fail 'lines are missing'
    fi
}

# shellcheck shell=bash
# fio: random writes with checksums in them through each way to write, verified at once and from then on.

jobs=('psync 0' 'libaio 1' 'libaio 0' 'mmap 0' 'psync 1' 'sync 0')

# job NAME ENGINE DIRECT OPTION...: the same options when it is verified as when it is written.
job() {
    local name=$1 engine=$2 direct=$3
    shift 3
    (cd "$BESIDE" && fio --name="$name" --filename="$AT/$name" --ioengine="$engine" --direct="$direct" --rw=randwrite \
        --bs=4k --size=12M --iodepth=16 --randseed=77 --verify=crc32c --verify_fatal=1 --verify_backlog=0 \
        --fallocate=none --output-format=terse --output="$BESIDE/$name.out" "$@") ||
        fail "fio, $name: $(cat "$BESIDE/$name.out")"
}

prepare() { :; }

work() {
    local i engine direct
    for i in "${!jobs[@]}"; do
        read -r engine direct <<<"${jobs[i]}"
        # An fsync now and then is one way; none but at the end is the other.
        job "$engine$direct.$i" "$engine" "$direct" --end_fsync=1 --fsync=$((i % 2 * 256)) --do_verify=1
        ack "written $engine$direct.$i $engine $direct"
    done
}

verify() {
    local name engine direct
    while read -r name engine direct; do
        job "$name" "$engine" "$direct" --verify_only
    done < <(acks written)
}

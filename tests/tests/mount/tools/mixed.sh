# shellcheck shell=bash disable=SC2164 # run.sh ends at the first error
# fio, git and sqlite3 at once, without an end: for kills of the daemon under all of them (kills.rs).

export GIT_CONFIG_SYSTEM=/dev/null GIT_CONFIG_GLOBAL=$BESIDE/gitconfig GIT_TERMINAL_PROMPT=0
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE

prepare() {
    printf '[%s]\n\t%s\n' safe 'directory = *' user 'name = A Tester' user 'email = tester@localhost' gc 'auto = 0' \
        maintenance 'auto = false' init 'defaultBranch = main' >"$BESIDE/gitconfig"
}

sql() {
    stdbuf -oL sqlite3 -bail -cmd '.timeout 60000' "$AT/database"
}

# job NAME OPTION...: the same options when it is verified as when it is written.
job() {
    local name=$1
    shift
    (cd "$BESIDE" && fio --name="$name" --filename="$AT/$name" --ioengine=psync --rw=randwrite --bs=4k --size=1M \
        --randseed=77 --verify=crc32c --verify_fatal=1 --verify_backlog=0 --fallocate=none --thread \
        --output-format=terse --output="$BESIDE/$name.out" "$@") || fail "fio, $name: $(cat "$BESIDE/$name.out")"
}

jobs_of_fio() {
    local i
    for ((i = 0; ; i++)); do
        job "job$i" --do_verify=1
        ack "written job$i"
    done
}

commits() {
    local i made
    git init -q "$AT/repository"
    cd "$AT/repository"
    for ((i = 0; ; i++)); do
        echo "line $i" >>lines
        head -c $((i * 777 % 20000)) /dev/urandom >"noise$((i % 5))"
        git add -A
        git commit -qm "$i"
        # Without a mount it says HEAD, and fails.
        made=$(git rev-parse --verify HEAD)
        ack commit "$made"
    done
}

transactions() {
    local i
    {
        echo 'PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; CREATE TABLE one(n); CREATE TABLE other(n);'
        for i in {1..5000}; do
            echo "BEGIN; INSERT INTO one VALUES($i); INSERT INTO other VALUES($i); COMMIT; SELECT 'committed $i';"
        done
        echo 'SELECT 1 FROM there_is_no_end;'
    } | sql >>"$ACKS"
}

work() {
    jobs_of_fio &
    commits &
    transactions &
    # Whichever fails first has the rest ended, and says so.
    wait -n || true
    kill "$(jobs -p)" 2>/dev/null || true
    wait
    return 1
}

verify() {
    local name last found
    while read -r name; do
        job "$name" --verify_only
    done < <(acks written | tail -n 2)
    last=$(acks commit | tail -n 1)
    if [ -n "$last" ]; then
        found=$(git -C "$AT/repository" fsck --full --strict --no-dangling 2>&1) || fail "git fsck: $found"
        git -C "$AT/repository" rev-list HEAD >"$BESIDE/found"
        while read -r name; do
            grep -qx "$name" "$BESIDE/found" || fail "commit $name is not there"
        done < <(acks commit)
        git -C "$AT/repository" diff --quiet "$last" "$last" -- || fail "commit $last cannot be read"
    fi
    last=$(acks committed | tail -n 1)
    if [ -n "$last" ]; then
        found=$(sql <<<'PRAGMA integrity_check;')
        [ "$found" = ok ] || fail "integrity_check: $found"
        found=$(sql <<<"SELECT (SELECT count(*) FROM one WHERE n <= $last), (SELECT count(*) FROM other WHERE n <= $last),
            (SELECT count(*) FROM one) = (SELECT count(*) FROM other);")
        [ "$found" = "$last|$last|1" ] || fail "of $last transactions there are $found"
    fi
}

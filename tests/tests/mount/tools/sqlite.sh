# shellcheck shell=bash
# sqlite3: two writers of 50 transactions of 1,000 rows each in WAL mode, two readers meanwhile; a checkpoint, VACUUM.

database=$AT/database

sql() {
    # A line as soon as its statement is done: what is printed after COMMIT was committed.
    stdbuf -oL sqlite3 -bail -cmd '.timeout 60000' "$database"
}

# writer NAME SYNCHRONOUS: a kill of the daemon is no power loss, and synchronous=OFF loses nothing in it either.
writer() {
    local i
    {
        echo "PRAGMA synchronous=$2;"
        for i in {1..50}; do
            echo "BEGIN IMMEDIATE;"
            echo "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
            echo "INSERT INTO rows(writer, batch, number, body) SELECT '$1', $i, i,"
            echo "  printf('%s-%d-%d-%.*c', '$1', $i, i, i % 300, 'x') FROM n;"
            echo "COMMIT;"
            echo "SELECT 'committed $1 $i';"
        done
    } | sql >>"$ACKS"
}

# Sees whole transactions, however many, and never fewer than before.
reader() {
    local count last=0
    while [ ! -e "$BESIDE/written" ]; do
        count=$(sql <<<'SELECT count(*) FROM rows;')
        [ $((count % 1000)) = 0 ] || fail "a reader sees part of a transaction: $count rows"
        [ "$count" -ge "$last" ] || fail "a reader sees $count rows after $last"
        last=$count
    done
}

prepare() { :; }

work() {
    sql >/dev/null <<'SQL'
PRAGMA journal_mode=WAL;
CREATE TABLE rows(id INTEGER PRIMARY KEY, writer TEXT, batch INTEGER, number INTEGER, body TEXT);
CREATE INDEX by_batch ON rows(writer, batch, number);
SQL
    ack made
    local writers readers pid
    writer one FULL &
    writers=$!
    writer two OFF &
    writers+=" $!"
    reader &
    readers=$!
    reader &
    readers+=" $!"
    # Everybody ends before this does, whatever happens.
    local failed=no
    for pid in $writers; do wait "$pid" || failed=yes; done
    touch "$BESIDE/written"
    for pid in $readers; do wait "$pid" || failed=yes; done
    rm "$BESIDE/written"
    [ "$failed" = no ] || fail 'a writer or a reader failed'
    sql >/dev/null <<<'PRAGMA wal_checkpoint(TRUNCATE);'
    [ ! -s "$database-wal" ] || fail 'the checkpoint left the log'
    ack checkpointed
    sql <<<"DELETE FROM rows WHERE writer = 'one' AND number % 2 = 0; VACUUM;"
    ack vacuumed
}

verify() {
    acked made || return 0
    local found who batch whole
    found=$(sql <<<'PRAGMA integrity_check;')
    [ "$found" = ok ] || fail "integrity_check: $found"
    found=$(sql <<<"SELECT count(*) FROM rows WHERE body <> printf('%s-%d-%d-%.*c', writer, batch, number, number % 300, 'x');")
    [ "$found" = 0 ] || fail "$found rows are not what was written"
    sql <<<'SELECT writer, batch, count(*) FROM rows GROUP BY writer, batch;' >"$BESIDE/found"
    while read -r who batch; do
        whole="^$who|$batch|1000$"
        # The deletion may have been done without an answer.
        if acked checkpointed && [ "$who" = one ]; then whole="^$who|$batch|\(1000\|500\)$"; fi
        if acked vacuumed && [ "$who" = one ]; then whole="^$who|$batch|500$"; fi
        grep -q "$whole" "$BESIDE/found" || fail "the committed transaction $batch of $who is not there"
    done < <(acks committed)
    found=$(grep -cv '|1000$\||500$' "$BESIDE/found" || true)
    [ "$found" = 0 ] || fail "$found transactions are there in part"
    sql >/dev/null <<<'PRAGMA wal_checkpoint(TRUNCATE);'
}

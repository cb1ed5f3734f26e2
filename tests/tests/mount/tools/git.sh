# shellcheck shell=bash disable=SC2164 # run.sh ends at the first error
# git: a clone of this repository, commits on branches, a merge, the hardest gc there is, a second clone by hard links.

# The real user's configuration stays out of it. upload-pack does not see GIT_CONFIG_COUNT, so this is a file; the
# repository may belong to somebody else.
export GIT_CONFIG_SYSTEM=/dev/null GIT_CONFIG_GLOBAL=$BESIDE/gitconfig GIT_TERMINAL_PROMPT=0
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE

origin() {
    if [ -e "$BESIDE/origin" ]; then
        echo "file://$BESIDE/origin"
    else
        echo "file://$REPO"
    fi
}

prepare() {
    printf '[%s]\n\t%s\n' safe 'directory = *' user 'name = A Tester' user 'email = tester@localhost' gc 'auto = 0' \
        maintenance 'auto = false' init 'defaultBranch = main' advice 'detachedHead = false' >"$BESIDE/gitconfig"
    # Sources from an archive have no history: they get one.
    if ! git -C "$REPO" rev-parse -q --verify HEAD >/dev/null 2>&1; then
        mkdir "$BESIDE/origin"
        tar -C "$REPO" --exclude=./target -cf - . | tar -C "$BESIDE/origin" -xf -
        git init -q "$BESIDE/origin"
        git -C "$BESIDE/origin" add -A
        git -C "$BESIDE/origin" commit -qm sources
    fi
}

ack_head() {
    local made
    # Without a mount it says HEAD, and fails.
    made=$(git rev-parse --verify HEAD)
    ack commit "$made"
}

commit() {
    git add -A
    git commit -qm "$1"
    ack_head
}

clean() {
    [ -z "$(git status --porcelain)" ] || fail "not clean: $(git status --porcelain)"
}

work() {
    local i branch
    git clone -q --no-hardlinks "$(origin)" "$AT/clone"
    ack cloned
    cd "$AT/clone"
    for i in {1..12}; do
        git switch -qc "work$i"
        echo "line $i" >>README.md
        head -c 30000 /dev/urandom >"noise$i"
        mkdir "dir$i"
        cp docs/*.md "dir$i/"
        commit "work $i"
    done
    git switch -qc side work5
    echo aside >aside
    commit aside
    for branch in work1 work12 side work7; do
        git switch -q "$branch"
        clean
    done
    git merge -q -m merged side
    ack_head
    git gc -q --aggressive --prune=now
    ack gc
    clean
    git clone -q "$AT/clone" "$AT/second"
    ack second
}

verify() {
    acked cloned || return 0
    cd "$AT/clone"
    # What git says to do when one of its processes was killed.
    find .git -name '*.lock' -delete
    git fsck --full --strict --no-dangling
    local hash
    for hash in $(acks commit); do
        [ -n "$(git branch --contains "$hash")" ] || fail "the commit $hash is on no branch"
        git archive "$hash" | tar -t >/dev/null
    done
    if acked gc; then
        [ "$(find .git/objects/pack -name '*.pack' | wc -l)" = 1 ] || fail 'gc left more than one pack'
        clean
        # With every file hashed again, not told by what stat says.
        rm .git/index
        git reset -q
        clean
    fi
    if acked second; then
        git -C "$AT/second" fsck --full --strict --no-dangling
    fi
}

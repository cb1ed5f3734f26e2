# shellcheck shell=bash
# npm: packages made here, one depending on the other, with programs; installed without a network, from a cache on the
# mount, then run by node.

export npm_config_cache=$AT/cache npm_config_offline=true npm_config_audit=false npm_config_fund=false \
    npm_config_update_notifier=false npm_config_loglevel=error npm_config_userconfig=/dev/null npm_config_progress=false

packages=40

prepare() {
    local i j dir needs dirs=()
    mkdir "$BESIDE/packs"
    for ((i = 1; i <= packages; i++)); do
        dir=$BESIDE/packages/part$i
        mkdir -p "$dir/lib"
        needs=
        [ $i = 1 ] || needs="\"part$((i - 1))\": \"^1.0.0\""
        cat >"$dir/package.json" <<JSON
{ "name": "part$i", "version": "1.2.$i", "main": "index.js", "bin": { "say$i": "say.js" }, "license": "MIT",
  "dependencies": { $needs } }
JSON
        printf '#!/usr/bin/env node\nconsole.log("part %d says " + require("./index.js").sum());\n' $i >"$dir/say.js"
        for j in {1..15}; do
            printf '// %s\nexports.value = %d;\n' "$(head -c 3000 /dev/urandom | base64 -w 0)" "$j" >"$dir/lib/$j.js"
        done
        {
            echo 'let sum = 0;'
            for j in {1..15}; do echo "sum += require('./lib/$j.js').value;"; done
            [ $i = 1 ] || echo "sum += require('part$((i - 1))').sum();"
            echo 'exports.sum = () => sum;'
        } >"$dir/index.js"
        dirs+=("$dir")
    done
    (cd "$BESIDE/packs" && npm_config_cache=$BESIDE/cache npm pack --silent "${dirs[@]}" >/dev/null)
    {
        echo '{ "name": "app", "version": "1.0.0", "license": "MIT", "dependencies": {'
        for ((i = 1; i <= packages; i++)); do
            [ $i = 1 ] || echo ,
            echo "\"part$i\": \"file:../packs/part$i-1.2.$i.tgz\""
        done
        echo '} }'
    } >"$BESIDE/package.json"
}

run_it() {
    local found
    found=$(cd "$AT/app" && node -e "console.log(require('part$packages').sum())")
    [ "$found" = $((packages * 120)) ] || fail "node says $found"
    found=$("$AT/app/node_modules/.bin/say$packages")
    [ "$found" = "part $packages says $((packages * 120))" ] || fail "say$packages says $found"
}

install() {
    (cd "$AT/app" && npm "$1" && npm ls --all >/dev/null)
}

work() {
    mkdir "$AT/app"
    cp -a "$BESIDE/packs" "$AT/packs"
    cp "$BESIDE/package.json" "$AT/app/"
    ack copied
    install install
    ack installed
    run_it
    # Once more from nothing but the lock file and the cache.
    install ci
    ack 'installed again'
    run_it
}

verify() {
    acked copied || return 0
    if acked 'installed again'; then
        (cd "$AT/app" && npm ls --all >/dev/null)
    elif acked installed; then
        install ci
    else
        # Over what the interrupted installation left.
        install install
    fi
    run_it
    # What is installed is what was packed.
    local i
    for ((i = 1; i <= packages; i++)); do
        diff -r "$BESIDE/packages/part$i" "$AT/app/node_modules/part$i"
    done
}

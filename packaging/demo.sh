#!/usr/bin/env bash
# Shows Temps at work: installs what is missing, builds, starts the platform, deploys an app twice.
#
#   packaging/demo.sh           runs until Ctrl-C
#   packaging/demo.sh --once    stops when everything was shown
#
# Needs Debian or Ubuntu, as root or as a user who may sudo; no Docker, no systemd. Rust 1.95 or newer
# is installed with rustup if it is missing and rust-lang.org can be reached.
# State: ${XDG_STATE_HOME:-~/.local/state}/temps-demo. TEMPS_BIN=PROGRAM shows that one instead of building.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1-} in
    "") once= ;;
    --once) once=1 ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' packaging/demo.sh && exit ;;
    *) sed -n '2,9s/^# \{0,1\}//p' packaging/demo.sh >&2 && exit 64 ;;
esac

step() { printf '\n[%d/6 %3d s] %s\n' "$((number += 1))" "$SECONDS" "$*"; }
show() { printf '  $ %s\n' "${*/#"$temps"/temps}" && "$@" | sed 's/^/  /'; }
fail() { printf 'demo: %s\n' "$*" >&2 && exit "${status:-69}"; }
number=0 SECONDS=0

work=$(mktemp -d /tmp/temps-demo.XXXXXX) platform=
# Whatever happens, nothing of this demo is left running.
stop() {
    trap - EXIT INT TERM HUP
    if [ -n "$platform" ] && kill -TERM "$platform" 2>/dev/null; then
        for _ in $(seq 600); do
            kill -0 "$platform" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$platform" 2>/dev/null || true
        wait "$platform" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# shellcheck source=packaging/demo.d/prepare.sh
. packaging/demo.d/prepare.sh

step "What is needed"
install_missing

step "The program"
build

# Its sockets: their paths may have at most 107 bytes, and another instance may run.
export TEMPS_RUNTIME_DIR=$work/run
state=${XDG_STATE_HOME:-$HOME/.local/state}/temps-demo
http=$(free_port 8080) https=$(free_port 8443)

step "The platform: one proxy and one deployment engine, as $(id -un)"
# A group of its own: Ctrl-C is for this script, which then stops it in good order.
set -m
"$temps" up --state "$state" --http "127.0.0.1:$http" --https "127.0.0.1:$https" >"$work/out" 2>"$work/log" &
platform=$!
set +m
for _ in $(seq 600); do
    if ready=$(grep -m1 '^ready ' "$work/out") || ! kill -0 "$platform" 2>/dev/null; then break; fi
    sleep 0.1
done
[ -n "$ready" ] || fail "temps up does not get ready; its log: $(tail -n 20 "$work/log")"
echo "  $ready"

# The sample app in a version, as an operator deploys it.
deploy() {
    tests/apps/make python healthy "$1" "$work/hello"
    echo "  \$ temps deploy hello --source hello"
    "$temps" deploy hello --source "$work/hello" --runtime process --health /health --watch 10s 2>&1 |
        sed 's/^/  /' || fail "the deployment failed"
}
# Asks once: what was deployed answers at once.
answer() {
    echo "  \$ curl $*"
    local said
    # Not every resolver knows that what ends with .localhost is here.
    said=$(curl --silent --show-error --fail --max-time 10 --noproxy '*' --resolve "hello.localhost:$http:127.0.0.1" \
        --resolve "hello.localhost:$https:127.0.0.1" "$@") || fail "it does not answer"
    echo "  $said"
    [[ $said == *"\"version\": \"$version\""* ]] || fail "not the answer of $version"
}
url=http://hello.localhost:$http/

step "The first version of an app"
version=v1
deploy "$version"
answer "$url"

step "The second version, without a moment of silence"
version=v2
deploy "$version"
answer "$url"
answer --cacert "$state/proxy/local-ca.pem" "https://hello.localhost:$https/"

step "What there is now"
show "$temps" release list hello
show "$temps" status

printf '\n%s answers (%d s)\n' "$url" "$SECONDS"
if [ -z "$once" ]; then
    echo "TEMPS_RUNTIME_DIR=$TEMPS_RUNTIME_DIR $temps --help   talks to it; Ctrl-C ends it"
    trap 'exit 0' INT
    wait "$platform"
fi

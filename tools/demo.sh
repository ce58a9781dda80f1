#!/usr/bin/env bash
# The demo, with its secrets in files or in a real OpenBao.
#
#   [STORE=files|vault] tools/demo.sh [ARGUMENT...]   arguments go to `datapulse-sidecar demo`
#
# The OpenBao keeps everything in memory, listens on loopback alone, and ends with the demo.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf 'demo: %s\n' "$*" >&2
    exit "${status:-1}"
}

case "${STORE:-files}" in
    files)
        exec cargo run --locked -- demo "$@"
        ;;
    vault) ;;
    *)
        status=2 fail "STORE=$STORE is no store of the demo's. Use STORE=files (the default) or STORE=vault."
        ;;
esac

tools/setup.sh vault
cargo build --locked

dir=$(mktemp -d)
bao=
finish() {
    if [ -n "$bao" ]; then
        kill "$bao" 2>/dev/null || true
        wait "$bao" 2>/dev/null || true
    fi
    rm -rf "$dir"
}
trap finish EXIT

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Whether KV v2 can be used: a new mount is upgraded for a moment.
is_ready() {
    python3 - "$address" "$dir/token" <<'PYTHON' 2>/dev/null
import sys, urllib.request
headers = {"X-Vault-Token": open(sys.argv[2]).read()}
request = urllib.request.Request(f"http://{sys.argv[1]}/v1/secret/config", headers=headers)
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=1)
PYTHON
}

address=127.0.0.1:$(free_port)
token=$(python3 -c 'import secrets; print(secrets.token_hex(16))')
(umask 077 && printf '%s' "$token" >"$dir/token")
# A job of its own, so that Ctrl-C does not take the store away from under the demo.
set -m
env -i PATH="$PATH" HOME="$dir" BAO_DEV_ROOT_TOKEN_ID="$token" target/tools/bin/bao server -dev \
    -dev-no-store-token -dev-listen-address="$address" </dev/null >"$dir/log" 2>&1 &
bao=$!
set +m
for _ in $(seq 100); do
    if is_ready; then
        break
    fi
    kill -0 "$bao" 2>/dev/null || break
    sleep 0.1
done
is_ready || fail "OpenBao did not start: $(tail -n 3 "$dir/log")"

# Ctrl-C is for the demo, which drains; then the store ends, too.
trap : INT
printf 'demo: the secrets are in OpenBao on http://%s, which ends with the demo\n' "$address" >&2
cargo run --locked --quiet -- demo --vault "http://$address" --vault-token "$dir/token" "$@"

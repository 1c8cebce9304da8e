#!/usr/bin/env bash
# The official MCP conformance suite against our server (tests/conformance_app.py): both requirement sets must pass
# whole, and so must the scenarios of the tasks extension, which the sets run but do not score.
set -euo pipefail
# shellcheck source=scripts/node.sh
. "$(dirname "$0")/node.sh"

out=$(mktemp -d)
cd "$root"
"$python" -m tests.conformance_app >"$out/address" 2>"$out/server.log" &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -rf "$out"' EXIT
for _ in $(seq 300); do
    [ -s "$out/address" ] && break
    kill -0 "$server" 2>/dev/null || { cat "$out/server.log" >&2; exit 1; }
    sleep 0.1
done
url=$(head -n 1 "$out/address")

suite() {
    node "$modules/@modelcontextprotocol/conformance/dist/index.js" "$@"
}

failed=0
for version in 2025-11-25 2026-07-28; do
    if suite server --url "$url" --requirements "$version" -o "$out/$version" >"$out/$version.log" 2>&1; then
        verdict=passed
    else
        verdict=FAILED failed=1
    fi
    echo "requirements $version: $verdict; $(grep '^Total:' "$out/$version.log" || echo 'no summary')"
    sed -n '/=== SUMMARY ===/,$p' "$out/$version.log" | grep '✗' || true
done
for scenario in $(suite list --requirements 2026-07-28 | grep -o 'tasks-[a-z-]*'); do
    # A scenario alone exits 1 on any failed check.
    if suite server --url "$url" --scenario "$scenario" -o "$out/tasks" >"$out/$scenario.log" 2>&1; then
        echo "$scenario: passed"
    else
        echo "$scenario: FAILED"
        tail -n 20 "$out/$scenario.log"
        failed=1
    fi
done
exit "$failed"

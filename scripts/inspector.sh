#!/usr/bin/env bash
# The MCP inspector's command line against the real server, over stdio and HTTP, in both protocol eras: `tools/list`
# with --strict, which refuses schemas that some host cannot take.
set -euo pipefail
# shellcheck source=scripts/node.sh
. "$(dirname "$0")/node.sh"

out=$(mktemp -d)
cd "$root"
export SKIFF_API_KEY=inspector SKIFF_SANDBOX=local SKIFF_MODEL=scripted
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$python" -m server serve --data-dir "$out/http" --port "$port" 2>"$out/server.log" &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$out"' EXIT
for _ in $(seq 300); do
    "$python" - "$port" <<'PY' && break
import sys, urllib.request
try:
    urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/healthz", timeout=1)
except OSError:
    sys.exit(1)
PY
    kill -0 "$server" 2>/dev/null || { cat "$out/server.log" >&2; exit 1; }
    sleep 0.1
done

look() { # name, era, target...
    local name=$1 era=$2
    shift 2
    node "$modules/@modelcontextprotocol/inspector/$entry" --cli "$@" --protocol-era "$era" \
        --method tools/list --strict --format json -q >"$out/listed.json"
    local count
    count=$("$python" -c 'import json, sys; d = json.load(open(sys.argv[1])); print(len(d.get("tools") or d["result"]["tools"]))' "$out/listed.json")
    [ "$count" -eq 11 ] || { echo "$name $era: $count tools instead of 11" >&2; exit 1; }
    echo "$name $era: $count tools, every schema portable"
}

entry=$("$python" -c 'import json, sys; b = json.load(open(sys.argv[1]))["bin"]; print(b if isinstance(b, str) else b["mcp-inspector"])' \
    "$modules/@modelcontextprotocol/inspector/package.json")
for era in modern legacy; do
    look http "$era" "http://127.0.0.1:$port/mcp" --header "Authorization: Bearer $SKIFF_API_KEY"
    look stdio "$era" "$python" -m server mcp --data-dir "$out/stdio"
done

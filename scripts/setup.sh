#!/usr/bin/env bash
# Makes .venv with everything that Skiff and its tests need; does nothing when it is up to date. No root needed.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
fail() { printf '\033[31m%s\033[0m\n' "$*" >&2; exit 1; }

stamp=.venv/.skiff-$(cat pyproject.toml scripts/setup.sh | cksum | cut -d' ' -f1)
[ -e "$stamp" ] && exit 0

case $(uname -s) in
  Linux | Darwin) ;;
  *) fail "Skiff runs on Linux and macOS. On Windows, use WSL 2." ;;
esac

python=
for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.14; do
  [ -n "$candidate" ] || continue
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python=$candidate; break; fi
done
[ -n "$python" ] || fail "Python 3.11 or newer is needed and was not found. Install it, or name it: make PYTHON=/path/to/python3 …"

say "Setting up .venv with $("$python" --version) (once; about a minute)"
if [ ! -x .venv/bin/python ]; then
  "$python" -m venv .venv >/dev/null 2>&1 || {
    rm -rf .venv
    "$python" -m pip install --quiet --user --break-system-packages virtualenv >/dev/null 2>&1 && "$python" -m virtualenv --quiet .venv
  } || fail "A virtual environment could not be made. On Debian or Ubuntu: sudo apt-get install python3-venv"
fi
# pip knows dependency groups from 25.1 on
.venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1" 2>/dev/null || true
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable . --group dev ||
  fail "The packages could not be installed. Look at the message above; behind a proxy, set PIP_INDEX_URL or HTTPS_PROXY."
rm -f .venv/.skiff-*
touch "$stamp"

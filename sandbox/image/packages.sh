# Installs an environment's packages, as root, in a container that `sandbox.docker.install` makes an image of.
# `sandbox.docker.packages` appends the calls. The folder below is a volume: it holds where this machine's package
# managers fetch from, credentials included, and is no part of the image.
set -eu
umask 022
files=/run/skiff-build
export HOME=/tmp/skiff-build DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
mkdir -p "$HOME"
cd "$HOME"
. "$files/proxy.sh"
# packages with daemons would start them here
[ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d; }

# npm of the distribution drags in hundreds of packages (240 MB, 90 s): where this machine's registry is known, the
# registry's own is unpacked instead. 10.9 is the last that runs on Node 18; the sum is the published one.
npm_version=10.9.9
npm_sum=d60fba8cb42f688b81e33c2f1cbef2ad7b977166700ec0ad057f1b6d60ea6ef2524abf673e20c35931cd8305d1dbb8887134d6eefdc0e7b8435bd458bf65b862

refuse() { echo "skiff: $*" >&2; exit 1; }

# The machine's own sources fit an image of its own release alone; any other image keeps those that it has.
apt() {
    if [ -s "$files/sources.list" ] && [ "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" = "$(cat "$files/codename")" ]; then
        set -- -o "Dir::Etc::sourcelist=$files/sources.list" -o Dir::Etc::sourceparts=/dev/null "$@"
    fi
    # Pattern-Only: a name that is not there must not be taken for a regular expression
    APT_CONFIG="$files/apt.conf" apt-get -q -o APT::Cmd::Pattern-Only=true -o Dpkg::Use-Pty=0 "$@"
}

apt_packages() {
    command -v apt-get >/dev/null || refuse "the image has no apt-get, which these packages need: $*"
    echo "skiff: apt: $*"
    for section in 1 5 7 8; do mkdir -p "/usr/share/man/man$section"; done # slim images lack them, and scripts link there
    if [ ! -e "$HOME/updated" ]; then apt update && touch "$HOME/updated"; fi
    apt install -y --no-install-recommends -- "$@"
}

npm_packages() {
    command -v node >/dev/null || refuse "the image has no node, which these npm packages need: $*"
    command -v npm >/dev/null || fetch_npm
    echo "skiff: npm: $*"
    npm_config_userconfig="$files/npmrc" npm_config_cache="$HOME/npm" npm_config_update_notifier=false \
        npm install --global --prefix /usr/local --no-audit --no-fund -- "$@"
    # every script below / finds its modules there, by import and by require; NODE_PATH is for require alone
    [ -e /node_modules ] || ln -s /usr/local/lib/node_modules /node_modules
}

fetch_npm() {
    [ -s "$files/registry" ] || { apt_packages npm; return; }
    command -v curl >/dev/null || refuse "the image has neither npm nor curl to fetch it with"
    echo "skiff: fetching npm $npm_version"
    curl -fsSL --retry 3 -K "$files/curl.conf" -o fetched "$(cat "$files/registry")/npm/-/npm-$npm_version.tgz"
    echo "$npm_sum  fetched" | sha512sum -c --status || refuse "the npm that was fetched is not the published one"
    mkdir -p /usr/local/lib/node_modules /usr/local/bin
    tar -xzf fetched --no-same-owner
    mv package /usr/local/lib/node_modules/npm
    for tool in npm npx; do ln -sf "../lib/node_modules/npm/bin/$tool-cli.js" "/usr/local/bin/$tool"; done
}

pip_packages() {
    command -v python3 >/dev/null || refuse "the image has no python3, which these packages need: $*"
    python3 -m pip --version >/dev/null 2>&1 || apt_packages python3-pip
    echo "skiff: pip: $*"
    PIP_CONFIG_FILE="$files/pip.conf" PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore \
        PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off \
        python3 -m pip install -- "$@"
}

clean_up() {
    cd /
    rm -rf "$HOME" /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/*.log
    echo "skiff: installed"
}

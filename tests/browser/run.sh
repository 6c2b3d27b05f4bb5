#!/usr/bin/env bash
# The cashier in headless Chromium against a fresh demo. Screenshots go to artifacts/cashier/.
set -euo pipefail
source "$(dirname "$0")/../../scripts/places.sh"

export FEIQIAN_NODE_FOLDER=$node_folder
export FEIQIAN_ARTIFACTS=${FEIQIAN_ARTIFACTS:-$root/artifacts/cashier}
FEIQIAN_CHROMIUM=${FEIQIAN_CHROMIUM:-$(command -v chromium || true)}
[ -n "$FEIQIAN_CHROMIUM" ] || die "browser: no chromium; run scripts/ensure.sh test"
export FEIQIAN_CHROMIUM
mkdir -p "$FEIQIAN_ARTIFACTS"
"$root/scripts/with-demo.sh" \
  "$node" --test --test-reporter=spec "$root/tests/browser/cashier.mjs"
say "browser: screenshots in $FEIQIAN_ARTIFACTS"

#!/usr/bin/env bash
# The benchmarks of docs/performance.md, on a release build. Figures go to the terminal.
#
#   scripts/bench.sh            BENCH_SECONDS=20 for each scenario
set -euo pipefail
source "$(dirname "$0")/places.sh"
cd "$root"

seconds=${BENCH_SECONDS:-20}
cargo build --release -p server --bin feiqian
feiqian=$target_folder/release/feiqian
for store in sqlite postgres; do
  "$feiqian" bench order --seconds "$seconds" --clients 64 --store "$store"
  "$feiqian" bench ledger --seconds "$seconds" --clients 512 --store "$store"
  "$feiqian" bench ledger --seconds "$seconds" --clients 64 --store "$store"
  "$feiqian" bench ledger --seconds "$seconds" --clients 1 --store "$store"
  "$feiqian" bench hot --seconds "$seconds" --clients 512 --store "$store"
  "$feiqian" bench payment --seconds "$seconds" --clients 16 --store "$store"
done
"$feiqian" bench overload --seconds "$seconds" --store sqlite

#!/usr/bin/env bash
# What `/metrics` says after a real payment, as Prometheus' own checker reads it, and a look at the
# other addresses of operators. Needs `promtool` (Debian: package prometheus).
set -euo pipefail
source "$(dirname "$0")/../../scripts/places.sh"

command -v promtool >/dev/null || die "observe: no promtool; run scripts/ensure.sh test"
say "observe: $(promtool --version 2>&1 | head -n 1)"
"$root/scripts/with-demo.sh" python3 "$root/tests/observe/check_metrics.py"

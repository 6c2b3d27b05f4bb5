#!/usr/bin/env bash
# What `deploy/` promises: alerts and dashboard (promtool), the chart (Helm's library, Kubernetes
# schemas), the units (systemd-analyze), and that the runbook has a section for each alert.
#
# No cluster, no server and no build of Feiqian is needed.
set -euo pipefail
source "$(dirname "$0")/../../scripts/places.sh"

folder=$root/deploy/prometheus
say "deploy: $("$promtool" --version 2>&1 | head -n 1)"
"$promtool" check config "$folder/prometheus.yml"

# Both at once: they take most of the time.
"$promtool" test rules "$folder/feiqian.long.test.yml" &
long=$!
status=0
"$promtool" test rules "$folder/feiqian.rules.test.yml" || status=1
wait "$long" || status=1
[ "$status" -eq 0 ] || die "deploy: an alert does not do what its test says"

cd "$root/tests/deploy"
PROMTOOL=$promtool PYTHONDONTWRITEBYTECODE=1 "$deploy_python" -m unittest --verbose \
  test_alerts test_dashboard test_chart test_units

#!/usr/bin/env bash
# Published clients, unmodified, against a fresh demo: the platform and the WeChat simulator.
#
#   tests/sdk/run.sh [python] [node]      both by default; each gets its own demo, as bills move clocks
#
# FEIQIAN_SDK_TARGETS=feiqian or =simulator runs against one of the two servers only.
set -euo pipefail
source "$(dirname "$0")/../../scripts/places.sh"

export FEIQIAN_NODE_FOLDER=$node_folder
[ $# -gt 0 ] || set -- python node
for suite in "$@"; do
  case $suite in
    python)
      say "sdk: wechatpayv3 2.0.4 ($("$python" --version))"
      PYTHONDONTWRITEBYTECODE=1 "$root/scripts/with-demo.sh" \
        "$python" "$root/tests/sdk/test_wechatpayv3.py" -v
      ;;
    node)
      say "sdk: wechatpay-axios-plugin 0.9.6 (node $("$node" --version))"
      "$root/scripts/with-demo.sh" \
        "$node" --test --test-reporter=spec "$root/tests/sdk/axios.test.mjs"
      ;;
    *) die "usage: tests/sdk/run.sh [python] [node]" ;;
  esac
done

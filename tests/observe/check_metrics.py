"""Pays the demo's sample order, then lets promtool judge /metrics. Standard library only."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time
import urllib.request

facts = json.loads((pathlib.Path(os.environ["FEIQIAN_DEMO_DIR"]) / "demo.json").read_text())
base, simulator = facts["base_url"], facts["simulators"]["wechat"]["control_url"]


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def metrics():
    return ask(base + "/metrics")


# The payer opens the cashier, which creates the channel's order, and pays.
ask(facts["cashier_url"])
orders = json.loads(ask(simulator + "/_sim/orders"))
orders = orders.get("orders", orders) if isinstance(orders, dict) else orders
ask(simulator + "/_sim/confirm", {"out_trade_no": orders[0]["out_trade_no"], "outcome": "success"})

wanted = [
    'feiqian_notifications_total{outcome="accepted"} 1',
    'feiqian_payments_succeeded_total{channel="wechat"} 1',
    'feiqian_paid_minor_total{currency="CNY"} 8800',
    "feiqian_ledger_check_ok 1",
]
for _ in range(200):
    text = metrics()
    missing = [it for it in wanted if it not in text.splitlines()]
    if not missing:
        break
    time.sleep(0.1)
else:
    sys.exit(f"observe: never seen: {missing}\n{text}")

# Lints count as failures: names, units and HELP are part of what we promise.
judged = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
if judged.returncode or judged.stderr.strip():
    sys.exit(f"observe: promtool says {judged.returncode}\n{judged.stdout}{judged.stderr}\n{text}")
families = re.findall(r"^# TYPE (\S+)", text, re.M)
build = json.loads(ask(base + "/buildz"))
assert build["role"] == "all" and build["version"], build
assert ask(base + "/healthz") == "ok\n" and ask(base + "/readyz") == "ready\n"
print(f"observe: promtool accepts {len(families)} families; {build['version']} at {build['commit']}")

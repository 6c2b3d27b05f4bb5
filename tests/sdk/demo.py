"""What the Python tests know of the running demo: where it is, its keys, and how to move it.

Everything here is the tests' own; the client under test is `wechatpayv3`, unmodified.
"""

import json
import os
import threading
import time
import urllib.error
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PATIENCE_S = float(os.environ.get("FEIQIAN_TEST_PATIENCE_S", "40"))


def eventually(what, probe, patience_s=PATIENCE_S):
    """Asks `probe` until it gives something; says what it last saw when it gives up."""
    end = time.monotonic() + patience_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"after {patience_s:.0f} s still not: {what}")
        time.sleep(0.1)


class Demo:
    """`demo.json` with its file entries read."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.facts = json.loads((self.directory / "demo.json").read_text("utf-8"))

    def material(self, entry):
        """Contents of a file entry; a text that names no file is the content itself."""
        if not entry.startswith("-----BEGIN"):
            path = self.directory / entry  # An absolute entry replaces the directory.
            if path.is_file():
                return path.read_text("utf-8").strip()
        return entry

    def targets(self):
        """The platform, and the WeChat simulator behind it: one wire format, two servers."""
        wechat = self.facts["simulators"]["wechat"]
        control = wechat["control_url"]
        # Both clocks move together, or orders of the one would be expired at the other.
        clocks = [control, self.facts["base_url"]]
        return {
            "feiqian": Target(self, "feiqian", self.facts, control, clocks),
            "simulator": Target(self, "simulator", wechat, control, clocks),
        }


class Target:
    """One server that speaks V3, with a merchant's keys for it."""

    def __init__(self, demo, name, facts, control_url, clocks):
        self.name = name
        self.base_url = facts["base_url"].rstrip("/")
        self.control_url = control_url.rstrip("/")
        self.clocks = clocks
        self.mchid = facts["mchid"]
        self.appid = facts["appid"]
        self.merchant_serial = facts["merchant_serial"]
        self.merchant_private_key = demo.material(facts["merchant_private_key"])
        self.apiv3_key = demo.material(facts["apiv3_key"])
        self.platform_public_key = demo.material(facts["platform_public_key"])
        self.platform_public_key_id = facts["platform_public_key_id"]
        self.platform_certificate = demo.material(facts["platform_certificate"])
        self.platform_serial = facts["platform_serial"]

    @property
    def is_platform(self):
        return self.name == "feiqian"

    def pay(self, marks, outcome="success"):
        """Confirms the simulator's order that carries one of `marks` (a code_url, a prepay_id or
        a description nobody else uses)."""
        order = eventually(
            f"the simulator has an order with one of {marks}", lambda: self.find_order(marks)
        )
        body = {"out_trade_no": order["out_trade_no"], "outcome": outcome}
        control(self.control_url, "confirm", body)
        return order

    def find_order(self, marks):
        answer = control(self.control_url, "orders")
        orders = answer if isinstance(answer, list) else answer["orders"]
        for order in orders:
            if any(value in marks for value in order.values() if isinstance(value, str)):
                return order
        return None

    def advance_clocks(self, seconds):
        for url in self.clocks:
            control(url, "clock", {"advance_s": seconds})


def control(url, verb, body=None):
    """One call of the control API under `/_sim/`."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{url.rstrip('/')}/_sim/{verb}", data=data, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        raise AssertionError(
            f"control {verb} {body} at {url}: {error.code} {error.read().decode(errors='replace')}"
        ) from None
    return json.loads(text) if text.strip() else {}


class MerchantServer:
    """A merchant's notification address: keeps what arrives, answers 204."""

    def __init__(self):
        received = self.received = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                received.append((self.path, dict(self.headers.items()), body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def address(self):
        """A notification address of its own for each order."""
        return f"http://127.0.0.1:{self.http.server_port}/notify/{uuid.uuid4().hex}"

    def wait_for(self, url, count=1):
        path = "/" + url.split("/", 3)[3]
        return eventually(
            f"{count} notification(s) at {url}",
            lambda: [it for it in self.received if it[0] == path][count - 1 :],
        )[0]

    def close(self):
        self.http.shutdown()
        self.http.server_close()

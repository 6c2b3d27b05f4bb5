"""A merchant as production meets it: signs V3 requests with RSA, believes no unsigned answer,
repeats what is in doubt under the same number, and keeps every notification it was sent.
"""

import base64
import collections
import http.client
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# Slow enough that two deliveries of one event at the same time are seen to overlap.
HANDLING_S = 0.02


class Unsigned(Exception):
    """A 2xx answer or a notification whose signature does not hold."""


class Keys:
    """What `feiqian merchant add --json` printed, read."""

    def __init__(self, files, mchid, appid):
        def read(name):
            with open(files[name], "rb") as it:
                return it.read()

        self.mchid, self.appid, self.serial = mchid, appid, files["serial"]
        self.private = serialization.load_pem_private_key(read("private_key"), None)
        self.apiv3_key = read("apiv3_key").strip()
        certificate = x509.load_pem_x509_certificate(read("platform_certificate"))
        self.platform = certificate.public_key()

    def authorization(self, method, path, body):
        now, nonce = int(time.time()), secrets.token_hex(16)
        message = f"{method}\n{path}\n{now}\n{nonce}\n{body}\n".encode()
        signature = self.private.sign(message, padding.PKCS1v15(), hashes.SHA256())
        return (
            f'WECHATPAY2-SHA256-RSA2048 mchid="{self.mchid}",nonce_str="{nonce}",'
            f'timestamp="{now}",serial_no="{self.serial}",'
            f'signature="{base64.b64encode(signature).decode()}"'
        )

    def verify(self, headers, body):
        try:
            message = f"{headers['Wechatpay-Timestamp']}\n{headers['Wechatpay-Nonce']}\n".encode()
            signature = base64.b64decode(headers["Wechatpay-Signature"])
            self.platform.verify(
                signature, message + body + b"\n", padding.PKCS1v15(), hashes.SHA256()
            )
        except (InvalidSignature, KeyError, TypeError, ValueError) as error:
            raise Unsigned(f"{type(error).__name__}: {error}; {dict(headers)}") from error

    def open(self, resource):
        sealed = base64.b64decode(resource["ciphertext"])
        nonce, about = resource["nonce"].encode(), resource["associated_data"].encode()
        return json.loads(AESGCM(self.apiv3_key).decrypt(nonce, sealed, about))


class Client:
    """One connection at a time; not to be shared between threads."""

    def __init__(self, keys, host, port, timeout_s=5):
        self.keys, self.place = keys, (host, port)
        self.timeout_s = timeout_s
        self.connection = None

    def call(self, method, path, body=""):
        """Status and parsed body; (None, reason) when there was no answer."""
        headers = {
            "Authorization": self.keys.authorization(method, path, body),
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": "ha-test",
        }
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(*self.place, timeout=self.timeout_s)
            self.connection.request(method, path, body.encode(), headers)
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return None, f"{type(error).__name__}: {error}"
        if answer.status == 200:
            self.keys.verify(answer.headers, text)
        try:
            return answer.status, json.loads(text or b"null")
        except ValueError:
            # HAProxy's own page.
            return answer.status, None

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Delivery:
    """One delivery of one event."""

    def __init__(self, event, order_no, sender, began):
        self.event, self.order_no, self.sender = event, order_no, sender
        self.began, self.ended = began, None


class NotificationServer:
    """Keeps every delivery; answers 204 after a moment."""

    def __init__(self, keys, host, port):
        self.url = f"http://{host}:{port}/notify"
        self.deliveries, self.faults = [], []
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                began = time.monotonic()
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                try:
                    keys.verify(self.headers, body)
                    envelope = json.loads(body)
                    order_no = keys.open(envelope["resource"])["out_trade_no"]
                except Exception as error:  # Whatever is wrong with it, the test must hear of it.
                    with outer.lock:
                        outer.faults.append(repr(error))
                    self.answer(500)
                    return
                one = Delivery(envelope["id"], order_no, self.client_address[0], began)
                with outer.lock:
                    outer.deliveries.append(one)
                time.sleep(HANDLING_S)
                one.ended = time.monotonic()
                self.answer(204)

            def answer(self, status):
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_):
                """A sender that was killed in the middle is what this test is about."""

        self.http = Server((host, port), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def by_order(self):
        """Deliveries of each order in the order of their arrival."""
        with self.lock:
            found = collections.defaultdict(list)
            for it in self.deliveries:
                found[it.order_no].append(it)
        return found

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def overlapping(deliveries):
    """Pairs of deliveries of one event, by different senders, under way at the same time."""
    done = [it for it in deliveries if it.ended is not None]
    return [
        (one, other)
        for at, one in enumerate(done)
        for other in done[at + 1 :]
        if one.event == other.event
        and one.sender != other.sender
        and other.began < one.ended
        and one.began < other.ended
    ]

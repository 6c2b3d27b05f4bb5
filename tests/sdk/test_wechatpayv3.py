"""PyPI `wechatpayv3` 2.0.4, unmodified, against Feiqian and against the WeChat simulator.

Only the base address is changed (`_core._gate_way`). Three ways to use the client: with the
platform's public key, with its certificate, and the asynchronous one. Run by `run.sh python`,
which starts the demo and sets FEIQIAN_DEMO_DIR. Bills come last: they need the day to be over.
"""

import asyncio
import datetime
import gzip
import hashlib
import json
import os
import tempfile
import time
import unittest
import uuid
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

import wechatpayv3
import wechatpayv3.async_
from demo import Demo, MerchantServer, eventually

OPENID = "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
SCENE = {"payer_client_ip": "14.23.150.211", "h5_info": {"type": "Wap"}}
TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+08:00$"
DEMO = Demo(os.environ["FEIQIAN_DEMO_DIR"])
TARGETS = DEMO.targets()


def number(prefix="T"):
    return prefix + uuid.uuid4().hex[:24]


def new_key():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return key, pem.decode()


def unrelated_certificate():
    """A valid certificate of nobody: a client that knows only this must fetch the real one."""
    key, _ = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "unrelated")])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    certificate = builder.not_valid_before(now - day).not_valid_after(now + day)
    signed = certificate.sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


class Client:
    """How each way of using the SDK is set up; `call` gives (status, parsed body)."""

    time_module = "wechatpayv3.utils.time"
    products = wechatpayv3.WeChatPayType

    def __init__(self, target, **changes):
        self.target = target
        self.settings = {
            "wechatpay_type": self.products.NATIVE,
            "mchid": target.mchid,
            "private_key": target.merchant_private_key,
            "cert_serial_no": target.merchant_serial,
            "appid": target.appid,
            "apiv3_key": target.apiv3_key,
            "notify_url": "http://127.0.0.1:9/unused",
            "timeout": (10, 30),
        }
        self.settings.update(self.trust())
        self.settings.update(changes)
        self.sdk = self.build()
        self.sdk._core._gate_way = target.base_url

    def trust(self):
        target = self.target
        return {
            "public_key": target.platform_public_key,
            "public_key_id": target.platform_public_key_id,
        }

    def build(self):
        return wechatpayv3.WeChatPay(**self.settings)

    def raw(self, verb, *args, **kwargs):
        return getattr(self.sdk, verb)(*args, **kwargs)

    def get(self, path):
        return self.parsed(self.sdk._core.request(path))

    def call(self, verb, *args, **kwargs):
        return self.parsed(self.raw(verb, *args, **kwargs))

    @staticmethod
    def parsed(answer):
        status, body = answer
        if isinstance(body, bytes):
            body = body.decode("utf-8")
        return status, json.loads(body) if body else None


class CertificateClient(Client):
    def trust(self):
        directory = tempfile.mkdtemp(prefix="wechatpay-certs-")
        with open(f"{directory}/{self.target.platform_serial}.pem", "w", encoding="utf-8") as file:
            file.write(self.target.platform_certificate)
        return {"cert_dir": directory}


class AsyncClient(Client):
    time_module = "wechatpayv3.async_.utils.time"
    products = wechatpayv3.async_.WeChatPayType

    def build(self):
        return wechatpayv3.async_.AsyncWeChatPay(**self.settings)

    def raw(self, verb, *args, **kwargs):
        async def once():
            async with self.sdk:
                return await getattr(self.sdk, verb)(*args, **kwargs)

        return asyncio.run(once())

    def get(self, path):
        async def once():
            async with self.sdk:
                return await self.sdk._core.request(path)

        return self.parsed(asyncio.run(once()))


class Conformance:
    """What every client does at every server. Subclasses name both."""

    maxDiff = None
    target_name = None
    client_type = None

    @classmethod
    def setUpClass(cls):
        cls.target = TARGETS[cls.target_name]
        cls.merchant = MerchantServer()

    @classmethod
    def tearDownClass(cls):
        cls.merchant.close()

    def setUp(self):
        self.client = self.client_type(self.target)

    # Words of the tests.

    def answered(self, answer, status=200):
        self.assertEqual(answer[0], status, f"answer: {answer}")
        return answer[1]

    def refused(self, answer, status, *codes):
        self.assertEqual(answer[0], status, f"answer: {answer}")
        self.assertIn(answer[1]["code"], codes, f"answer: {answer}")
        self.assertTrue(answer[1]["message"], "a refusal explains itself")
        return answer[1]

    def order(self, product="NATIVE", **changes):
        """The arguments of an order nobody else has."""
        facts = {
            "description": f"飞钱测试商品 {uuid.uuid4().hex[:8]}",
            "out_trade_no": number(),
            "amount": {"total": 100, "currency": "CNY"},
            "attach": "附加数据=1&好",
            "notify_url": self.merchant.address(),
            "pay_type": self.client.products[product],
        }
        if product == "JSAPI":
            facts["payer"] = {"openid": OPENID}
        if product == "H5":
            facts["scene_info"] = SCENE
        facts.update(changes)
        return facts

    def created(self, **changes):
        facts = self.order(**changes)
        return facts, self.answered(self.client.call("pay", **facts))

    def paid(self, **changes):
        facts, answer = self.created(**changes)
        self.target.pay([answer.get("code_url"), facts["description"]])
        return facts, self.until_state(facts["out_trade_no"], "SUCCESS")

    def until_state(self, out_trade_no, state):
        def reached():
            found = self.answered(self.client.call("query", out_trade_no=out_trade_no))
            return found if found["trade_state"] == state else None

        return eventually(f"{out_trade_no} is {state}", reached)

    def notified(self, url):
        """The next notification at `url`, verified and decrypted by the SDK itself."""
        _, headers, body = self.merchant.wait_for(url)
        serial = headers.get("Wechatpay-Serial", "")
        client = self.client
        if serial == self.target.platform_public_key_id and "cert_dir" in client.settings:
            client = Client(self.target)  # Notifications may still be signed the other way.
        decoded = client.sdk.callback(headers, body)
        self.assertTrue(decoded, f"the SDK refused the notification {headers} {body}")
        self.assertEqual(decoded["resource_type"], "encrypt-resource")
        self.assertTrue(decoded["id"])
        self.assertLessEqual(len(decoded["id"]), 36)
        self.assertRegex(decoded["create_time"], TIME)
        self.assertTrue(decoded["summary"])
        tampered = client.sdk.callback(headers, body.replace(b'"id"', b'"iD"'))
        self.assertFalse(tampered, "a changed notification must not verify")
        return decoded

    # Orders.

    def test_create_native(self):
        _, answer = self.created(product="NATIVE")
        self.assertTrue(answer["code_url"])
        self.assertLessEqual(len(answer["code_url"]), 512)

    def test_create_jsapi(self):
        _, answer = self.created(product="JSAPI")
        self.assertTrue(answer["prepay_id"])
        self.assertLessEqual(len(answer["prepay_id"]), 64)
        if self.target.is_platform:
            parameters = answer["pay_params"]
            self.assertEqual(parameters["package"], f"prepay_id={answer['prepay_id']}")
            self.assertTrue(parameters["paySign"])

    def test_create_app(self):
        _, answer = self.created(product="APP")
        self.assertTrue(answer["prepay_id"])
        if self.target.is_platform:
            self.assertEqual(answer["pay_params"]["prepayid"], answer["prepay_id"])
            self.assertTrue(answer["pay_params"]["sign"])

    def test_create_h5(self):
        _, answer = self.created(product="H5")
        self.assertRegex(answer["h5_url"], r"^https?://")

    def test_query_before_payment(self):
        facts, _ = self.created()
        found = self.answered(self.client.call("query", out_trade_no=facts["out_trade_no"]))
        self.assertEqual(found["trade_state"], "NOTPAY")
        self.assertEqual(found["out_trade_no"], facts["out_trade_no"])
        self.assertEqual(found["mchid"], self.target.mchid)
        self.assertEqual(found["appid"], self.target.appid)
        self.assertTrue(found["trade_state_desc"])
        self.assertNotIn("transaction_id", found)

    def test_payment_is_queried_both_ways_and_notified(self):
        facts, found = self.paid()
        self.assertEqual(found["amount"]["total"], 100)
        self.assertEqual(found["amount"]["payer_total"], 100)
        self.assertEqual(found["amount"]["currency"], "CNY")
        self.assertEqual(found["attach"], facts["attach"])
        self.assertEqual(found["trade_type"], "NATIVE")
        self.assertRegex(found["success_time"], TIME)
        self.assertTrue(found["bank_type"])
        self.assertTrue(found["payer"]["openid"])
        self.assertLessEqual(len(found["transaction_id"]), 32)

        again = self.client.call("query", transaction_id=found["transaction_id"])
        self.assertEqual(self.answered(again), found)

        event = self.notified(facts["notify_url"])
        self.assertEqual(event["event_type"], "TRANSACTION.SUCCESS")
        for name in ("out_trade_no", "transaction_id", "trade_state", "amount", "attach"):
            self.assertEqual(event["resource"][name], found[name], name)
        self.assertEqual(event["resource"]["mchid"], self.target.mchid)

    def test_payment_in_wechat_itself_is_recorded(self):
        facts, answer = self.created(product="JSAPI")
        self.target.pay([answer["prepay_id"], facts["description"]])
        found = self.until_state(facts["out_trade_no"], "SUCCESS")
        self.assertEqual(found["trade_type"], "JSAPI")
        self.assertEqual(self.notified(facts["notify_url"])["resource"]["trade_type"], "JSAPI")

    def test_close(self):
        facts, _ = self.created()
        status, body = self.client.raw("close", out_trade_no=facts["out_trade_no"])
        self.assertEqual((status, body or ""), (204, ""))
        self.until_state(facts["out_trade_no"], "CLOSED")
        status, _ = self.client.raw("close", out_trade_no=facts["out_trade_no"])
        self.assertEqual(status, 204, "closing twice is harmless")
        again = self.client.call("pay", **facts)
        self.refused(again, 400, "ORDER_CLOSED", "INVALID_REQUEST")

    def test_closing_a_paid_order_is_refused(self):
        facts, _ = self.paid()
        answer = self.client.call("close", out_trade_no=facts["out_trade_no"])
        self.refused(answer, 400, "INVALID_REQUEST", "ORDERPAID", "ORDER_PAID")

    # Refunds.

    def refund(self, facts, refund_total, total=100, **changes):
        request = {
            "out_refund_no": number("R"),
            "out_trade_no": facts["out_trade_no"],
            "amount": {"refund": refund_total, "total": total, "currency": "CNY"},
            "reason": "商品已售完",
            "notify_url": self.merchant.address(),
        }
        request.update(changes)
        return request, self.client.call("refund", **request)

    def until_refunded(self, out_refund_no):
        def reached():
            found = self.answered(self.client.call("query_refund", out_refund_no))
            return found if found["status"] == "SUCCESS" else None

        return eventually(f"refund {out_refund_no} is SUCCESS", reached)

    def test_refund_is_answered_queried_and_notified(self):
        facts, paid = self.paid()
        request, answer = self.refund(facts, 30)
        refund = self.answered(answer)
        self.assertIn(refund["status"], ("PROCESSING", "SUCCESS"))
        self.assertEqual(refund["out_refund_no"], request["out_refund_no"])
        self.assertEqual(refund["transaction_id"], paid["transaction_id"])
        self.assertEqual(refund["amount"]["refund"], 30)
        self.assertEqual(refund["amount"]["total"], 100)
        self.assertRegex(refund["create_time"], TIME)

        done = self.until_refunded(request["out_refund_no"])
        self.assertEqual(done["refund_id"], refund["refund_id"])
        self.assertRegex(done["success_time"], TIME)
        self.until_state(facts["out_trade_no"], "REFUND")

        event = self.notified(request["notify_url"])
        self.assertEqual(event["event_type"], "REFUND.SUCCESS")
        self.assertEqual(event["resource"]["refund_status"], "SUCCESS")
        self.assertEqual(event["resource"]["out_refund_no"], request["out_refund_no"])
        self.assertEqual(event["resource"]["amount"]["refund"], 30)

    def test_the_same_refund_number_refunds_once(self):
        facts, paid = self.paid()
        request, answer = self.refund(facts, 40, transaction_id=paid["transaction_id"])
        first = self.answered(answer)
        second = self.answered(self.client.call("refund", **request))
        self.assertEqual(second["refund_id"], first["refund_id"])
        changed = dict(request, amount={"refund": 41, "total": 100, "currency": "CNY"})
        self.refused(self.client.call("refund", **changed), 400, "INVALID_REQUEST")

    def test_refunds_never_exceed_what_was_paid(self):
        facts, _ = self.paid()
        _, answer = self.refund(facts, 101)
        self.refused(answer, 400, "INVALID_REQUEST", "PARAM_ERROR")
        _, answer = self.refund(facts, 60)
        self.answered(answer)
        _, answer = self.refund(facts, 60)
        self.refused(answer, 400, "INVALID_REQUEST")

    def test_refunding_what_is_not_paid_is_refused(self):
        facts, _ = self.created()
        _, answer = self.refund(facts, 10)
        self.refused(answer, 404, "RESOURCE_NOT_EXISTS")
        _, answer = self.refund({"out_trade_no": number()}, 10)
        self.refused(answer, 404, "RESOURCE_NOT_EXISTS")
        self.refused(self.client.call("query_refund", number("R")), 404, "RESOURCE_NOT_EXISTS")

    # Repeats and mistakes.

    def test_the_same_order_number_is_one_order(self):
        facts, _ = self.created()
        self.answered(self.client.call("pay", **facts))
        dearer = dict(facts, amount={"total": 101, "currency": "CNY"})
        self.refused(self.client.call("pay", **dearer), 400, "INVALID_REQUEST")
        found = self.answered(self.client.call("query", out_trade_no=facts["out_trade_no"]))
        self.assertEqual(found["trade_state"], "NOTPAY")

    def test_a_paid_order_number_is_used_up(self):
        facts, _ = self.paid()
        self.refused(self.client.call("pay", **facts), 403, "OUT_TRADE_NO_USED")

    def test_an_order_of_nobody_does_not_exist(self):
        self.refused(self.client.call("query", out_trade_no=number()), 404, "ORDER_NOT_EXIST")
        foreign = "4200000000000000000000000000"
        self.refused(self.client.call("query", transaction_id=foreign), 404, "ORDER_NOT_EXIST")
        self.refused(self.client.call("close", out_trade_no=number()), 404, "ORDER_NOT_EXIST")

    def test_bad_fields_are_named(self):
        facts = self.order(amount={"total": 0, "currency": "CNY"})
        answer = self.refused(self.client.call("pay", **facts), 400, "PARAM_ERROR")
        self.assertEqual(answer["detail"]["field"], "/amount/total")
        facts = self.order(description="长" * 128)
        answer = self.refused(self.client.call("pay", **facts), 400, "PARAM_ERROR")
        self.assertEqual(answer["detail"]["field"], "/description")
        facts = self.order(out_trade_no="short")
        self.refused(self.client.call("pay", **facts), 400, "PARAM_ERROR")

    # Authentication.

    def test_another_key_is_a_wrong_signature(self):
        stranger = self.client_type(self.target, private_key=new_key()[1])
        self.refused(stranger.call("query", out_trade_no=number()), 401, "SIGN_ERROR")
        facts = self.order()
        self.refused(stranger.call("pay", **facts), 401, "SIGN_ERROR")
        found = self.client.call("query", out_trade_no=facts["out_trade_no"])
        self.refused(found, 404, "ORDER_NOT_EXIST")

    def test_another_serial_is_refused(self):
        stranger = self.client_type(self.target, cert_serial_no="0123456789ABCDEF" * 2 + "01234567")
        self.refused(stranger.call("query", out_trade_no=number()), 401, "SIGN_ERROR")

    def test_another_merchant_is_refused(self):
        stranger = self.client_type(self.target, mchid="1999999999")
        answer = stranger.call("query", out_trade_no=number())
        self.refused(answer, 401, "SIGN_ERROR")

    def test_a_clock_off_by_more_than_five_minutes_is_refused(self):
        for offset_s, status in ((302, 401), (-302, 401), (290, 404), (-290, 404)):
            with self.subTest(offset_s=offset_s), mock.patch(self.client.time_module) as clock:
                clock.time = lambda offset_s=offset_s: time.time() + offset_s
                answer = self.client.call("query", out_trade_no=number())
                self.assertEqual(answer[0], status, f"answer: {answer}")
                if status == 401:
                    self.assertEqual(answer[1]["code"], "SIGN_ERROR")


class Bills:
    """Made last: a payment and a refund, then the clocks move, then every client fetches."""

    target_name = None

    def test_bills(self):
        target = TARGETS[self.target_name]
        maker = type("Maker", (Conformance, unittest.TestCase), {"runTest": lambda self: None})
        maker.target_name, maker.client_type = self.target_name, Client
        maker.setUpClass()
        self.addCleanup(maker.tearDownClass)
        at_shop = maker()
        at_shop.setUp()
        facts, paid = at_shop.paid()
        request, answer = at_shop.refund(facts, 30)
        at_shop.answered(answer)
        at_shop.until_refunded(request["out_refund_no"])
        day = paid["success_time"][:10]
        with self.subTest("a day that is not over has no bill"):
            at_shop.assertEqual(at_shop.client.call("trade_bill", day)[0], 400)

        target.advance_clocks(2 * 86_400)  # Bills are ready at 10:00 of the next day.
        for kind in (Client, CertificateClient, AsyncClient):
            client = kind(target)
            with self.subTest("trade bill, gzip", client=kind.__name__):
                text = self.fetched(client, client.call("trade_bill", day), packed=True)
                self.check_trade_bill(text, facts, request, paid)
            with self.subTest("trade bill, plain", client=kind.__name__):
                answer = client.get(f"/v3/bill/tradebill?bill_date={day}&bill_type=ALL")
                self.check_trade_bill(self.fetched(client, answer), facts, request, paid)
            with self.subTest("fund flow bill, gzip", client=kind.__name__):
                text = self.fetched(client, client.call("fundflow_bill", day), packed=True)
                self.check_fund_flow(text, paid)
            with self.subTest("fund flow bill, plain", client=kind.__name__):
                answer = client.get(f"/v3/bill/fundflowbill?bill_date={day}")
                self.check_fund_flow(self.fetched(client, answer), paid)
            with self.subTest("no bill long ago", client=kind.__name__):
                status, body = client.call("trade_bill", "2019-06-11")
                self.assertEqual(status, 400, f"answer: {(status, body)}")

    def fetched(self, client, answer, packed=False):
        """The text of a bill whose SHA-1, over the unpacked file, is right."""
        status, bill = answer
        self.assertEqual(status, 200, f"answer: {answer}")
        self.assertEqual(bill["hash_type"], "SHA1")
        status, content = client.raw("download_bill", bill["download_url"])
        self.assertEqual(status, 200, f"download of {bill['download_url']}: {content}")
        content = content if isinstance(content, bytes) else content.encode("utf-8")
        if packed:
            self.assertEqual(content[:2], b"\x1f\x8b", "the file itself is gzip")
            content = gzip.decompress(content)
        self.assertEqual(hashlib.sha1(content).hexdigest(), bill["hash_value"].lower())
        return content.decode("utf-8-sig")

    def check_trade_bill(self, text, facts, request, paid):
        lines = text.splitlines()
        header = lines[0].split(",")
        self.assertEqual(len(header), 27, header)
        self.assertEqual(header[0], "交易时间")
        rows = [dict(zip(header, line[1:].split(",`"))) for line in lines[1:-2]]
        own = [row for row in rows if row["商户订单号"] == facts["out_trade_no"]]
        self.assertEqual(sorted(row["交易状态"] for row in own), ["REFUND", "SUCCESS"], own)
        refund, payment = sorted(own, key=lambda row: row["交易状态"])
        self.assertEqual(payment["微信订单号"], paid["transaction_id"])
        self.assertEqual(payment["应结订单金额"], "1.00")
        self.assertEqual(payment["交易类型"], "NATIVE")
        self.assertEqual(payment["商品名称"], facts["description"])
        self.assertEqual(refund["商户退款单号"], request["out_refund_no"])
        self.assertEqual(refund["退款金额"], "0.30")
        self.assertTrue(lines[-2].startswith("总交易单数"))
        self.assertEqual(lines[-1][1:].split(",`")[0], str(len(rows)))

    def check_fund_flow(self, text, paid):
        lines = text.splitlines()
        header = lines[0].split(",")
        self.assertEqual(len(header), 11, header)
        self.assertEqual(header[0], "记账时间")
        rows = [dict(zip(header, line[1:].split(",`"))) for line in lines[1:-2]]
        own = [row for row in rows if row["微信支付业务单号"] == paid["transaction_id"]]
        self.assertTrue(own, f"no row of {paid['transaction_id']} in {lines}")
        self.assertIn("收入", {row["收支类型"] for row in own})
        self.assertTrue(lines[-2].startswith("资金流水总笔数"))
        self.assertEqual(lines[-1][1:].split(",`")[0], str(len(rows)))


class Certificates:
    """A client that knows only a certificate of nobody fetches, decrypts and trusts the real one."""

    target_name = None

    def test_certificates_are_downloaded_and_used(self):
        target = TARGETS[self.target_name]
        for kind in (CertificateClient, AsyncClient):
            with self.subTest(client=kind.__name__):
                directory = tempfile.mkdtemp(prefix="wechatpay-certs-")
                with open(f"{directory}/unrelated.pem", "w", encoding="utf-8") as file:
                    file.write(unrelated_certificate())
                client = kind(target, cert_dir=directory, public_key=None, public_key_id=None)
                facts = {
                    "description": "证书模式",
                    "out_trade_no": number(),
                    "amount": {"total": 1},
                    "notify_url": "http://127.0.0.1:9/unused",
                }
                answer = client.call("pay", **facts)
                self.assertEqual(answer[0], 200, f"answer: {answer}")
                fetched = [it for it in os.listdir(directory) if it != "unrelated.pem"]
                self.assertIn(f"{target.platform_serial}.pem", fetched)
                with open(f"{directory}/{fetched[0]}", "rb") as file:
                    x509.load_pem_x509_certificate(file.read())

    def test_an_answer_signed_by_another_key_is_not_accepted(self):
        target = TARGETS[self.target_name]
        public = new_key()[0].public_key()
        pem = public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        client = Client(target, public_key=pem.decode())
        with self.assertRaisesRegex(Exception, "verify the signature"):
            client.call(
                "pay",
                description="签名",
                out_trade_no=number(),
                amount={"total": 1},
                notify_url="http://127.0.0.1:9/unused",
            )


def load_tests(_loader, _tests, _pattern):
    """One class for each server and client; bills last, because they move the clock."""
    wanted = os.environ.get("FEIQIAN_SDK_TARGETS", "feiqian,simulator").split(",")
    clients = {"PublicKey": Client, "Certificate": CertificateClient, "Async": AsyncClient}
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    suite = unittest.TestSuite()

    def add(base, target_name, name, **facts):
        facts["target_name"] = target_name
        case = type(f"{target_name.capitalize()}{name}", (base, unittest.TestCase), facts)
        case.__module__ = __name__
        globals()[case.__name__] = case
        suite.addTests(load(case))

    for target_name in wanted:
        for name, client_type in clients.items():
            add(Conformance, target_name, name, client_type=client_type)
        add(Certificates, target_name, "Certificates")
    for target_name in wanted:
        add(Bills, target_name, "Bills")
    return suite


if __name__ == "__main__":
    unittest.main(verbosity=2)

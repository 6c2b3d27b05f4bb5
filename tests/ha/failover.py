"""Feiqian under load while its machines die and its cables are pulled, one after the other.

Merchants order, payers pay, and after quiet everything that was acknowledged is compared with the
platform's answers, the channel's book, the ledger and the notifications that arrived. Lost or
doubled money, or a lost notification, fails the test. Seconds without service are reported only:
they depend on the machine. Run by run.sh.
"""

import argparse
import heapq
import itertools
import json
import os
import random
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy" / "ha"))
import cluster as ha  # noqa: E402
from merchant import Client, Keys, NotificationServer, Unsigned, overlapping  # noqa: E402

CLIENTS, PAYERS = 8, 4
AMOUNT = 1_000
PAUSE_S = 0.12
NOTIFY_PORT = 9100
GOAL_DATABASE_S, GOAL_REST_S = 15, 2
# Healing asks the channel after 5, 10, 15, 30, 60 and 120 seconds, WeChat Pay calls back again
# after 15, 30 and 180: what heals at all has healed by then.
PATIENCE_S = 150


class Order:
    def __init__(self, number):
        self.number = number
        self.acknowledged = self.paid = None


class Load:
    """Clients that order, payers that pay, and what they saw."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.keys = Keys(cluster.facts["merchant"], ha.MERCHANT, ha.APPID)
        self.server = NotificationServer(self.keys, ha.address("outside"), NOTIFY_PORT)
        self.control = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.lock = threading.Condition()
        self.orders = {}
        self.renewed = 0  # Codes that a second create of the same order had made void.
        self.created = []  # When a create was acknowledged.
        self.doubts = []  # When, and what was said instead.
        self.problems = []
        self.to_pay = []
        self.over = self.all_paid = False
        self.queries = 0
        self.dice = random.Random(7)
        self.threads = [threading.Thread(target=self.guarded, args=(self.shop, it), daemon=True)
                        for it in range(CLIENTS)]
        self.payers = [threading.Thread(target=self.guarded, args=(self.pay,), daemon=True)
                       for _ in range(PAYERS)]

    def start(self):
        for it in self.threads + self.payers:
            it.start()

    def guarded(self, work, *arguments):
        """A thread that ends by an exception is a finding, not silence."""
        try:
            work(*arguments)
        except Exception as error:
            self.problem(f"{work.__name__} ended: {error!r}")

    def problem(self, text):
        with self.lock:
            self.problems.append(text)

    def client(self):
        return Client(self.keys, ha.address("lb"), 8080)

    def insist(self, client, method, path, body="", until=None):
        """Repeats what is in doubt, as a merchant's SDK does, until it is answered for good."""
        while True:
            status, answer = client.call(method, path, body)
            if status is not None and status < 500:
                return status, answer
            with self.lock:
                said = answer if status is None else f"{status} {answer}"
                self.doubts.append((time.monotonic(), said))
            if until is not None and time.monotonic() > until:
                return status, answer
            time.sleep(0.1)

    def shop(self, number):
        client = self.client()
        for count in itertools.count():
            if self.over:
                return
            order = Order(f"HA{number:02}{count:06}")
            self.orders[order.number] = order
            status, answer = self.create(client, order.number)
            if status != 200:
                self.problem(f"order {order.number} was answered {status}: {answer}")
                continue
            with self.lock:
                order.acknowledged = time.monotonic()
                self.created.append(order.acknowledged)
                # Payers take their time, so that payments and callbacks meet every fault too.
                due = order.acknowledged + self.dice.uniform(0, 3)
                heapq.heappush(self.to_pay, (due, order.number, answer["code_url"]))
                self.lock.notify()
            if count % 4 == 3:
                self.look_back(client)
            time.sleep(PAUSE_S)

    def create(self, client, order_no):
        body = json.dumps({
            "appid": ha.APPID, "mchid": ha.MERCHANT, "out_trade_no": order_no,
            # The channel sees the description, so its book can be compared by it.
            "description": order_no, "notify_url": self.server.url,
            "amount": {"total": AMOUNT, "currency": "CNY"},
        })
        until = time.monotonic() + 120
        return self.insist(client, "POST", "/v3/pay/transactions/native", body, until)

    def look_back(self, client):
        """What a merchant was told stays true, whichever database answers."""
        with self.server.lock:
            heard = [it.order_no for it in self.server.deliveries[-40:] if it.ended]
        if not heard:
            return
        order_no = self.dice.choice(heard)
        status, answer = self.query(client, order_no)
        self.queries += 1
        if status != 200 or answer["trade_state"] != "SUCCESS":
            self.problem(f"{order_no} was announced as paid, then a query said {status}: {answer}")

    def query(self, client, order_no):
        path = f"/v3/pay/transactions/out-trade-no/{order_no}?mchid={ha.MERCHANT}"
        return self.insist(client, "GET", path)

    def simulator(self, call, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.cluster.control(call), data=data,
                                         headers={"Content-Type": "application/json"})
        with self.control.open(request, timeout=30) as answer:
            return json.loads(answer.read())

    def confirm(self, client, order_no, code):
        """The payer pays. A gateway that was cut off in the middle of a create may come back and
        ask the channel again, which makes the first code void: the merchant asks for a new one."""
        for _ in range(5):
            try:
                self.simulator("confirm", {"code": code, "outcome": "success"})
                return True
            except urllib.error.HTTPError as error:
                why = error.read().decode()
            self.renewed += 1
            status, answer = self.create(client, order_no)
            if status != 200:
                break
            code = answer["code_url"]
        self.problem(f"{order_no} could not be paid: {why}; its merchant heard {status}: {answer}")
        return False

    def pay(self):
        client = self.client()
        while True:
            with self.lock:
                while not self.to_pay:
                    if self.all_paid:
                        return
                    self.lock.wait(0.2)
                due, order_no, code = heapq.heappop(self.to_pay)
            time.sleep(max(0, due - time.monotonic()))
            if self.confirm(client, order_no, code):
                self.orders[order_no].paid = time.monotonic()

    def stop(self):
        """No new orders; those begun are brought to their end."""
        self.over = True
        for it in self.threads:
            it.join()
        with self.lock:
            self.all_paid = True
            self.lock.notify_all()
        for it in self.payers:
            it.join()


class Faults:
    """One fault after the other, with what it cost."""

    def __init__(self, cluster, load, only, say):
        self.cluster, self.load, self.only, self.say = cluster, load, only, say
        self.log = []

    def one(self, name, goal_s, break_it, seconds, mend=lambda: None):
        """Breaks, lets the load run for `seconds`, mends, and waits until all is whole again."""
        if self.only not in name:
            return
        self.say(f"fault: {name}")
        began = time.monotonic()
        break_it()
        time.sleep(seconds)
        mended = time.monotonic()
        mend()
        self.whole()
        whole = time.monotonic()
        self.log.append({"fault": name, "goal_s": goal_s, "began": began, "ended": whole,
                         "whole_after_s": round(whole - mended, 1)})
        # The next fault meets a system at work.
        time.sleep(3)

    def whole(self):
        cluster = self.cluster
        cluster.wait_for_standby(120)
        for machine in ha.machines_with("nats"):
            url = f"http://{ha.address(machine)}:8222/healthz"
            cluster.wait_until(f"NATS on {machine} is healthy", lambda: cluster.healthy(machine, url))
        for machine in ha.machines_with("feiqian"):
            cluster.wait_until(f"{machine} is ready", lambda: cluster.ready(machine))

    def all(self):
        cluster = self.cluster

        def back(machine):
            cluster.heal(machine)
            cluster.start(machine)

        def restart_balancer():
            cluster.kill("lb")
            cluster.start("lb")

        def stale_standby(primary, standby):
            """Two faults: what is left has not all that was promised, so that it must not take
            over. Payments wait for the primary to come back, and none is lost."""
            cluster.cut(standby)
            time.sleep(8)
            cluster.power_off(primary)
            cluster.heal(standby)

        self.one("gateway gw1: kill -9", GOAL_REST_S,
                 lambda: cluster.kill("gw1"), 6, lambda: back("gw1"))
        self.one("worker wk1: kill -9", GOAL_REST_S,
                 lambda: cluster.kill("wk1"), 8, lambda: back("wk1"))
        leader = self.stream_leader()
        self.one(f"NATS server {leader}: kill -9", GOAL_REST_S,
                 lambda: cluster.kill(leader, "nats"), 6, lambda: back(leader))
        primary = cluster.primary()
        self.one(f"primary {primary}: the machine dies", GOAL_DATABASE_S,
                 lambda: cluster.power_off(primary), 17, lambda: back(primary))
        primary = cluster.primary()
        self.one(f"primary {primary}: cut off, still running", GOAL_DATABASE_S,
                 lambda: cluster.cut(primary), 17, lambda: back(primary))
        standby = cluster.standby()
        self.one(f"standby {standby}: the machine dies", GOAL_DATABASE_S,
                 lambda: cluster.power_off(standby), 10, lambda: back(standby))
        self.one("gateway gw2: cut off, still running", GOAL_REST_S,
                 lambda: cluster.cut("gw2"), 8, lambda: back("gw2"))
        self.one("worker wk2: cut off, still running", GOAL_REST_S,
                 lambda: cluster.cut("wk2"), 12, lambda: back("wk2"))
        self.one("machine quorum1 (etcd and NATS): dies", GOAL_REST_S,
                 lambda: cluster.power_off("quorum1"), 8, lambda: back("quorum1"))
        self.one("balancer: kill -9, started again", GOAL_REST_S, restart_balancer, 5)
        primary, standby = cluster.primary(), cluster.standby()
        self.one(f"{standby} cut off for long, then {primary} dies", None,
                 lambda: stale_standby(primary, standby), 15, lambda: back(primary))

    def stream_leader(self):
        """The NATS server that leads the stream of events: the worst one to lose."""
        return stream_of_events(self.cluster)["cluster"]["leader"]

    def costs(self):
        """For each fault: the longest time without an acknowledged create, and the longest that a
        merchant waited for the news of a payment."""
        created = sorted(self.load.created)
        first = {number: found[0].began for number, found in self.load.server.by_order().items()}
        # By the moment of the news: a payment just before a fault waits because of it.
        waits = [(first[it.number], first[it.number] - it.paid)
                 for it in self.load.orders.values() if it.paid and it.number in first]
        ends = [it["began"] for it in self.log[1:]] + [float("inf")]
        for it, end in zip(self.log, ends):
            gap = longest_gap(created, it["began"], end)
            slowest = max((wait for at, wait in waits if it["began"] <= at < end), default=0)
            doubts = sum(it["began"] <= at < end for at, _ in self.load.doubts)
            yield {
                "fault": it["fault"],
                "without_creates_s": gap,
                "goal_s": it["goal_s"],
                "goal_met": it["goal_s"] is None or (gap is not None and gap <= it["goal_s"]),
                "slowest_notification_s": round(slowest, 1),
                "calls_in_doubt": doubts,
                "whole_again_after_s": it["whole_after_s"],
            }


def stream_of_events(cluster):
    """What NATS says of the stream."""
    machine = ha.machines_with("nats")[0]
    url = f"http://{ha.address(machine)}:8222/jsz?streams=true"
    facts = json.loads(cluster.asked(machine, url)[1])
    return facts["account_details"][0]["stream_detail"][0]


def longest_gap(moments, began, end):
    """The longest time between neighbours of which the later falls into the window; None if no
    moment does."""
    gaps = [later - max(earlier, began)
            for earlier, later in itertools.pairwise(moments) if began <= later < end]
    return round(max(gaps), 1) if gaps else None


class Accounts:
    """What was promised against what is."""

    def __init__(self, cluster, load):
        self.cluster, self.load = cluster, load
        self.paid = [it for it in load.orders.values() if it.paid is not None]

    def settle(self, say):
        """Asks until every paid order is known as paid and its merchant has heard of it."""
        end = time.monotonic() + PATIENCE_S
        open_orders = [it.number for it in self.paid]
        local = threading.local()

        def state(order_no):
            if not hasattr(local, "client"):
                local.client = self.load.client()
            return order_no, self.load.query(local.client, order_no)

        self.answers = {}
        with ThreadPoolExecutor(CLIENTS) as pool:
            while open_orders:
                self.answers.update(pool.map(state, open_orders))
                open_orders = [it for it in open_orders if self.unknown(it)]
                unheard = self.unheard()
                if not open_orders and not unheard:
                    return
                if time.monotonic() > end:
                    return
                say(f"open: {len(open_orders)} orders, {len(unheard)} notifications")
                # An order that is paid needs no second question while news are awaited.
                open_orders = open_orders or [self.paid[0].number]
                time.sleep(2)

    def unknown(self, order_no):
        status, answer = self.answers[order_no]
        return status != 200 or answer["trade_state"] != "SUCCESS"

    def unheard(self):
        heard = self.load.server.by_order()
        return [it.number for it in self.paid if not any(one.ended for one in heard[it.number])]

    def findings(self):
        """Figures, and whatever must not be."""
        load = self.load
        acknowledged = [it for it in load.orders.values() if it.acknowledged is not None]
        lost = [it.number for it in self.paid if self.unknown(it.number)]
        book = defaultdict(list)
        for it in load.simulator("orders")["orders"]:
            book[it["description"]].append(it)
        missing = [it.number for it in acknowledged if not book[it.number]]
        paid_there = {number: sum(it["paid_minor"] is not None for it in found)
                      for number, found in book.items()}
        doubled = [number for number, count in paid_there.items() if count > 1]
        unpaid = [it.number for it in self.paid if paid_there.get(it.number) != 1]
        numbers = Counter(answer["transaction_id"]
                          for status, answer in self.answers.values()
                          if status == 200 and answer.get("transaction_id"))
        doubled += [number for number, count in numbers.items() if count > 1]

        heard = load.server.by_order()
        events = {number: {one.event for one in found} for number, found in heard.items()}
        repeats = Counter(len(found) for found in heard.values())
        at_once = [pair for found in heard.values() for pair in overlapping(found)]

        check = self.cluster.feiqian("ledger", "check", "--json", check=False)
        balances = self.cluster.feiqian("ledger", "balances", "--json", check=False)
        try:
            ledger = json.loads(check.stdout)
            lines = [json.loads(it) for it in balances.stdout.splitlines()]
        except ValueError:
            ledger, lines = {"ok": False, "findings": [check.stderr, balances.stderr]}, []
        here = sum(it["minor"] for it in lines if it["account"].startswith("channel/"))
        there = sum(it["paid_minor"] or 0 for found in book.values() for it in found)

        figures = {
            "orders_acknowledged": len(acknowledged),
            "orders_paid": len(self.paid),
            "queries_answered": load.queries + len(self.answers),
            "calls_in_doubt": len(load.doubts),
            "codes_renewed": load.renewed,
            "acknowledged_payments_lost": len(lost) + len(missing) + len(unpaid),
            "payments_doubled": len(doubled),
            "notifications_lost": len(self.unheard()),
            "events_announced_under_two_ids": sum(len(it) > 1 for it in events.values()),
            "notifications_delivered_again": sum((n - 1) * k for n, k in repeats.items()),
            "notifications_sent_by_two_workers_at_once": len(at_once),
            "orders_with_two_orders_at_the_channel": sum(len(it) > 1 for it in book.values()),
            "events_on_the_bus": stream_of_events(self.cluster)["state"]["messages"],
            "ledger_ok": ledger["ok"],
            "ledger_payments": ledger.get("payments"),
            "ledger_owed_by_channel_minor": here,
            "channel_took_minor": there,
        }
        wrong = [f"lost: {it}: {self.answers[it]}" for it in lost]
        wrong += [f"acknowledged, but unknown at the channel: {it}" for it in missing]
        wrong += [f"paid, but not once in the channel's book: {it}" for it in unpaid]
        wrong += [f"doubled: {it}" for it in doubled]
        wrong += [f"nobody heard of {it}" for it in self.unheard()]
        wrong += [f"{number} was announced under {it}" for number, it in events.items() if len(it) > 1]
        wrong += [f"sent by {a.sender} and {b.sender} at once: {a.event}" for a, b in at_once]
        wrong += [f"ledger: {it}" for it in ledger["findings"]]
        if ledger.get("payments") != len(load.orders):
            wrong.append(f"the ledger knows {ledger.get('payments')} payments, "
                         f"merchants ordered {len(load.orders)}")
        if here != there:
            wrong.append(f"the channel took {there}, the books say {here}")
        wrong += [f"a notification that does not hold: {it}" for it in load.server.faults]
        wrong += load.problems
        wrong += self.panics()
        if not acknowledged or not self.paid:
            wrong.append("nothing was ordered or paid: this proves nothing")
        return figures, wrong


    def panics(self):
        for log in sorted(self.cluster.folder.glob("*/feiqian.log")):
            for line in log.read_text(errors="replace").splitlines():
                if "panicked at" in line:
                    yield f"{log.parent.name}: {line}"


def table(rows):
    head = ["fault", "no creates", "goal", "", "slowest news", "in doubt", "whole after"]
    def seconds(value):
        return "all" if value is None else f"{value:.1f} s"

    lines = [head] + [
        [it["fault"], seconds(it["without_creates_s"]), f"{it['goal_s']} s" if it["goal_s"] else "none",
         ("met" if it["goal_met"] else "MISSED") if it["goal_s"] else "", seconds(it["slowest_notification_s"]),
         str(it["calls_in_doubt"]), seconds(it["whole_again_after_s"])]
        for it in rows
    ]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    for line in lines:
        first, *rest = (f"{it:<{width}}" if at == 0 else f"{it:>{width}}"
                        for at, (it, width) in enumerate(zip(line, widths)))
        print("  ".join([first, *rest]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--feiqian", required=True)
    parser.add_argument("--nats-server", required=True)
    parser.add_argument("--dir", required=True, help="where everything is kept until the end")
    parser.add_argument("--json", help="also write the report to this file")
    parser.add_argument("--only", default="", help="only faults whose name contains this")
    parser.add_argument("--keep-logs", help="copy the logs there if the test fails")
    args = parser.parse_args()
    ha.end_on_signals()
    started = time.monotonic()

    def say(text):
        print(f"{time.monotonic() - started:6.1f} s  {text}", flush=True)

    cluster = ha.Cluster.new(args.dir, args.feiqian, args.nats_server)
    wrong = ["the test did not come to its end"]
    try:
        cluster.up(say)
        # From here on this process stands where merchants stand: outside.
        cluster.enter("outside")
        load = Load(cluster)
        load.start()
        time.sleep(5)
        faults = Faults(cluster, load, args.only, say)
        faults.all()
        load.stop()
        say(f"quiet after {len(load.orders)} orders")
        accounts = Accounts(cluster, load)
        accounts.settle(say)
        figures, wrong = accounts.findings()
        costs = list(faults.costs())
        report = {"ok": not wrong, "seconds": round(time.monotonic() - started), "faults": costs,
                  **figures, "findings": wrong}
        print()
        table(costs)
        print()
        for name, value in figures.items():
            print(f"{name.replace('_', ' '):<44}{value:>12}")
        print()
        if args.json:
            Path(args.json).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        for it in wrong[:40]:
            print(f"WRONG  {it}")
        say("nothing acknowledged was lost or doubled" if not wrong else f"{len(wrong)} findings")
    finally:
        # A second Ctrl-C must not leave half of it running.
        ha.ignore_signals()
        if wrong and args.keep_logs:
            keep_logs(cluster, Path(args.keep_logs))
        cluster.down()
    sys.exit(1 if wrong else 0)


def keep_logs(cluster, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for log in cluster.folder.glob("*/*.log"):
        (folder / f"{log.parent.name}-{log.name}").write_bytes(log.read_bytes())
    print(f"logs: {folder}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except (ha.Failed, Unsigned) as error:
        print(f"ha: {error}", file=sys.stderr)
        os._exit(1)

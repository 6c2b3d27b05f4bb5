#!/usr/bin/env python3
"""A highly available Feiqian on one machine, each computer of it a network namespace.

    cluster.py up [DIR]                 start everything below DIR (default: a new temporary folder)
    cluster.py status DIR               who runs, who leads
    cluster.py kill DIR MACHINE [SERVICE]   SIGKILL; its network stays
    cluster.py power-off DIR MACHINE    silence first, then SIGKILL: what a dead machine looks like
    cluster.py cut DIR MACHINE          unplug its network; `heal` plugs it in again
    cluster.py start DIR MACHINE        plug in and start whatever does not run there
    cluster.py exec DIR MACHINE COMMAND…    run a command as if on that machine
    cluster.py down DIR                 stop and remove everything, DIR too

The templates beside this file are what an operator would write; this file only fills in addresses,
starts processes and pulls plugs. Needs root, Debian's postgresql-15, patroni, etcd-server, haproxy,
iproute2 and nftables, and a nats-server (`scripts/ensure.sh ha`). Nothing outside the namespaces
and DIR is changed; there is no way from inside to the outside.
"""

import argparse
import contextlib
import csv
import ctypes
import hashlib
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
NETWORK = "10.88.0.0/24"
POSTGRES_BIN = "/usr/lib/postgresql/15/bin"
SIMULATOR_PORT = 9000
MERCHANT, APPID = "1900000900", "wx2421b1c4370ec43b"
CLONE_NEWNET = 0x40000000

# Machine: address, services in the order in which they start.
MACHINES = {
    "quorum1": ("10.88.0.11", ["etcd", "nats"]),
    "quorum2": ("10.88.0.12", ["etcd", "nats"]),
    "quorum3": ("10.88.0.13", ["etcd", "nats"]),
    "db1": ("10.88.0.21", ["patroni"]),
    "db2": ("10.88.0.22", ["patroni"]),
    "lb": ("10.88.0.31", ["haproxy"]),
    "outside": ("10.88.0.200", ["simulator"]),
    "gw1": ("10.88.0.41", ["feiqian"]),
    "gw2": ("10.88.0.42", ["feiqian"]),
    "wk1": ("10.88.0.51", ["feiqian"]),
    "wk2": ("10.88.0.52", ["feiqian"]),
}
# Nothing runs as root.
USERS = {"patroni": "postgres", "etcd": "etcd", "haproxy": "haproxy"}
OTHERS = "nobody"


def address(machine):
    return MACHINES[machine][0]


def machines_with(service):
    return [it for it, (_, services) in MACHINES.items() if service in services]


class Failed(Exception):
    """Something an operator must know; shown without a traceback."""


def run(*command, **more):
    """A command that must succeed; what it said is part of the error."""
    done = subprocess.run(command, text=True, capture_output=True, **more)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise Failed(f"`{' '.join(map(str, command))}` failed ({done.returncode}): {said}")
    return done.stdout


def get(url, timeout=1.0):
    """Status and body; None when nobody answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return None


class Cluster:
    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        self.facts_file = self.folder / "cluster.json"
        # Two clusters on one computer do not meet: names of namespaces come from the folder.
        self.name = "feiqian-" + hashlib.sha256(str(self.folder).encode()).hexdigest()[:6]
        # What this process started, and what of it was killed on purpose.
        self.children, self.killed = {}, set()

    # Folder and facts

    @classmethod
    def found(cls, folder):
        cluster = cls(folder)
        if not cluster.facts_file.exists():
            raise Failed(f"{folder} holds no cluster; make one with `cluster.py up {folder}`")
        cluster.facts = json.loads(cluster.facts_file.read_text())
        return cluster

    @classmethod
    def new(cls, folder, feiqian, nats_server):
        """Folder, secrets, programs; nothing runs yet."""
        cluster = cls(folder)
        if cluster.facts_file.exists() or (cluster.folder.exists() and any(cluster.folder.iterdir())):
            raise Failed(f"{folder} is not empty; choose another folder, or `cluster.py down` it")
        # Services run as several users, and each must find its own folder.
        cluster.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        cluster.folder.chmod(0o755)
        words = ["superuser", "replication", "rewind", "feiqian", "nats"]
        cluster.facts = {f"{it}_password": secrets.token_hex(16) for it in words}
        programs = cluster.folder / "bin"
        programs.mkdir()
        # Copies: a service's user may not look into the builder's folders, and a rebuild while
        # the cluster runs must not change what runs.
        for name, path in (("feiqian", feiqian), ("nats-server", nats_server)):
            if path:
                shutil.copy(path, programs / name)
                (programs / name).chmod(0o755)
        cluster.facts["services"] = [
            it for it in ("etcd", "nats", "patroni", "haproxy", "simulator", "feiqian")
            if feiqian or it not in ("simulator", "feiqian")
        ]
        cluster.facts_file.touch(mode=0o600)
        cluster.write_facts()
        return cluster

    def write_facts(self):
        self.facts_file.write_text(json.dumps(self.facts, indent=2) + "\n")

    def services(self, machine):
        return [it for it in MACHINES[machine][1] if it in self.facts["services"]]

    def program(self, name):
        return str(self.folder / "bin" / name)

    # Network

    def namespace(self, machine):
        return f"{self.name}-{machine}"

    def namespaces(self):
        listed = run("ip", "netns", "list").split("\n")
        names = [it.split()[0] for it in listed if it.strip()]
        return [it for it in names if it.startswith(self.name + "-")]

    def build_network(self):
        """A switch in a namespace of its own and a cable from it to every machine."""
        switch = self.namespace("switch")
        run("ip", "netns", "add", switch)
        run("ip", "-n", switch, "link", "add", "name", "bridge", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "dev", "bridge", "up")
        for machine in MACHINES:
            own = self.namespace(machine)
            run("ip", "netns", "add", own)
            run("ip", "-n", switch, "link", "add", "name", machine,
                "type", "veth", "peer", "name", "eth0", "netns", own)
            run("ip", "-n", switch, "link", "set", "dev", machine, "master", "bridge", "up")
            run("ip", "-n", own, "link", "set", "dev", "lo", "up")
            run("ip", "-n", own, "link", "set", "dev", "eth0", "up")
            run("ip", "-n", own, "address", "add", f"{address(machine)}/24", "dev", "eth0")
        # An unplugged machine: the switch drops what comes from it and what goes to it, and no
        # end is told. That is the worst kind of fault; a closed connection would be kinder.
        rules = """
            table bridge plugs {
                set unplugged { type ifname; }
                chain forward {
                    type filter hook forward priority 0; policy accept;
                    iifname @unplugged drop
                    oifname @unplugged drop
                }
            }"""
        run("ip", "netns", "exec", switch, "nft", "-f", "-", input=rules)

    def plug(self, verb, machine):
        run("ip", "netns", "exec", self.namespace("switch"),
            "nft", verb, "element", "bridge", "plugs", "unplugged", '{ "%s" }' % machine)

    def unplugged(self):
        listed = run("ip", "netns", "exec", self.namespace("switch"),
                     "nft", "-j", "list", "set", "bridge", "plugs", "unplugged")
        return [name for it in json.loads(listed)["nftables"] for name in it.get("set", {}).get("elem", [])]

    def cut(self, machine):
        self.plug("add", machine)

    def heal(self, machine):
        if machine in self.unplugged():
            self.plug("delete", machine)

    def enter(self, machine):
        """Puts this thread, and those it starts, on the machine's network."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{self.namespace(machine)}") as it:
            if libc.setns(it.fileno(), CLONE_NEWNET) != 0:
                raise Failed(f"setns: {os.strerror(ctypes.get_errno())}")

    @contextlib.contextmanager
    def on(self, machine):
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as before:
            self.enter(machine)
            try:
                yield
            finally:
                libc.setns(before.fileno(), CLONE_NEWNET)

    def asked(self, machine, url, timeout=1.0):
        """GET from the machine's own network, so that a cut cable does not hide it from us."""
        with self.on(machine):
            return get(url, timeout)

    # Services

    def own_folder(self, machine):
        return self.folder / machine

    def pids(self, machine):
        name = self.namespace(machine)
        if name not in self.namespaces():
            return []
        return [int(it) for it in run("ip", "netns", "pids", name).split()]

    def pid_of(self, machine, service):
        """The service's main process, if it runs."""
        try:
            pid = int((self.own_folder(machine) / f"{service}.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if pid in self.pids(machine) else None

    def template(self, name, machine, service, **more):
        """Fills a template in for one machine, readable by the service's user only."""
        folder = self.own_folder(machine)
        etcd, nats = machines_with("etcd"), machines_with("nats")
        password = self.facts["nats_password"]
        values = {
            **self.facts,
            **{it: address(it) for it in MACHINES},
            "machine": machine,
            "address": address(machine),
            "folder": folder,
            "network": NETWORK,
            "postgres_bin": POSTGRES_BIN,
            "etcd_members": ",".join(f"{it}=http://{address(it)}:2380" for it in etcd),
            "etcd_hosts": ",".join(f"{address(it)}:2379" for it in etcd),
            "nats_routes": ", ".join(f'"nats://{address(it)}:6222"' for it in nats),
            "nats_urls": ",".join(f"nats://feiqian:{password}@{address(it)}:4222" for it in nats),
            **more,
        }
        file = folder / name
        text = string.Template((HERE / name).read_text()).substitute(values)
        file.touch(mode=0o600)
        file.write_text(text)
        self.give(file, service)
        return str(file)

    def give(self, path, service):
        user = pwd.getpwnam(USERS.get(service, OTHERS))
        os.chown(path, user.pw_uid, user.pw_gid)

    def command(self, machine, service):
        folder = self.own_folder(machine)
        if service == "etcd":
            return ["etcd", "--config-file", self.template("etcd.yml", machine, service)]
        if service == "nats":
            return [self.program("nats-server"), "-c", self.template("nats.conf", machine, service)]
        if service == "patroni":
            return ["/usr/bin/patroni", self.template("patroni.yml", machine, service)]
        if service == "haproxy":
            return ["haproxy", "-db", "-f", self.template("haproxy.cfg", machine, service)]
        if service == "simulator":
            return [self.program("feiqian"), "simulator", "--data", str(folder),
                    "--listen", f"{address(machine)}:{SIMULATOR_PORT}"]
        if service == "feiqian":
            role = "gateway" if machine.startswith("gw") else "worker"
            return [self.program("feiqian"), "serve", "--config", str(folder / "feiqian.toml"),
                    # Only because the channel is a simulator here.
                    "--plain-http-channels", "--role", role]
        raise Failed(f"no service {service}")

    def start(self, machine):
        """Starts what does not run on the machine."""
        for service in self.services(machine):
            if self.pid_of(machine, service) is None:
                self.start_service(machine, service)

    def start_service(self, machine, service):
        folder = self.own_folder(machine)
        folder.mkdir(mode=0o755, exist_ok=True)
        data = {"etcd": "etcd", "nats": "jetstream", "patroni": "data"}.get(service)
        if data:
            (folder / data).mkdir(mode=0o700, exist_ok=True)
            self.give(folder / data, service)
        self.give(folder, service)
        user = pwd.getpwnam(USERS.get(service, OTHERS))
        command = [
            "ip", "netns", "exec", self.namespace(machine),
            # Shared memory of its own too: what a killed PostgreSQL leaves there goes with it.
            "unshare", "--ipc", "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"', "sh",
            "setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups",
            "--inh-caps=-all", "--",
            *self.command(machine, service),
        ]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder),
                       "LANG": "C.UTF-8", "RUST_LOG": os.environ.get("RUST_LOG", "info")}
        with open(folder / f"{service}.log", "ab") as log:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                     cwd=folder, env=environment, start_new_session=True)
        # Each of these commands replaces itself by the next: the child is the service.
        (folder / f"{service}.pid").write_text(f"{child.pid}\n")
        self.children[machine, service] = child
        self.killed.discard((machine, service))

    def kill(self, machine, service=None):
        """SIGKILL, for all of the machine or for one service and what it started."""
        victims = self.pids(machine)
        if service is not None:
            main = self.pid_of(machine, service)
            if main is None:
                raise Failed(f"{service} does not run on {machine}")
            # A machine has either one service or services without children of their own.
            victims = victims if len(self.services(machine)) == 1 else [main]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for service in [service] if service else self.services(machine):
            self.killed.add((machine, service))
            if child := self.children.get((machine, service)):
                child.wait()

    def power_off(self, machine):
        self.cut(machine)
        self.kill(machine)

    # Everything

    def up(self, say):
        try:
            self.build_network()
        except Failed as error:
            raise Failed(f"network namespaces cannot be made here, and nothing less would show "
                         f"what happens when a cable is cut: {error}") from error
        say("network: a switch and %d machines" % len(MACHINES))
        for machine in machines_with("etcd"):
            self.start(machine)
        for machine in machines_with("etcd"):
            url = f"http://{address(machine)}:2379/health"
            self.wait_until(f"etcd on {machine} is healthy", lambda: self.healthy(machine, url))
        say("etcd: three members")
        for machine in machines_with("nats"):
            url = f"http://{address(machine)}:8222/healthz"
            self.wait_until(f"NATS on {machine} is healthy", lambda: self.healthy(machine, url))
        say("NATS: three servers")
        # The first to come makes the database; the second copies it.
        self.start("db1")
        self.wait_until("db1 is primary", lambda: self.primary() == "db1")
        self.start("db2")
        self.wait_for_standby()
        say("PostgreSQL: db1 primary, db2 synchronous standby")
        self.start("lb")
        self.make_database()
        say("HAProxy: %s:8080 to the gateways, %s:5432 to the primary" % ((address("lb"),) * 2))

        if "feiqian" not in self.facts["services"]:
            return
        self.start("outside")
        self.wait_until("the simulator listens", lambda: self.healthy("outside", self.control("clock")))
        self.install()
        for machine in machines_with("feiqian"):
            self.start(machine)
        for machine in machines_with("feiqian"):
            self.wait_until(f"{machine} is ready", lambda: self.ready(machine))
        self.wait_until("HAProxy knows both gateways", lambda: len(self.balanced("gateways")) == 2)
        say("Feiqian: two gateways, two workers; the channel is the simulator on `outside`")

    @staticmethod
    def control(call):
        return f"http://{address('outside')}:{SIMULATOR_PORT}/_sim/{call}"

    def ready(self, machine):
        return self.healthy(machine, f"http://{address(machine)}:8080/readyz")

    def install(self):
        """Keys once, a configuration for each machine, the database's tables, a merchant."""
        made = self.folder / "installation"
        run(self.program("feiqian"), "init", str(made), "--mchid", "1900000001")
        with open(made / "feiqian.toml", "rb") as it:
            key_id = tomllib.load(it)["keys"]["platform_public_key_id"]
        account = self.own_folder("outside") / "simulator"
        for machine in machines_with("feiqian"):
            folder = self.own_folder(machine)
            folder.mkdir(mode=0o755)
            shutil.copytree(made / "keys", folder / "keys")
            (folder / "simulator").mkdir()
            for name in ("merchant_private_key.pem", "apiv3_key", "platform_public_key.pem"):
                shutil.copy(account / name, folder / "simulator")
            self.template("feiqian.toml", machine, "feiqian", platform_public_key_id=key_id,
                          channel=(account / "channel.toml").read_text())
            for path in (folder / "keys", folder / "simulator"):
                for it in (path, *path.iterdir()):
                    self.give(it, "feiqian")
        self.feiqian("migrate")
        said = self.feiqian("merchant", "add", "--mchid", MERCHANT, "--name", "High availability",
                            "--appid", APPID, "--json")
        self.facts["merchant"] = json.loads(said)
        self.write_facts()

    def feiqian(self, *arguments, machine="gw1", check=True):
        """A command of Feiqian, run on one of its machines."""
        command = ["ip", "netns", "exec", self.namespace(machine), self.program("feiqian"),
                   *arguments, "--config", str(self.own_folder(machine) / "feiqian.toml")]
        if check:
            return run(*command)
        return subprocess.run(command, text=True, capture_output=True)

    def make_database(self):
        password = self.facts["feiqian_password"]
        # Until its first check HAProxy believes in every server, the standby too.
        self.wait_until("HAProxy knows the primary", lambda: self.balanced("primary") == ["db1"])
        self.sql(f"create role feiqian login password '{password}'")
        self.sql("create database feiqian owner feiqian")

    def wait_until(self, what, look, seconds=60, every=0.1):
        """The first true value of `look`; fails at once when a service has ended by itself."""
        end = time.monotonic() + seconds
        while True:
            found = look()
            if found:
                return found
            for place, child in list(self.children.items()):
                if child.poll() is not None and place not in self.killed:
                    raise Failed(f"{' '.join(place)} ended with {child.returncode}: {self.last_words(*place)}")
            if time.monotonic() > end:
                raise Failed(f"waited {seconds} s in vain until {what}")
            time.sleep(every)

    def last_words(self, machine, service):
        lines = (self.own_folder(machine) / f"{service}.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-8:])

    def healthy(self, machine, url):
        answer = self.asked(machine, url)
        return answer is not None and answer[0] == 200

    def primary(self):
        """The machine that holds the lease, or None."""
        for machine in machines_with("patroni"):
            answer = self.asked(machine, f"http://{address(machine)}:8008/primary")
            if answer is not None and answer[0] == 200:
                return machine
        return None

    def members(self):
        """What Patroni knows of both databases."""
        for machine in machines_with("patroni"):
            answer = self.asked(machine, f"http://{address(machine)}:8008/cluster")
            if answer is not None and answer[0] == 200:
                return json.loads(answer[1])["members"]
        return []

    def standby(self):
        """The machine that has every commit, or None."""
        for member in self.members():
            if member["role"] == "sync_standby" and member["state"] in ("running", "streaming"):
                return member["name"]
        return None

    def wait_for_standby(self, seconds=90):
        return self.wait_until("there is a synchronous standby", self.standby, seconds)

    def balanced(self, proxy):
        """The servers to which HAProxy sends."""
        with socket.socket(socket.AF_UNIX) as it:
            try:
                it.connect(str(self.own_folder("lb") / "haproxy.sock"))
            except OSError:
                return []
            it.sendall(b"show stat\n")
            table = it.makefile().read().splitlines()
        rows = csv.DictReader([table[0].lstrip("# "), *filter(None, table[1:])])
        servers = [it for it in rows if it["pxname"] == proxy and it["svname"] in MACHINES]
        return [it["svname"] for it in servers if it["status"].startswith("UP")]

    def sql(self, statement, machine="lb"):
        """Statements as superuser, through HAProxy or directly at a database machine."""
        url = f"postgres://postgres@{address(machine)}:5432/postgres?connect_timeout=2"
        # Not as an argument: passwords would be seen in the list of processes.
        return run("ip", "netns", "exec", self.namespace("outside"),
                   "psql", "-X", "-qtA", "-v", "ON_ERROR_STOP=1", "-f", "-", url, input=statement,
                   env={**os.environ, "PGPASSWORD": self.facts["superuser_password"]}).strip()

    def status(self):
        unplugged = self.unplugged()
        roles = {it["name"]: f"{it['role']}, {it['state']}" for it in self.members()}
        for machine in MACHINES:
            running = []
            for service in self.services(machine):
                pid = self.pid_of(machine, service)
                running.append(f"{service} {pid}" if pid else f"{service} DOWN")
            notes = [roles[machine]] if machine in roles else []
            notes += ["UNPLUGGED"] if machine in unplugged else []
            yield f"{machine:<8} {address(machine):<12} {', '.join(running):<28} {'; '.join(notes)}".rstrip()

    def down(self):
        """Stops and removes everything, whatever state it is in."""
        names = self.namespaces()
        for name in names:
            for pid in run("ip", "netns", "pids", name).split():
                # A shell that someone opened there is not ours to kill, but us there is worse.
                if int(pid) != os.getpid():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
        for child in self.children.values():
            child.wait()
        for name in names:
            run("ip", "netns", "delete", name)
        shutil.rmtree(self.folder, ignore_errors=True)


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_on_signals():
    """Ctrl-C, a plain kill and a closed terminal end by an exception, so that `finally` is run."""
    for it in SIGNALS:
        signal.signal(it, lambda number, _: sys.exit(128 + number))


def ignore_signals():
    """While cleaning up: a second Ctrl-C must not leave half of it running."""
    for it in SIGNALS:
        signal.signal(it, signal.SIG_IGN)


def find_nats_server():
    found = shutil.which("nats-server") or os.environ.get("FEIQIAN_NATS_SERVER")
    if not found:
        raise Failed("nats-server is missing; `scripts/ensure.sh ha` installs it and says where")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="verb", required=True)
    up = commands.add_parser("up")
    up.add_argument("dir", nargs="?")
    up.add_argument("--feiqian", help="the binary; without it only the parts below it are started")
    up.add_argument("--nats-server")
    for verb in ("status", "down"):
        commands.add_parser(verb).add_argument("dir")
    for verb in ("kill", "power-off", "cut", "heal", "start", "exec"):
        it = commands.add_parser(verb)
        it.add_argument("dir")
        it.add_argument("machine", choices=MACHINES)
        if verb == "kill":
            it.add_argument("service", nargs="?")
        if verb == "exec":
            it.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if os.geteuid() != 0:
        raise Failed("network namespaces need root")
    if args.verb == "up":
        end_on_signals()
        folder = args.dir or tempfile.mkdtemp(prefix="feiqian-ha-")
        cluster = Cluster.new(folder, args.feiqian, args.nats_server or find_nats_server())
        try:
            cluster.up(print)
        except BaseException:
            ignore_signals()
            cluster.down()
            raise
        print("\n".join(cluster.status()))
        print(f"Runs until: {sys.argv[0]} down {cluster.folder}")
        return
    cluster = Cluster.found(args.dir)
    if args.verb == "status":
        print("\n".join(cluster.status()))
    elif args.verb == "down":
        cluster.down()
    elif args.verb == "kill":
        cluster.kill(args.machine, args.service)
    elif args.verb == "power-off":
        cluster.power_off(args.machine)
    elif args.verb == "cut":
        cluster.cut(args.machine)
    elif args.verb == "heal":
        cluster.heal(args.machine)
    elif args.verb == "start":
        cluster.heal(args.machine)
        cluster.start(args.machine)
    elif args.verb == "exec":
        name = cluster.namespace(args.machine)
        os.execvp("ip", ["ip", "netns", "exec", name, *args.command])


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        print(f"cluster: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)

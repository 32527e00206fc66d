"""Private networks on hosts of our own: each test's "host" is a network namespace with an uplink to another.

So nothing here touches the machine's interfaces, firewall or sysctls. A thread has its own network namespace;
what it starts (threads, processes) inherits it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from difflib import ndiff
from typing import Any

import pytest
from holding import descriptors, no_descriptor_more_than

from builder.sandbox import gateway, nft, syscalls
from builder.sandbox.dns import Relay
from builder.sandbox.netlink import Route
from builder.sandbox.network import NetworkPool

pytestmark = pytest.mark.root

OUTSIDE, HOST = socket.inet_aton("198.51.100.1"), socket.inet_aton("198.51.100.2")
PORT = 8000


class Host:
    """A network namespace that acts as the host, and an "outside" behind its uplink with a server."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], list[Any], threading.Event]] = []
        self.wake = threading.Condition()
        self.closing = False
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()
        self.do(self._build)
        self._wake()

    def do(self, job: Callable[[], Any]) -> Any:
        """Run `job` in the host's network namespace."""
        result: list[Any] = []
        done = threading.Event()
        with self.wake:
            self.jobs.append((job, result, done))
            self.wake.notify()
        done.wait()
        if isinstance(result[0], BaseException):
            raise result[0]
        return result[0]

    def _live(self) -> None:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        while True:
            with self.wake:
                self.wake.wait_for(lambda: self.jobs or self.closing)
                if not self.jobs:
                    return
                job, result, done = self.jobs.pop(0)
            try:
                result.append(job())
            except BaseException as error:
                result.append(error)
            done.set()

    def _wake(self) -> None:
        """The kernel notices carriers a while after a link is made (linkwatch): wait for the last states."""
        deadline = time.monotonic() + 60
        while not {"UP", "LOWERLAYERDOWN"} <= set(self.command("ip", "-br", "link").split()):
            assert time.monotonic() < deadline, self.command("ip", "-br", "link")
            time.sleep(0.01)

    def _build(self) -> None:
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        host = Route()
        host.up(1)
        syscalls.unshare(syscalls.CLONE_NEWNET)
        self.outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = Route()
        self.server = socket.create_server(("0.0.0.0", PORT))
        syscalls.setns(here, syscalls.CLONE_NEWNET)
        # With equal indices at both ends the kernel would take up to a second to notice the carrier.
        host.veth("spare0", "spare1", here, 1400)
        host.veth("up0", "out0", self.outside, 1400)
        host.address(host.index("up0"), HOST, 24)
        there.address(there.index("out0"), OUTSIDE, 24)
        there.up(1)
        there.up(there.index("out0"))
        host.route(via=OUTSIDE)
        for protocol in (host, there):
            protocol.close()
        os.close(here)
        self.sysctl("ip_forward", "0")

    def sysctl(self, name: str, value: str = "") -> str:
        def access() -> str:
            with open(f"/proc/sys/net/ipv4/{name}", "r+") as file:
                if value:
                    file.write(value)
                    return value
                return file.read().strip()

        return str(self.do(access)) if threading.current_thread() is not self.thread else access()

    def command(self, *argv: str) -> str:
        def run() -> str:
            return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

        return str(self.do(run))

    def state(self) -> str:
        """All of interfaces, rules and switches that a builder could change."""
        kept = self.command("ip", "-br", "link") + self.command("nft", "list", "ruleset")
        return kept + "".join(self.sysctl(name) for name in ("ip_forward", "conf/up0/forwarding"))

    def settled(self, before: str) -> bool:
        """Whether all is as before. The kernel takes some 20 ms to dissolve a namespace."""
        deadline = time.monotonic() + 60
        while (now := self.state()) != before:
            assert time.monotonic() < deadline, "".join(ndiff(before.splitlines(True), now.splitlines(True)))
            time.sleep(0.02)
        return True

    def peer(self) -> str:
        """Who connects to the outside server within a minute; it gets a line."""
        if not select.select([self.server], [], [], 60)[0]:
            return ""
        connection, (address, _) = self.server.accept()
        connection.sendall(b"from outside\n")
        connection.close()
        return str(address)

    def close(self) -> None:
        with self.wake:
            self.closing = True
            self.wake.notify()
        self.thread.join()
        self.server.close()
        os.close(self.outside)


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.close()


@pytest.fixture
def pool(host: Host) -> Iterator[NetworkPool]:
    with NetworkPool() as made:
        host.do(made.start)
        yield made


def inside(netns: int, job: Callable[[], Any]) -> Any:
    """Run `job` in a thread in that namespace."""
    result: list[Any] = []

    def run() -> None:
        syscalls.setns(netns, syscalls.CLONE_NEWNET)
        try:
            result.append(job())
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return result[0]


def fetch(address: str = "198.51.100.1", port: int = PORT, timeout: float = 60) -> Any:
    def job() -> bytes:
        with socket.create_connection((address, port), timeout) as connection:
            return connection.recv(100)

    return job


def reaches_out(host: Host, netns: int) -> str:
    """The address the outside sees, or nothing."""
    seen: list[str] = []
    accepting = threading.Thread(target=lambda: seen.append(host.peer()))
    accepting.start()
    got = inside(netns, fetch(timeout=60))
    accepting.join()
    return seen[0] if got == b"from outside\n" else repr(got)


def test_the_way_out_and_what_stays(host: Host) -> None:
    before = host.state()
    with NetworkPool() as pool:
        host.do(pool.start)
        netns = pool.take()
        assert reaches_out(host, netns) == "198.51.100.2"
        assert pool.gateway() == "10.213.0.1"
        assert host.sysctl("conf/up0/forwarding") == "1"
        assert host.sysctl("ip_forward") == "0"
        os.close(netns)
    assert host.settled(before)


def test_a_step_reaches_out(host: Host, pool: NetworkPool, world: Any) -> None:
    netns = pool.take()
    accepting = threading.Thread(target=host.peer)
    accepting.start()
    script = f"nc 198.51.100.1 {PORT}; ip -o -4 addr show eth0; ip route"
    _, output = world.run("sh", "-c", script, network="private", netns_fd=netns)
    accepting.join()
    os.close(netns)
    assert output.startswith("from outside\n")
    assert "10.213.0." in output
    assert "default via 10.213.0.1 dev eth0" in output


SIX_OUTSIDE, SIX_HOST = (socket.inet_pton(socket.AF_INET6, f"2001:db8::{n}") for n in (1, 2))


def _give_six(host: Host, forwarding: str = "1") -> socket.socket:
    """IPv6 between the host and the outside, where a server listens."""
    host.command("sh", "-c", f"echo {forwarding} > /proc/sys/net/ipv6/conf/all/forwarding")

    def inner() -> None:
        route = Route()
        route.address(route.index("up0"), SIX_HOST, 64)
        route.route(via=SIX_OUTSIDE)
        route.close()

    def outer() -> socket.socket:
        route = Route()
        route.address(route.index("out0"), SIX_OUTSIDE, 64)
        route.close()
        return socket.create_server(("::", PORT + 1), family=socket.AF_INET6)

    server: socket.socket = inside(host.outside, outer)
    host.do(inner)
    return server


def _serve_once(server: socket.socket, seen: list[str]) -> None:
    if select.select([server], [], [], 60)[0]:
        connection, address = server.accept()
        seen.append(str(address[0]))
        connection.sendall(b"by six\n")
        connection.close()


SWITCH_SIX = "/proc/sys/net/ipv6/conf/up0/force_forwarding"


@pytest.mark.parametrize("forwarding", ["1", "0"])
@pytest.mark.parametrize("wall", [False, True])
def test_the_way_out_by_ipv6(host: Host, wall: bool, forwarding: str) -> None:
    """Where the host does not forward it, single interfaces are made to (Linux 6.17), and back."""
    if forwarding == "0" and not os.path.exists(SWITCH_SIX.replace("up0", "all")):
        pytest.skip(
            "this kernel forwards IPv6 for all interfaces or for none (net.ipv6.conf.*.force_forwarding)"
        )
    server = _give_six(host, forwarding)
    if wall:
        host.command("ip6tables", "-P", "FORWARD", "DROP")
    before = host.state()
    seen: list[str] = []
    with NetworkPool() as pool:
        host.do(pool.start)
        first, second = pool.take(), pool.take()
        serving = threading.Thread(target=_serve_once, args=(server, seen))
        serving.start()
        assert inside(first, fetch("2001:db8::1", PORT + 1, timeout=60)) == b"by six\n"
        serving.join()
        assert seen == ["2001:db8::2"], "the outside sees the host's address"
        assert host.command("cat", SWITCH_SIX.replace("force_forwarding", "forwarding")).strip() == forwarding
        guarded = "table ip6 pybuild_uplink_up0" in host.command("nft", "list", "tables")
        assert guarded == (forwarding == "0"), "no more is forwarded than what is ours"
        listening = inside(first, lambda: socket.create_server(("::", PORT), family=socket.AF_INET6))
        address = inside(first, lambda: _address_six())
        assert address.startswith("fd6c:7079:6275")
        assert isinstance(inside(second, fetch(address, timeout=0.3)), OSError), "steps do not meet"
        listening.close()
        assert reaches_out(host, second) == "198.51.100.2"
        os.close(first)
        os.close(second)
    server.close()
    assert host.settled(before)
    assert host.command("sh", "-c", f"cat {SWITCH_SIX} 2>/dev/null || echo 0").strip() == "0"


def _address_six() -> str:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.connect(("2001:db8::1", 9))
        return str(probe.getsockname()[0])


def _addresses_six() -> str:
    with open("/proc/thread-self/net/if_inet6", encoding="ascii") as file:
        return file.read()


_OLDER = {nft.IPV4: "sys/net/ipv4/conf/", nft.IPV6: "/nowhere/"}
"""The switches of kernels before 6.17."""


@pytest.mark.parametrize("what", ["not forwarded", "no way out"])
def test_where_the_host_has_no_ipv6_for_others(
    host: Host, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A switch that would change how the host gets its own address is not touched."""
    if what == "not forwarded":
        _give_six(host, "0").close()
        monkeypatch.setattr(gateway, "_switch", lambda family, name: f"{_OLDER[family]}{name}/forwarding")
    with NetworkPool() as pool:
        host.do(pool.start)
        netns = pool.take()
        assert isinstance(inside(netns, fetch("2001:db8::1", PORT + 1, timeout=0.5)), OSError)
        assert "fd6c" not in inside(netns, _addresses_six)
        os.close(netns)
    assert host.command("nft", "list", "tables").count("ip6 pybuild") == 0


def test_host_and_no_network(host: Host, world: Any) -> None:
    host.do(world.launcher.start)
    assert "up0" in world.sh("ip -o link", network="host")
    assert "198.51.100.2" in world.sh("ip -o addr", network="host")
    for network in ("none", "private"):
        assert [line.split()[1] for line in world.sh("ip -o link", network=network).splitlines()] == ["lo:"]


@pytest.mark.parametrize(
    "rules",
    [
        ["reject"],
        ["tcp dport 8000 drop"],
        ["ip protocol vmap { tcp : drop }"],
        ["jump other", "reject with icmpx admin-prohibited"],
    ],
)
def test_a_chain_that_drops(host: Host, rules: list[str]) -> None:
    """Whatever the table is called; `other` is a chain that does the work."""
    inner = rules.pop() if len(rules) > 1 else "accept"
    chain = f"type filter hook forward priority 0; policy accept; {rules[0]};"
    host.command("nft", f"table inet wall {{ chain other {{ {inner}; }} ; chain f {{ {chain} }} ; }}")
    before = host.state()
    with NetworkPool() as pool:
        host.do(pool.start)
        netns = pool.take()
        assert reaches_out(host, netns) == "198.51.100.2"
        os.close(netns)
    assert host.settled(before)


@pytest.mark.parametrize("forward", ["0", "1"])
def test_beside_a_firewall_that_drops(host: Host, forward: str) -> None:
    """Docker's policy and chains."""
    host.sysctl("ip_forward", forward)
    host.command("iptables", "-P", "FORWARD", "DROP")
    host.command("iptables", "-N", "DOCKER-USER")
    host.command("iptables", "-A", "FORWARD", "-j", "DOCKER-USER")
    before = host.state()
    with NetworkPool() as pool:
        host.do(pool.start)
        netns = pool.take()
        assert reaches_out(host, netns) == "198.51.100.2"
        assert "-A FORWARD -i pyb0x+ -m comment --comment pybuild_0 -j ACCEPT" in host.command(
            "iptables", "-S"
        )
        os.close(netns)
    assert host.settled(before)


def test_a_firewall_that_lets_through_is_left_alone(host: Host, pool: NetworkPool) -> None:
    host.command("iptables", "-A", "INPUT", "-p", "tcp", "--dport", "1", "-j", "DROP")
    with NetworkPool() as other:
        host.do(other.start)
        os.close(other.take())
        assert "pyb" not in host.command("iptables", "-S", "FORWARD")


def test_nobody_reaches_in(host: Host, pool: NetworkPool) -> None:
    """Neither other steps nor the network behind the uplink may open a connection to a step."""
    first, second = pool.take(), pool.take()
    listening = inside(first, lambda: socket.create_server(("0.0.0.0", PORT)))
    address = inside(first, lambda: _address(first))
    assert isinstance(inside(second, fetch(address, timeout=0.3)), OSError)

    def from_outside() -> Any:
        route = Route()
        route.route(to=socket.inet_aton(address), via=HOST)
        route.close()
        return fetch(address, timeout=0.3)()

    assert isinstance(inside(host.outside, from_outside), OSError)
    assert not select.select([listening], [], [], 0)[0]
    listening.close()
    os.close(first)
    os.close(second)


def _address(netns: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("198.51.100.1", 9))
        return str(probe.getsockname()[0])


def test_two_builders(host: Host) -> None:
    before = host.state()
    with NetworkPool() as one:
        host.do(one.start)
        with NetworkPool() as other:
            host.do(other.start)
            spaces = one.take(), other.take()
            assert {one.gateway(), other.gateway()} == {"10.213.0.1", "10.213.1.1"}
            assert [reaches_out(host, netns) for netns in spaces] == ["198.51.100.2"] * 2
        assert reaches_out(host, spaces[0]) == "198.51.100.2"  # the first to leave switches nothing off
        for netns in spaces:
            os.close(netns)
    assert host.settled(before)


def test_addresses_that_are_routed_elsewhere_are_avoided(host: Host) -> None:
    host.command("ip", "route", "add", "10.213.0.0/16", "via", "198.51.100.1")
    with NetworkPool() as pool:
        host.do(pool.start)
        assert pool.gateway() == "10.117.0.1"


def test_after_kill_9_the_next_builder_cleans_up(host: Host) -> None:
    """SECURITY.md R04."""
    host.command("iptables", "-P", "FORWARD", "DROP")
    before = host.state()
    code = (
        "import time; from builder.sandbox.network import NetworkPool\n"
        "pool = NetworkPool(); fd = pool.take(); print(pool.gateway(), flush=True); time.sleep(100)\n"
    )
    builder = host.do(
        lambda: subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    )
    assert builder.stdout.readline() == "10.213.0.1\n"
    assert "pyb0x" in host.state()
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    builder.stdout.close()
    deadline = time.monotonic() + 60
    while "pyb0x1" in host.command("ip", "-br", "link") and time.monotonic() < deadline:
        time.sleep(0.02)
    left = host.command("nft", "list", "tables")
    assert "pybuild_0" not in left  # the kernel's part
    with NetworkPool() as pool:
        host.do(pool.start)
        netns = pool.take()
        assert host.command("iptables", "-S", "FORWARD").count("pybuild_") == 2
        assert reaches_out(host, netns) == "198.51.100.2"
        os.close(netns)
    assert host.settled(before)


def test_many_namespaces_use_addresses_again(host: Host, pool: NetworkPool) -> None:
    held = pool.take()
    for _ in range(300):
        os.close(pool.take())
    assert reaches_out(host, held) == "198.51.100.2"
    os.close(held)
    begun = time.monotonic()
    links = lambda: host.command("ip", "-br", "link").count("pyb")  # noqa: E731
    while links() > 4 and time.monotonic() - begun < 60:
        time.sleep(0.05)
    assert links() <= 4


def test_a_host_without_any_route(host: Host) -> None:
    host.command("ip", "route", "del", "default")
    with NetworkPool() as pool:
        host.do(pool.start)
        netns = pool.take()
        server = host.do(lambda: socket.create_server((pool.gateway(), 9000)))
        assert isinstance(inside(netns, fetch(timeout=0.3)), OSError)
        threading.Thread(target=lambda: server.accept()[0].close()).start()
        assert inside(netns, fetch(pool.gateway(), 9000)) == b""
        server.close()
        os.close(netns)


def test_what_cannot_be_had_is_named(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(95, "make nftables table pybuild_0: Operation not supported")

    monkeypatch.setattr(nft.Nft, "make_table", refuse)
    with NetworkPool() as pool:
        host.do(pool.start)
        with pytest.raises(OSError, match="make nftables table"):
            pool.take()
        with pytest.raises(OSError, match="make nftables table"):
            pool.gateway()


def test_nothing_leaks(host: Host) -> None:
    def use() -> None:
        with NetworkPool() as pool:
            host.do(pool.start)
            os.close(pool.take())

    use()
    before = descriptors()
    for _ in range(5):
        use()
    no_descriptor_more_than(before)


def test_the_relay_for_names(host: Host, pool: NetworkPool) -> None:
    """A resolver on the host's loopback answers a step, by UDP and TCP."""

    def resolver() -> tuple[socket.socket, socket.socket]:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.53", 5353))
        return udp, socket.create_server(("127.0.0.53", 5353))

    udp, tcp = host.do(resolver)
    netns, address = pool.take(), pool.gateway()
    relay = host.do(lambda: Relay(socket.inet_aton(address), ["127.0.0.53"], upstream_port=5353))

    def answer() -> None:
        query, client = udp.recvfrom(512)
        udp.sendto(query + b"!", client)
        stream, _ = tcp.accept()
        stream.sendall(stream.recv(512) + b"?")
        stream.close()

    answering = threading.Thread(target=answer)
    answering.start()

    def ask() -> tuple[bytes, bytes]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
            query.settimeout(30)
            query.sendto(b"query", (address, 53))
            first = query.recv(512)
        with socket.create_connection((address, 53), 30) as stream:
            stream.sendall(b"stream")
            return first, stream.recv(512)

    assert inside(netns, ask) == (b"query!", b"stream?")
    answering.join()
    relay.close()
    udp.close()
    tcp.close()
    os.close(netns)


ORDINARY = 54322
ROOTLESS = """
import json, os, socket, sys, time
from builder.sandbox import syscalls, userns
userns.enter(userns.single(os.getuid(), os.getgid()))
from builder.sandbox import uplink
from builder.sandbox.network import NetworkPool
program, uplink._PROGRAMS = sys.argv[1], [each for each in uplink._PROGRAMS if each[0] == sys.argv[1]]

def attempt(address, port, seconds=2):
    try:
        with socket.create_connection((address, port), seconds) as connection:
            return connection.recv(100).decode()
    except OSError as error:
        return f"{error} Error"

def ask(resolver):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        query.settimeout(1)
        for _ in range(60):
            query.sendto(b"question", (resolver, 53))
            try:
                return query.recv(100).decode()
            except TimeoutError:
                continue
    return "no answer"

with NetworkPool(rootless=True) as pool:
    netns, other = pool.take(), pool.take()
    text = pool.resolv_conf().decode()
    print(json.dumps([pool.gateway(), text]), flush=True)
    syscalls.setns(netns, syscalls.CLONE_NEWNET)
    gateways = [pool.gateway(), "10.0.2.2", "198.51.100.1"]
    print(json.dumps([
        attempt("198.51.100.1", 8000, 60), [attempt(each, 8001) for each in gateways], ask(text.split()[1]),
        sorted(os.listdir("/sys/class/net")) if os.path.isdir("/sys/class/net") else [],
    ]), flush=True)
    if len(sys.argv) > 2:
        time.sleep(100)
"""


@pytest.fixture
def ordinary(host: Host, tmp_path: Any) -> Callable[..., subprocess.Popen[str]]:
    """A builder that is an ordinary user of `host`, with /dev/net/tun as distributions have it."""
    resolv, tun = tmp_path / "resolv.conf", tmp_path / "tun"
    resolv.write_text("nameserver 127.0.0.1\nsearch example.test\n")
    tmp_path.chmod(0o755)
    os.mknod(tun, 0o020666, os.makedev(10, 200))
    os.chmod(tun, 0o666)

    def start(*words: str, code: str = ROOTLESS) -> subprocess.Popen[str]:
        where = f"mount --bind {tun} /dev/net/tun && mount --bind {resolv} /etc/resolv.conf && exec "
        who = f"setpriv --reuid {ORDINARY} --regid {ORDINARY} --clear-groups "
        argv = [
            "unshare",
            "-m",
            "sh",
            "-c",
            where + who + '"$@"',
            "sh",
            sys.executable,
            "-c",
            code,
            *words,
        ]
        env = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONDONTWRITEBYTECODE": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        made: Any = host.do(lambda: subprocess.Popen(argv, text=True, env=env, **pipes))
        return made  # type: ignore[no-any-return]

    return start


def _serve_loopback(host: Host) -> tuple[socket.socket, socket.socket]:
    """A service and a resolver on the host's loopback."""

    def listen() -> tuple[socket.socket, socket.socket]:
        secret = socket.create_server(("127.0.0.1", 8001))
        resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        resolver.bind(("127.0.0.1", 53))
        return secret, resolver

    found: tuple[socket.socket, socket.socket] = host.do(listen)
    return found


def _answer(resolver: socket.socket, done: threading.Event) -> None:
    while not done.is_set():
        if not select.select([resolver], [], [], 0.05)[0]:
            continue
        question, asker = resolver.recvfrom(100)
        resolver.sendto(b"answer to " + question, asker)


@pytest.mark.parametrize("program", ["pasta", "slirp4netns"])
def test_an_ordinary_user_has_a_way_out(
    host: Host, ordinary: Callable[..., subprocess.Popen[str]], program: str
) -> None:
    import json

    before = host.state()
    secret, resolver = _serve_loopback(host)
    builder = ordinary(program)
    peers: list[str] = []
    accepting = threading.Thread(target=lambda: peers.append(host.peer()), daemon=True)
    assert builder.stdout is not None and builder.stderr is not None
    first = builder.stdout.readline()
    assert first, builder.stderr.read()
    gateway, text = json.loads(first)
    accepting.start()
    done = threading.Event()
    answering = threading.Thread(target=_answer, args=(resolver, done), daemon=True)
    answering.start()
    got, loopback, answer, _ = json.loads(builder.stdout.readline())
    accepting.join()
    assert builder.wait(60) == 0, builder.stderr.read()
    builder.stdout.close()
    builder.stderr.close()
    assert gateway == "10.213.0.1" and text.endswith("search example.test\n")
    assert (got, peers) == ("from outside\n", ["198.51.100.2"])
    assert answer == "answer to question", "the host's resolver answers, though it listens on loopback"
    assert all(each.endswith("Error") for each in loopback), loopback
    assert not select.select([secret], [], [], 0)[0], "nothing of a step reaches the host's loopback"
    secret.close()
    done.set()
    answering.join()
    resolver.close()
    assert host.settled(before)


BY_SIX = f"""
{ROOTLESS.partition("def ask")[0]}
with NetworkPool(rootless=True) as pool:
    netns = pool.take()
    syscalls.setns(netns, syscalls.CLONE_NEWNET)
    print(attempt("2001:db8::1", {PORT + 1}, 60))
"""


@pytest.mark.parametrize("program", ["pasta", "slirp4netns"])
def test_an_ordinary_user_has_ipv6(
    host: Host, ordinary: Callable[..., subprocess.Popen[str]], program: str
) -> None:
    if not os.path.exists(SWITCH_SIX.replace("up0", "all")):
        pytest.skip(
            "this kernel forwards IPv6 for all interfaces or for none (net.ipv6.conf.*.force_forwarding)"
        )
    seen: list[str] = []
    with _give_six(host, "0") as server:
        serving = threading.Thread(target=_serve_once, args=(server, seen))
        serving.start()
        told, said = ordinary(program, code=BY_SIX).communicate(timeout=120)
        serving.join()
    assert (told, seen) == ("by six\n\n", ["2001:db8::2"]), said


@pytest.mark.parametrize("program", ["pasta", "slirp4netns"])
def test_a_killed_ordinary_builder_leaves_no_program(
    host: Host, ordinary: Callable[..., subprocess.Popen[str]], program: str
) -> None:
    builder = ordinary(program, "stay")
    assert builder.stdout is not None and builder.stderr is not None
    assert builder.stdout.readline(), builder.stderr.read()
    assert _running(program)
    builder.kill()
    builder.wait()
    deadline = time.monotonic() + 60
    while _running(program) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _running(program)
    builder.stdout.close()
    builder.stderr.close()


def _running(program: str) -> list[str]:
    """Processes of that name that belong to the ordinary user or to nobody."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm") as file:
                name = file.read().strip()
            if name.startswith((program, "passt")) and os.stat(f"/proc/{pid}").st_uid in (ORDINARY, 0, 65534):
                found.append(pid)
        except OSError:
            continue
    return found

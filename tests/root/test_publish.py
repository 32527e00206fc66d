"""Published ports of containers: from a host of the test's own into network namespaces of a pool."""

from __future__ import annotations

import hashlib
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import pytest
from holding import descriptors, held, no_descriptor_more_than, no_more_than
from test_network import Host, _give_six, host, inside, ordinary, pool  # noqa: F401  (fixtures)

from builder.container import flow
from builder.container.publish import Port, Publisher, parse
from builder.errors import UsageError
from builder.sandbox.network import NetworkPool

pytestmark = pytest.mark.root

MIB = 1 << 20
RESET = struct.pack("ii", 1, 0)
Serve = Callable[[socket.socket], None]


class Container:
    """A network namespace with servers in it, and its ports published on the host."""

    def __init__(self, host: Host, pool: NetworkPool) -> None:  # noqa: F811
        self.host, self.netns = host, pool.take()
        self.servers: list[socket.socket] = []

    def listen(
        self, port: int = 80, address: str = "0.0.0.0", serve: Serve | None = None, backlog: int = 128
    ) -> socket.socket:
        """A server in the container; `serve` is called with every connection, in a thread."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def make() -> socket.socket:
            return socket.create_server((address, port), family=family, backlog=backlog)

        server: socket.socket = inside(self.netns, make)
        self.servers.append(server)
        if serve is not None:
            threading.Thread(target=_accept, args=(server, serve), daemon=True).start()
        return server

    @contextmanager
    def published(self, *texts: str, start: bool = True, **more: Any) -> Iterator[Publisher]:
        made: Publisher = self.host.do(lambda: Publisher(self.netns, parse(texts), **more))
        with made:
            if start:
                made.start()
            yield made

    def connect(self, port: Port, address: str = "") -> socket.socket:
        """A client on the host."""
        where = address or {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(port.host_ip, port.host_ip)
        made: socket.socket = self.host.do(lambda: socket.create_connection((where, port.host_port), 60))
        return made

    def datagrams(self, port: Port, address: str = "127.0.0.1") -> socket.socket:
        def make() -> socket.socket:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            client = socket.socket(family, socket.SOCK_DGRAM)
            client.settimeout(60)
            client.connect((address, port.host_port))
            return client

        made: socket.socket = self.host.do(make)
        return made

    def close(self) -> None:
        for server in self.servers:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)  # else a thread would wait in accept(2) for ever
            server.close()
        os.close(self.netns)


def _accept(server: socket.socket, serve: Serve) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_with, args=(connection, serve), daemon=True).start()


def _with(connection: socket.socket, serve: Serve) -> None:
    with connection, suppress(OSError):  # clients may leave at any time
        serve(connection)


@pytest.fixture
def container(host: Host, pool: NetworkPool) -> Iterator[Container]:  # noqa: F811
    with closing(Container(host, pool)) as made:
        until(lambda: len(pool._ready) == 3)  # descriptors are counted here
        yield made


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def received(connection: socket.socket) -> bytes:
    """All that comes before the end."""
    return b"".join(iter(lambda: connection.recv(MIB), b""))


def exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (data := connection.recv(size - len(found))):
        found += data
    return found


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_from_every_address_of_the_host(container: Container) -> None:
    container.listen(serve=echo)
    with container.published("80") as publisher:
        four, six = publisher.bound
        assert (four.host_ip, six.host_ip, four.host_port) == ("0.0.0.0", "::", six.host_port)
        for port, address in ((four, "127.0.0.1"), (four, "198.51.100.2"), (six, "::1")):
            with container.connect(port, address) as client:
                for text in (b"first", b"second"):
                    client.sendall(text)
                    assert exactly(client, len(text)) == text


def test_one_address_only(container: Container) -> None:
    container.listen(serve=echo)
    with container.published("198.51.100.2:8080:80") as publisher:
        assert [str(port) for port in publisher.bound] == ["198.51.100.2:8080->80/tcp"]
        container.connect(publisher.bound[0]).close()
        with pytest.raises(ConnectionRefusedError):
            container.connect(publisher.bound[0], "127.0.0.1")


@pytest.mark.parametrize("pipes", [True, False])
def test_large_streams_both_ways(container: Container, monkeypatch: pytest.MonkeyPatch, pipes: bool) -> None:
    """Without pipes too, as when there are no descriptors for them."""
    if not pipes:
        monkeypatch.setattr(flow.Pipes, "take", lambda self: None)
    there, sums = os.urandom(MIB) * 32, []

    def serve(connection: socket.socket) -> None:
        sending = threading.Thread(target=_send, args=(connection, there))
        sending.start()
        sums.append(hashlib.sha256(received(connection)).digest())
        sending.join()

    container.listen(serve=serve)
    with container.published("80") as publisher, container.connect(publisher.bound[0]) as client:
        back = os.urandom(MIB) * 32
        sending = threading.Thread(target=_send, args=(client, back))
        sending.start()
        assert hashlib.sha256(received(client)).digest() == hashlib.sha256(there).digest()
        sending.join()
        until(lambda: sums)
        assert sums == [hashlib.sha256(back).digest()]


def _send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def test_the_end_of_one_direction_is_passed_on(container: Container) -> None:
    container.listen(serve=lambda connection: connection.sendall(b"got " + received(connection)))
    with container.published("80") as publisher, container.connect(publisher.bound[0]) as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert received(client) == b"got question"


def test_the_server_ends_first(container: Container) -> None:
    got: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_WR)
        got.append(received(connection))

    container.listen(serve=serve)
    with container.published("80") as publisher, container.connect(publisher.bound[0]) as client:
        assert received(client) == b""
        client.sendall(b"still heard")
        client.close()
        until(lambda: got)
        assert got == [b"still heard"]


def test_nobody_listens(container: Container) -> None:
    """The client hears of it at once. What listens on the container's loopback is not published."""
    container.listen(address="127.0.0.1", serve=echo)
    with container.published("80") as publisher:
        for port in publisher.bound:
            with pytest.raises(ConnectionResetError), container.connect(port) as client:
                client.recv(1)


def test_a_reset_is_passed_on(container: Container) -> None:
    server = container.listen()
    with container.published("80") as publisher:
        for breaker in (0, 1):
            with container.connect(publisher.bound[0]) as client:
                connection, _ = server.accept()
                with connection:
                    client.sendall(b"x")
                    assert connection.recv(1) == b"x"
                    ends = (client, connection)
                    ends[breaker].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    ends[breaker].close()
                    with pytest.raises(ConnectionResetError):
                        ends[1 - breaker].recv(1)


def test_a_server_that_has_heard_enough_is_heard(container: Container) -> None:
    """It answers and closes without reading the rest: the answer comes through."""
    server = container.listen()
    with container.published("80") as publisher, container.connect(publisher.bound[0]) as client:
        connection, _ = server.accept()
        client.sendall(b"x" * 1000)
        assert connection.recv(10)
        connection.sendall(b"413 too large")
        until(lambda: select.select([client], [], [], 0)[0])
        connection.close()
        assert exactly(client, 13) == b"413 too large"


def test_who_does_not_read_stops_nobody_else(container: Container) -> None:
    """And is not read for: the sender has to wait."""
    server = container.listen()
    with container.published("80") as publisher, container.connect(publisher.bound[0]) as client:
        slow, _ = server.accept()
        block, sent = os.urandom(MIB), 0
        client.settimeout(0.5)
        digest = hashlib.sha256()
        while sent < 256 * MIB:
            try:
                size = client.send(block)
            except TimeoutError:
                break
            digest.update(block[:size])
            sent += size
        assert 0 < sent < 256 * MIB
        with container.connect(publisher.bound[0]) as other:
            quick, _ = server.accept()
            other.sendall(b"ping")
            assert quick.recv(10) == b"ping"
            quick.close()
        client.shutdown(socket.SHUT_WR)
        with slow:
            assert hashlib.sha256(received(slow)).digest() == digest.digest()


def test_what_was_for_one_never_reaches_another(container: Container) -> None:
    """Not even what was on its way when a connection broke, in pipes that are used again."""
    server = container.listen()
    with container.published("80") as publisher:
        for _ in range(8):
            with container.connect(publisher.bound[0]) as client:
                stuck, _ = server.accept()
                client.setblocking(False)
                with pytest.raises(BlockingIOError):
                    while select.select([], [client], [], 0.05)[1] or client.send(b"s"):
                        client.send(b"secret" * 10000)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                client.close()
                stuck.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                stuck.close()
        for _ in range(8):
            with container.connect(publisher.bound[0]) as client:
                connection, _ = server.accept()
                with connection:
                    client.sendall(b"mine")
                    client.shutdown(socket.SHUT_WR)
                    assert received(connection) == b"mine"


def test_many_at_once(container: Container) -> None:
    container.listen(serve=echo, backlog=1000)
    with container.published("80") as publisher, ExitStack() as stack:
        port = publisher.bound[0]
        clients = [stack.enter_context(container.connect(port)) for _ in range(300)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
        for number, client in enumerate(clients):
            text = b"%d" % number
            assert exactly(client, len(text)) == text
        assert len([each for each in threading.enumerate() if each.name == "ports"]) == 1


def test_clients_that_come_early_wait(container: Container) -> None:
    with container.published("80", start=False) as publisher:
        with container.connect(publisher.bound[0]) as client:
            client.sendall(b"early")
            container.listen(serve=echo)
            publisher.start()
            assert exactly(client, 5) == b"early"


def test_ranges(container: Container) -> None:
    def number(connection: socket.socket) -> None:
        connection.sendall(b"%d" % connection.getsockname()[1])

    for port in (80, 81, 82):
        container.listen(port, serve=number)
    with container.published("8000-8002:80-82") as publisher:
        for port in publisher.bound:
            with container.connect(port) as client:
                assert received(client) == b"%d" % (port.host_port - 7920)
        with container.published("8000-8009:80") as other:
            assert {port.host_port for port in other.bound} == {8003}
        with pytest.raises(UsageError, match=r"0\.0\.0\.0:8000-8002 failed: all ports are allocated"):
            with container.published("8000-8002:80"):
                pass


def test_what_is_taken(container: Container) -> None:
    with container.published("8001:80", "5353:53/udp"):
        with pytest.raises(UsageError, match=r"0\.0\.0\.0:8001 failed: port is already allocated"):
            with container.published("8000:80", "8001:80"):
                pass
        with pytest.raises(UsageError, match=r"127\.0\.0\.1:5353 failed: port is already allocated"):
            with container.published("127.0.0.1:5353:53/udp"):
                pass
        with container.published("8000:80", "5353:53"):
            pass  # what failed left nothing behind; another protocol has ports of its own
    with container.published("[::1]:8001:80"):
        with pytest.raises(UsageError, match=r"\[::\]:8001 failed: port is already allocated"):
            with container.published("8001:80"):
                pass
    with pytest.raises(UsageError, match=r"192\.0\.2\.9:8001 failed: no interface of this machine has this"):
        with container.published("192.0.2.9:8001-8009:80"):
            pass


def test_no_namespace_of_a_network(container: Container) -> None:
    with open("/proc/self/ns/uts") as file:
        made: Publisher = container.host.do(lambda: Publisher(file.fileno(), parse(["80"])))
    with made, pytest.raises(OSError, match="setns"):
        made.start()


def _answering(server: socket.socket) -> None:
    """Answer each datagram with who sent it, as seen here, and what it was."""
    while True:
        try:
            data, peer = server.recvfrom(65536)
        except OSError:
            return
        if peer is None:  # it was shut down
            return
        if data != b"silence":
            server.sendto(b"%d:" % peer[1] + data, peer)


def _udp_server(container: Container) -> socket.socket:
    def make() -> socket.socket:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("0.0.0.0", 53))
        return server

    server: socket.socket = inside(container.netns, make)
    container.servers.append(server)
    threading.Thread(target=_answering, args=(server,), daemon=True).start()
    return server


def _ask(client: socket.socket, text: bytes) -> bytes:
    """Who asked, as the server saw it."""
    client.send(text)
    who, _, what = client.recv(65536).partition(b":")
    assert what == text
    return who


def test_datagrams_of_several_clients(container: Container) -> None:
    _udp_server(container)
    with container.published("53/udp") as publisher:
        four, six = publisher.bound
        with ExitStack() as stack:
            addresses = ("127.0.0.1", "127.0.0.1", "198.51.100.2", "::1")
            clients = [
                stack.enter_context(container.datagrams(six if ":" in each else four, each))
                for each in addresses
            ]
            seen = [_ask(client, os.urandom(20000 * at)) for at, client in enumerate(clients)]
            assert len(set(seen)) == 4
            assert [_ask(client, b"again") for client in clients] == seen


def test_the_answer_comes_from_the_address_that_was_asked(container: Container) -> None:
    """Not from that of the interface it leaves by."""
    _udp_server(container)
    container.host.command("ip", "address", "add", "198.51.100.77/24", "dev", "up0")
    with container.published("53/udp") as publisher:
        port = publisher.bound[0].host_port

        def make() -> socket.socket:
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.settimeout(60)
            client.connect(("198.51.100.77", port))
            return client

        with inside(container.host.outside, make) as client:
            assert _ask(client, b"question")


def test_a_silent_client_is_forgotten(container: Container) -> None:
    _udp_server(container)
    with container.published("53/udp", idle_s=0.2) as publisher:
        with container.datagrams(publisher.bound[0]) as client:
            before = descriptors()
            first = _ask(client, b"one")  # one more is open now, but perhaps not for long enough to be seen
            no_descriptor_more_than(before)
            assert _ask(client, b"two") != first


def test_there_is_a_limit_of_clients(container: Container) -> None:
    _udp_server(container)
    with container.published("53/udp", most=3) as publisher, ExitStack() as stack:
        port = publisher.bound[0]
        clients = [stack.enter_context(container.datagrams(port)) for _ in range(8)]
        before = descriptors()
        seen = [_ask(client, b"x") for client in clients]
        until(lambda: len(descriptors() - before) == 3)
        assert _ask(clients[5], b"y") == seen[5]
        assert _ask(clients[0], b"y") != seen[0]
        assert _ask(clients[5], b"z") == seen[5], "who was silent for longest was forgotten, and nobody else"


def test_datagrams_nobody_wants(container: Container) -> None:
    """They are lost, and later ones are not."""
    with container.published("53/udp") as publisher:
        with container.datagrams(publisher.bound[0]) as client:
            client.settimeout(0.2)
            client.send(b"lost")
            with pytest.raises(TimeoutError):
                client.recv(10)
            client.settimeout(60)
            _udp_server(container)
            assert _ask(client, b"found")


def test_a_server_of_ipv6(host: Host) -> None:  # noqa: F811
    """One that has no IPv4 is found, at the container's global address."""
    _give_six(host).close()

    def serve(connection: socket.socket) -> None:
        connection.sendall(connection.getpeername()[0].encode())

    with NetworkPool() as six:
        host.do(six.start)
        with closing(Container(host, six)) as container:
            container.listen(address="::", serve=serve)
            with container.published("80") as publisher:
                for port in publisher.bound:
                    with container.connect(port) as client:
                        assert received(client).startswith(b"fd6c:7079:6275")
                container.listen(serve=serve)
                for port, seen in zip(publisher.bound, (b"10.213.", b"fd6c:"), strict=True):
                    with container.connect(port) as client:
                        assert received(client).startswith(seen), "as the client came, if it can be had"


@pytest.mark.parametrize("begun", [True, False])
def test_nothing_stays(container: Container, begun: bool) -> None:
    """Neither descriptors nor threads, though connections are in full flow and some are stuck."""
    server = container.listen(serve=None)
    before = held()
    with container.published("8000:80", "53:53/udp", start=begun) as publisher, ExitStack() as stack:
        tcp, udp = publisher.bound[0], publisher.bound[2]
        for number in range(20):
            client = stack.enter_context(container.connect(tcp))
            client.setblocking(False)
            if number % 2 and begun:
                stack.enter_context(server.accept()[0])
                with pytest.raises(BlockingIOError):
                    while True:
                        client.send(bytes(MIB))
        stack.enter_context(container.datagrams(udp)).send(b"x")
        time.sleep(0.1)
    no_more_than(before)
    publisher.close()
    with container.published("8000:80", "53:53/udp"):
        pass


FEW = """
import os, resource, sys
from builder.container.publish import Publisher, parse
with Publisher(int(sys.argv[1]), parse(["8000:80", "5353:53/udp"])) as publisher:
    publisher.start()
    most = max(map(int, os.listdir("/proc/self/fd"))) + 12
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print("ready", flush=True)
    sys.stdin.read()
    print(len(os.listdir("/proc/self/fd")) < most, flush=True)
"""


def test_descriptors_run_out(container: Container) -> None:
    """Who is connected is served, who comes next waits until somebody has gone, and datagrams come back."""
    container.listen(serve=echo)
    _udp_server(container)
    env = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, "-c", FEW, str(container.netns)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "pass_fds": (container.netns,)}
    process = container.host.do(lambda: subprocess.Popen(argv, text=True, env=env, **pipes))
    port = Port("127.0.0.1", 8000, 80, "tcp")
    with process, ExitStack() as stack:
        assert process.stdout.readline() == "ready\n"
        clients = [stack.enter_context(container.connect(port)) for _ in range(20)]
        for client in clients:
            client.sendall(b"hello")
        done = 0
        waiting = set(clients)
        while waiting:
            served = select.select(list(waiting), [], [], 60)[0]
            assert served, f"{done} of 20 were served"
            for client in served:
                assert exactly(client, 5) == b"hello"
                client.close()
                waiting.remove(client)
                done += 1
        with container.datagrams(Port("127.0.0.1", 5353, 53, "udp")) as datagrams:
            assert _ask(datagrams, b"after all")
        process.stdin.close()
        assert process.stdout.read() == "True\n"
        assert process.wait(60) == 0


ROOTLESS = """
import os, socket, sys, threading
from builder.sandbox import syscalls, userns
userns.enter(userns.single(os.getuid(), os.getgid()))
from builder.container.publish import Publisher, parse
from builder.sandbox.network import NetworkPool

def serve(netns, ready):
    syscalls.setns(netns, syscalls.CLONE_NEWNET)
    server = socket.create_server(("0.0.0.0", 80))
    ready.set()
    while True:
        connection, _ = server.accept()
        connection.sendall(b"got " + connection.recv(100))
        connection.close()

with NetworkPool(rootless=True) as pool:
    netns, ready = pool.take(), threading.Event()
    threading.Thread(target=serve, args=(netns, ready), daemon=True).start()
    ready.wait()
    try:
        Publisher(netns, parse(["81:80"]))
    except Exception as error:
        print(error)
    with Publisher(netns, parse(["8000:80"])) as publisher:
        publisher.start()
        print(*publisher.bound, flush=True)
        threading.Event().wait(60)
    os._exit(0)
"""


def test_an_ordinary_user_publishes(
    host: Host,  # noqa: F811
    ordinary: Callable[..., subprocess.Popen[str]],  # noqa: F811
) -> None:
    process = ordinary("slirp4netns", code=ROOTLESS)
    assert process.stdout is not None and process.stderr is not None
    refused = process.stdout.readline()
    assert refused == "Bind for 0.0.0.0:81 failed: permission denied\n", process.stderr.read()
    assert process.stdout.readline() == "0.0.0.0:8000->80/tcp [::]:8000->80/tcp\n"
    for address in ("127.0.0.1", "198.51.100.2", "::1"):
        with host.do(lambda at=address: socket.create_connection((at, 8000), 60)) as client:
            client.sendall(b"question")
            assert received(client) == b"got question"
    process.kill()
    process.communicate(timeout=60)

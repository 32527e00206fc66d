"""What `-p`, `-P` and lists of containers say of ports."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.container.ports import Port, exposed, listed, parse
from builder.errors import UsageError

PORTS = st.integers(1, 65535)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [Port("", 0, 80, "tcp")]),
        ("80/udp", [Port("", 0, 80, "udp")]),
        ("80/TCP", [Port("", 0, 80, "tcp")]),
        ("8080:80", [Port("", 8080, 80, "tcp")]),
        (":80", [Port("", 0, 80, "tcp")]),
        ("0:80", [Port("", 0, 80, "tcp")]),
        ("127.0.0.1:8080:80", [Port("127.0.0.1", 8080, 80, "tcp")]),
        ("127.0.0.1::80", [Port("127.0.0.1", 0, 80, "tcp")]),
        ("[::1]:8080:80/udp", [Port("::1", 8080, 80, "udp")]),
        ("[::1]::80", [Port("::1", 0, 80, "tcp")]),
        ("::1:8080:80", [Port("::1", 8080, 80, "tcp")]),
        ("[0:0::1]:8080:80", [Port("::1", 8080, 80, "tcp")]),
        ("8000-8001:80-81", [Port("", 8000, 80, "tcp"), Port("", 8001, 81, "tcp")]),
        ("80-81", [Port("", 0, 80, "tcp"), Port("", 0, 81, "tcp")]),
        ("8000-8010:80", [Port("", 8000, 80, "tcp", 8010)]),
        ("8000-8000:80", [Port("", 8000, 80, "tcp")]),
    ],
)
def test_forms(text: str, expected: list[Port]) -> None:
    assert list(parse([text])) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the container's port is missing"),
        ("8080:", "the container's port is missing"),
        ("0", "0 is no port"),
        ("65536", "65536 is no port"),
        ("8080:0", "0 is no port"),
        ("70000:80", "70000 is no port"),
        ("82-80", "82-80 is no port"),
        ("80-", "'80-' is no port"),
        ("-80", "'-80' is no port"),
        ("+80", "'+80' is no port"),
        ("٨٠", "is no port"),
        ("http", "'http' is no port"),
        ("8000-8005:80-84", "8000-8005 and 80-84 are of different length"),
        ("8000:80-81", "of different length"),
        ("0-3:80", "of different length"),
        ("80/icmp", "'icmp' is no protocol"),
        ("80/", "'' is no protocol"),
        ("80/tcp/udp", "'tcp/udp' is no protocol"),
        ("80/sctp", "sctp cannot be published"),
        ("localhost:8080:80", "'localhost' is no IP address"),
        ("1.2.3:8080:80", "'1.2.3' is no IP address"),
        ("127.0.0.1:80", "127.0.0.1::80"),
        ("[::1]:80", "[::1]::80"),
        ("[::1:8080:80", "is no IP address"),
    ],
)
def test_what_is_no_port(text: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(["443", text])
    assert why in str(caught.value)
    assert f"-p {text}:" in str(caught.value)
    assert caught.value.hint


def test_the_same_twice_is_once() -> None:
    assert parse(["80:80", "443", "80:80/tcp"]) == (Port("", 80, 80, "tcp"), Port("", 0, 443, "tcp"))


def test_what_an_image_exposes() -> None:
    ports = exposed(["443/tcp", "53/udp", "8000-8001", "80"], besides=parse(["8080:80"]))
    assert {port.inside for port in ports} == {"443/tcp", "53/udp", "8000/tcp", "8001/tcp"}
    assert {port.host_port for port in ports} == {0}


def test_lists_are_worded_as_dockers() -> None:
    bound = [Port(address, 8000 + at, 80 + at, "tcp") for at in range(3) for address in ("0.0.0.0", "::")] + [
        Port("127.0.0.1", 5353, 53, "udp")
    ]
    assert listed(bound, ["80/tcp", "443/tcp"]) == (
        "0.0.0.0:8000-8002->80-82/tcp, [::]:8000-8002->80-82/tcp, 127.0.0.1:5353->53/udp, 443/tcp"
    )
    assert listed([]) == ""
    assert str(Port("::", 8000, 80, "tcp")) == "[::]:8000->80/tcp"


@given(
    st.one_of(st.just(""), st.ip_addresses().map(str)),
    st.one_of(st.just(0), PORTS),
    PORTS,
    st.sampled_from(["tcp", "udp"]),
)
def test_what_is_written_is_read(address: str, outside: int, inside: int, protocol: str) -> None:
    shown = f"[{address}]:" if ":" in address else f"{address}:" if address else ""
    assert parse([f"{shown}{outside or ''}:{inside}/{protocol}"]) == (
        Port(address, outside, inside, protocol),  # type: ignore[arg-type]
    )


@given(PORTS, PORTS, st.integers(0, 300))
def test_ranges_are_pairs(outside: int, inside: int, more: int) -> None:
    more = min(more, 65535 - outside, 65535 - inside)
    found = parse([f"{outside}-{outside + more}:{inside}-{inside + more}"])
    pairs = [(outside + at, inside + at) for at in range(more + 1)]
    assert [(port.host_port, port.container_port) for port in found] == pairs


@given(st.text(alphabet="0189:-/.[]abtcpud ", max_size=20))
def test_anything_is_ports_or_an_error(text: str) -> None:
    try:
        found = parse([text])
    except UsageError:
        return
    for port in found:
        assert 1 <= port.container_port <= 65535
        assert 0 <= port.host_port <= 65535
        assert not port.host_ip or ipaddress.ip_address(port.host_ip)

"""Words of the command line that only containers have: signals, capabilities, keys, names."""

from __future__ import annotations

import signal

import pytest

from builder.container.client import detach_keys
from builder.container.model import RunRequest
from builder.container.names import random_name
from builder.container.operation import argv_of, capabilities, known_capabilities
from builder.container.signals import number_of
from builder.container.store import NAME
from builder.errors import UsageError
from builder.sandbox.spec import DEFAULT_CAPABILITIES
from oci.model import RunConfig


@pytest.mark.parametrize(
    ("text", "number"),
    [("KILL", 9), ("SIGKILL", 9), ("kill", 9), ("9", 9), (" term ", 15), ("RTMIN+3", signal.SIGRTMIN + 3)],
)
def test_signals(text: str, number: int) -> None:
    assert number_of(text) == number


@pytest.mark.parametrize("text", ["", "NOPE", "0", "65", "KILL+1x", "RTMIN+99", "SIG", "-9", "_DFL"])
def test_no_signals(text: str) -> None:
    with pytest.raises(UsageError, match="is no signal"):
        number_of(text)


@pytest.mark.parametrize(
    ("text", "keys"),
    [("ctrl-p,ctrl-q", b"\x10\x11"), ("a,b", b"ab"), ("ctrl-@,ctrl-_", b"\x00\x1f"), ("", b"")],
)
def test_keys(text: str, keys: bytes) -> None:
    assert detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ab", "a,,b", "é"])
def test_no_keys(text: str) -> None:
    with pytest.raises(UsageError, match="is no key"):
        detach_keys(text)


def test_capabilities() -> None:
    def of(*, add: tuple[str, ...] = (), drop: tuple[str, ...] = ()) -> frozenset[str]:
        request = RunRequest(
            added=known_capabilities("--cap-add", add), dropped=known_capabilities("--cap-drop", drop)
        )
        return capabilities(DEFAULT_CAPABILITIES, request)

    assert of() == DEFAULT_CAPABILITIES
    assert of(add=("cap_net_admin", "SYS_TIME")) == DEFAULT_CAPABILITIES | {"NET_ADMIN", "SYS_TIME"}
    assert of(drop=("CHOWN",)) == DEFAULT_CAPABILITIES - {"CHOWN"}
    assert of(drop=("ALL",), add=("chown",)) == {"CHOWN"} and of(drop=("all",)) == frozenset()
    assert "SYS_ADMIN" in of(add=("ALL",)) and "CHOWN" not in of(add=("ALL",), drop=("CHOWN",))
    with pytest.raises(UsageError, match="no such capability"):
        of(add=("EVERYTHING",))


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "request_", "argv"),
    [
        (("e",), ("c",), RunRequest(), ("e", "c")),
        (("e",), ("c",), RunRequest(args=("a",)), ("e", "a")),
        (("e",), ("c",), RunRequest(entrypoint="x"), ("x",)),
        (("e",), ("c",), RunRequest(entrypoint="", args=("a",)), ("a",)),
        (None, ("c",), RunRequest(), ("c",)),
    ],
)
def test_programs(
    entrypoint: tuple[str, ...] | None, cmd: tuple[str, ...], request_: RunRequest, argv: tuple[str, ...]
) -> None:
    assert argv_of(request_, RunConfig(entrypoint=entrypoint, cmd=cmd)) == argv


def test_nothing_to_run() -> None:
    with pytest.raises(UsageError, match="no command"):
        argv_of(RunRequest(), RunConfig())


def test_names_are_names() -> None:
    assert all(NAME.match(random_name()) for _ in range(100))

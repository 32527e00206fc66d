"""The relay of names when there is nobody to ask. (An unclosed socket is a warning, and so a failure.)"""

from __future__ import annotations

import gc
import os
import socket
from contextlib import closing

import pytest

from builder.sandbox.dns import Relay

LOOPBACK = bytes((127, 0, 0, 1))
NOBODY = "255.255.255.255"
"""Nobody can connect to it without asking for broadcasts."""


def test_a_resolver_that_cannot_be_asked_leaves_no_socket() -> None:
    with closing(Relay(LOOPBACK, [NOBODY], port=0)) as relay:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
                asker.sendto(b"question", relay._udp.getsockname())
            with socket.create_connection(relay._tcp.getsockname(), 60) as asker:
                assert asker.recv(1) == b"", "it is closed, not forgotten"
        assert len(os.listdir("/proc/self/fd")) == before
    gc.collect()


def test_an_address_in_use_leaves_no_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="in use"):
            Relay(LOOPBACK, [NOBODY], port=taken.getsockname()[1])
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before

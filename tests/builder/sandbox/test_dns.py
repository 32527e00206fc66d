"""The relay of names when there is nobody to ask. (An unclosed socket is a warning, and so a failure.)"""

from __future__ import annotations

import gc
import socket
from contextlib import closing

import pytest
from holding import descriptors, no_descriptor_more_than

from builder.sandbox.dns import Relay

LOOPBACK = bytes((127, 0, 0, 1))
NOBODY = "255.255.255.255"
"""Nobody can connect to it without asking for broadcasts."""


def test_a_resolver_that_cannot_be_asked_leaves_no_socket() -> None:
    with closing(Relay(LOOPBACK, [NOBODY], port=0)) as relay:
        before = descriptors()
        for _ in range(5):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
                asker.sendto(b"question", relay._udp.getsockname())
            with socket.create_connection(relay._tcp.getsockname(), 60) as asker:
                assert asker.recv(1) == b"", "it is closed, not forgotten"
        no_descriptor_more_than(before)
    gc.collect()


def test_an_address_in_use_leaves_no_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        before = descriptors()
        with pytest.raises(OSError, match="in use"):
            Relay(LOOPBACK, [NOBODY], port=taken.getsockname()[1])
        gc.collect()
        no_descriptor_more_than(before)

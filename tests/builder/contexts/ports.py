"""Ports for programs that have to be told which one to listen at."""

from __future__ import annotations

import secrets
import socket


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens at.

    Not one that the kernel gives to connections on their way out: another test's may have it before the
    program does, and whoever waits for the program could even get connected to itself.
    """
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        below = int(file.read().split()[0])
    for _ in range(1000):
        port = 10_000 + secrets.randbelow(max(below - 10_000, 1))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port of 10000 to {below} is free")

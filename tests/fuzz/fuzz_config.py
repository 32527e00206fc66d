"""The configuration file, from its bytes."""

from __future__ import annotations

import os

from builder.config import registries
from builder.errors import UsageError
from oci.errors import InvalidReference
from oci.reference import Reference

SEEDS = (
    b'[registry."docker.io"]\nmirrors = ["127.0.0.1:5000", "m.example/x"]\nfallback = false\n',
    b'[registry."a:5"]\nhttp = true\ninsecure = true\nca = ["/a"]\nkeypair = [{key="a", cert="b"}]\n',
)
WORDS = (
    b"[registry.",
    b'"docker.io"]',
    b"mirrors = [",
    b"keypair = [",
    b"ca = [",
    b"realms = [",
    b"tlsconfigdir",
)


def target(data: bytes) -> None:
    """Any bytes as a file."""
    fd = os.memfd_create("config")
    try:
        os.write(fd, data)
        config = registries(f"/proc/self/fd/{fd}")
    except UsageError as error:
        assert str(error)
        return
    finally:
        os.close(fd)
    for host in list(config.hosts):
        config.host(host)
        config.schemes(host)
        try:
            config.endpoints(Reference.parse(f"{host}/a/b"))
        except InvalidReference:
            continue

"""The table of docs/registry.md names tests that exist, and answers have the specification's error codes."""

from __future__ import annotations

import os
import re

HERE = os.path.dirname(__file__)
DOCUMENT = os.path.join(HERE, "..", "..", "..", "docs", "registry.md")


def test_every_test_of_the_table_exists() -> None:
    with open(DOCUMENT, encoding="utf-8") as file:
        named = re.findall(r"(test_server_\w+\.py)::(test_\w+)", file.read())
    assert len(named) > 50
    for name, function in named:
        with open(os.path.join(HERE, name), encoding="utf-8") as file:
            assert f"\ndef {function}(" in file.read(), f"{name}::{function}"


CODES = {
    "BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED",
    "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
}  # fmt: skip
"""distribution-spec 1.1.1: Error Codes."""


def test_every_refusal_has_a_code_of_the_table() -> None:
    import oci.registry.server

    used = set()
    for directory in oci.registry.server.__path__:
        for name in os.listdir(directory):
            if name.endswith(".py"):
                with open(os.path.join(directory, name), encoding="utf-8") as file:
                    used |= set(re.findall(r"Problem\(\s*(4\d\d|status),\s*\"(\w+)\"", file.read()))
    assert len(used) > 15
    assert {code for _, code in used} <= CODES

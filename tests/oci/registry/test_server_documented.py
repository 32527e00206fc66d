"""The table of docs/registry.md names tests that exist."""

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

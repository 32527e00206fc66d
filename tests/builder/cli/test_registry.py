"""`pybuild registry` from outside. How it serves is tested where the server is; by whom, in tests/interop."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from builder.cli import registry, upstream
from builder.errors import UsageError
from oci.layout import Layout
from oci.registry.config import RegistryConfig
from oci.registry.server.links import Links

Pybuild = Any


@pytest.mark.parametrize("address", ["5000", "127.0.0.1", "host:", "host:x", "host:70000", "::1:5000", ""])
def test_an_address_that_is_none(pybuild: Pybuild, address: str) -> None:
    ran = pybuild("registry", "serve", "--addr", address)
    assert ran.code == 2 and "is no HOST:PORT" in ran.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:5000", ("127.0.0.1", 5000)), ("[::1]:0", ("::1", 0)), (":80", ("", 80))],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert registry._address(text) == expected


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--tls-cert", "/nowhere"], "both a certificate and its key"),
        (["--htpasswd", "/nowhere"], "/nowhere: No such file"),
        (["--proxy", "ftp://host"], "is no registry"),
        (["--proxy", "https://user:secret@host.example"], "is no registry"),
        (["--hostname", "x y"], "is no registry's name"),
    ],
)
def test_options_that_will_not_do(pybuild: Pybuild, args: list[str], said: str) -> None:
    ran = pybuild("registry", "serve", "--addr", "127.0.0.1:0", *args)
    assert ran.code == 2 and said in ran.err and "secret@" not in ran.err.replace("user:secret@host", "")


def test_open_addresses_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    """SECURITY.md S90."""
    registry._greet("http://x", "127.0.0.1:5000", "", "")
    registry._greet("http://x", "[::1]:5000", "", "")
    assert "warning" not in capsys.readouterr().err
    registry._greet("http://x", "0.0.0.0:5000", "", "")
    assert "may push, pull and delete" in capsys.readouterr().err
    registry._greet("http://x", ":5000", "users", "")
    assert "in the clear" in capsys.readouterr().err
    registry._greet("http://x", "0.0.0.0:5000", "users", "cert")
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "host", "prefix", "http"),
    [
        ("https://registry-1.docker.io", "docker.io", "", False),
        ("http://127.0.0.1:5000/", "127.0.0.1:5000", "", True),
        ("r.example/team", "r.example", "team/", None),
    ],
)
def test_the_registry_behind(url: str, host: str, prefix: str, http: bool | None) -> None:
    found = upstream._configured(url, RegistryConfig())
    assert found[:2] == (host, prefix) and found[2].host(host).http is http
    with pytest.raises(UsageError):
        upstream._configured("not/a registry", RegistryConfig())


def test_serve_and_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "builder.cli.main", "registry", "serve", "--addr", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--root", str(tmp_path / "store")], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    port = int(process.stderr.readline().rpartition(":")[2])
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("GET", "/v2/_catalog")
        assert json.loads(connection.getresponse().read()) == {"repositories": []}
    process.send_signal(signal.SIGINT)
    # The signal may come between the answer and its line in the log.
    log, stopping = sorted(process.communicate(timeout=60)[1].splitlines(), key=lambda line: line[0] != "{")
    assert json.loads(log)["target"] == "/v2/_catalog"
    assert stopping == "stopping: running requests may finish" and process.returncode == 0
    assert (tmp_path / "store" / "index.json").exists()


def test_gc_and_rmi_keep_what_clients_pushed(pybuild: Pybuild, rootfs: str) -> None:
    pybuild.ok("import", rootfs, "app:1")
    layout = Layout.open(pybuild.root)
    blob = layout.blobs.write(b"pushed, and no manifest mentions it yet")
    links = Links(layout.root)
    links.add_blob("app", blob)
    links.close()
    pybuild.ok("rmi", "app:1")
    assert blob in layout.blobs and len(list(layout.blobs)) == 1
    assert pybuild.ok("registry", "gc") == ""
    assert blob in layout.blobs
    expected = f"blob app@{blob}\n"
    assert pybuild.ok("registry", "gc", "--older-than", "0", "--dry-run", "--root", pybuild.root) == expected
    assert blob in layout.blobs
    assert pybuild.ok("registry", "gc", "--older-than", "0") == expected
    assert blob not in layout.blobs
    assert os.path.exists(os.path.join(pybuild.root, "registry"))


def test_help_alone(pybuild: Pybuild) -> None:
    assert "serve" in pybuild("registry").out

"""`--offline` asks nothing of the network, whatever it is that a build wants from there (R24).

strace is the judge: it sees every socket of the command and of all that it starts. So that the judge is known
to see, builds are shown to it without the option as well.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from sites import Repository, Site, git_daemon, site
from small_registry import Registry, serving

from oci.layout import Layout
from oci.model import Descriptor
from oci.reference import Reference
from oci.registry.client import Client

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("strace") is None, reason="no strace to see sockets with"),
]

PYBUILD = os.path.join(sysconfig.get_path("scripts"), "pybuild")
_NETWORK = re.compile(r"AF_INET6?\b|AF_NETLINK")


class Shop:
    """A registry, a site, a git repository, and builds that strace watches."""

    def __init__(self, top: Path, registry: Registry, web: Site, git: str, commit: str) -> None:
        self.top = top
        self.registry = registry
        self.web = web
        self.commit = commit
        self.names = {
            "REG": registry.address, "WEB": web.address, "GIT": git, "COMMIT": commit
        }  # fmt: skip
        (top / "context").mkdir()

    def run(self, *args: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        """`pybuild ARGS`, and the calls with which it or a child of it turned to a network."""
        trace = self.top / "trace"
        line = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=%network", "-e", "signal=none"]
        words = [self.spelt(each) for each in args]
        done = subprocess.run(
            [*line, PYBUILD, "--config", "/dev/null", "--root", str(self.top / "store"), *words],
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": os.environ["PATH"], "HOME": str(self.top), "GIT_ALLOW_PROTOCOL": "git"},
        )
        return done, [each for each in trace.read_text().splitlines() if _NETWORK.search(each)]

    def build(self, text: str, *args: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        (self.top / "context/Dockerfile").write_text(self.spelt(text))
        return self.run("build", "-q", *args, str(self.top / "context"))

    def spelt(self, text: str) -> str:
        for name, value in self.names.items():
            text = text.replace(name, value)
        return text


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    repository = Repository(tmp_path / "git", "r.git")
    commit = repository.commit({"a": "1", "Dockerfile": "FROM scratch\nCOPY a /\n"})
    with serving(Registry()) as registry, site() as web, git_daemon(tmp_path / "git") as daemon:
        web.files["f"] = b"content"
        web.headers["f"] = {"ETag": '"1"'}
        web.files["Dockerfile"] = b"FROM scratch\nENV A=1\n"
        _publish(tmp_path, f"{registry.address}/base:1")
        yield Shop(tmp_path, registry, web, f"git://{daemon}/r.git", commit)


def _publish(top: Path, name: str) -> None:
    """An image without a layer that is read."""
    elsewhere = top / "elsewhere"
    (top / "file").write_text("x")
    subprocess.run(["tar", "-C", top, "-cf", top / "root.tar", "file"], check=True)
    subprocess.run([PYBUILD, "--root", elsewhere, "import", top / "root.tar", "base"], check=True)
    layout = Layout.open(elsewhere)
    found: Descriptor = layout.descriptors()[0]
    with Client() as client:
        client.push(layout.blobs, found, [Reference.parse(name)])


@pytest.mark.parametrize(
    "text",
    [
        "FROM REG/base:1\nENV A=1\n",
        "FROM REG/base:1\nCOPY Dockerfile /\n",
        "FROM scratch\nCOPY --from=REG/base:1 /file /\n",
        "FROM scratch\nADD http://WEB/f /f\n",
        "FROM scratch\nADD GIT#COMMIT /src\n",
    ],
)
def test_what_was_built_is_built_again(shop: Shop, text: str) -> None:
    """R24. A full cache hit needs nobody."""
    done, calls = shop.build(text, "-t", "app")
    assert done.returncode == 0 and calls, done.stderr
    again, calls = shop.build(text, "-t", "app", "--offline")
    assert (again.returncode, again.stdout, calls) == (0, done.stdout, []), again.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM REG/base:1\n", "Dockerfile:1"),
        ("FROM scratch\nCOPY --from=REG/base:1 /file /\n", "Dockerfile:2"),
        ("FROM scratch\nADD http://WEB/f /f\n", "Dockerfile:2"),
        ("FROM scratch\nADD GIT /src\n", "Dockerfile:2"),
        ("FROM scratch\nADD GIT#COMMIT /src\n", "Dockerfile:2"),
    ],
)
def test_what_is_not_here_is_named(shop: Shop, text: str, said: str) -> None:
    shop.registry.seen.clear()
    done, calls = shop.build(text, "--offline")
    assert done.returncode in (1, 3) and said in done.stderr and "--offline" in done.stderr, done
    assert not calls and not shop.registry.seen and not shop.web.seen


@pytest.mark.parametrize(
    "args",
    [
        ["build", "-q", "GIT"],
        ["build", "-q", "GIT#COMMIT"],
        ["build", "-q", "http://WEB/Dockerfile"],
        ["build", "-q", "-f", "http://WEB/Dockerfile", "CONTEXT"],
        ["build", "-q", "--check", "http://WEB/Dockerfile"],
        ["build", "-q", "--call", "targets", "GIT"],
        ["build", "-q", "--build-context", "x=GIT", "-f", "DOCKERFILE", "CONTEXT"],
        ["build", "-q", "--build-context", "base=docker-image://REG/base:1", "-f", "BASE", "CONTEXT"],
        ["build", "-q", "--push", "-t", "REG/app:1", "-f", "PLAIN", "CONTEXT"],
    ],
)
def test_contexts_and_outputs(shop: Shop, args: list[str]) -> None:
    """SECURITY.md R24."""
    context = shop.top / "context"
    for name, text in (
        ("DOCKERFILE", "FROM scratch\nCOPY --from=x a /\n"),
        ("BASE", "FROM base\n"),
        ("PLAIN", "FROM scratch\nENV A=1\n"),
    ):
        (context / name).write_text(text)
        shop.names[name] = str(context / name)
    shop.names["CONTEXT"] = str(context)
    done, calls = shop.run(*args, "--offline")
    assert done.returncode not in (0, 70) and "--offline" in done.stderr and not calls, (done, calls)

"""Images and Dockerfiles that want out of the build, built as people build (SECURITY.md, section 3)."""

from __future__ import annotations

import os
import socket
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from builder.errors import BuildError

pytestmark = pytest.mark.root

CANARY = "pybuild-canary-7d1f"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A directory of the host that no build may change or show."""
    path = tmp_path / "victim"
    (path / "sub").mkdir(parents=True)
    (path / "file").write_text(CANARY)
    (path / "sub/file").write_text(CANARY)
    return path


def tar_of(name: str) -> bytes:
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as tar:
        info = tarfile.TarInfo(name)
        info.size = 4
        tar.addfile(info, BytesIO(b"text"))
    return out.getvalue()


@pytest.mark.parametrize("link", ["/", "../../../../../../../..", "/proc/self/root", "{victim}", "/slash/up"])
def test_s19_no_path_of_a_dockerfile_leads_out(
    shop: Any, victim: Path, tree_of: Callable[[str], Any], link: str
) -> None:
    """WORKDIR, COPY, ADD, VOLUME and HEALTHCHECK through a link of the image (CVE-2026-55686, GHSA-x86f)."""
    before = tree_of(str(victim))
    shop.write("file", "new")
    (shop.context / "a.tar.xz").write_bytes(tar_of("unpacked"))
    base = (
        "FROM base AS evil\n"
        f"RUN ln -s {link.format(victim=victim)} /out && ln -s / /slash && ln -s ../.. /up"
        f" && mkdir -p /real && ln -s {victim}/sub /real/deep\n"
        "FROM evil\n"
    )
    lines = (
        f"WORKDIR /out{victim}/made",
        f"COPY file /out{victim}/copied",
        f"COPY --chown=1:1 --chmod=777 file /out{victim}/",
        f"COPY file /out{victim}/file",
        f"ADD a.tar.xz /out{victim}/",
        f"VOLUME /out{victim}/volume",
        f"HEALTHCHECK CMD touch /out{victim}/health",
        "COPY file /real/deep/new/",
        "WORKDIR /real/deep/work",
    )
    for line in lines:
        try:
            shop.build(f"{base}{line}\nRUN true\n")
        except BuildError:
            pass
        assert tree_of(str(victim)) == before, line
        assert (victim / "file").read_text() == CANARY, line


@pytest.mark.parametrize("name", ["passwd", "group"])
@pytest.mark.parametrize("what", ["mkfifo {}", "mknod {} c 1 5", "mkdir {}", "ln -s /proc/self/fd/0 {}"])
def test_s32_a_passwd_that_is_no_file_hangs_nothing(shop: Any, what: str, name: str) -> None:
    made = f"rm /etc/{name} && busybox {what.format('/etc/' + name)}"
    with pytest.raises(BuildError, match="is not in"):
        shop.build(f"FROM base\nRUN {made}\nUSER nobody-here:nothing\nRUN id\n")
    shop.build(f"FROM base\nRUN {made}\nUSER 7:8\nRUN grep -E '^[UG]id' /proc/self/status\n")
    assert shop.output().split()[1::5] == ["7", "8"]


def test_s29_without_a_network_there_are_no_names(shop: Any) -> None:
    """No resolver of the host's is in resolv.conf; a query fails at once, and no packet has a way out."""
    shop.build(
        "FROM base\nRUN grep -c nameserver /etc/resolv.conf; ip -o link | wc -l; ip route | wc -l;"
        " busybox nslookup example.com >/dev/null 2>&1 && echo found;"
        " busybox ping -c 1 -W 1 192.0.2.1 2>&1 | tail -n 1\n",
        network="none",
    )
    servers, links, routes, ping = shop.output().splitlines()
    assert (servers, links, routes) == ("0", "1", "0")
    assert "unreachable" in ping


def test_s37_a_syntax_line_reaches_for_nothing(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No frontend is fetched or run: nobody is asked for an address, and the image is the same without it."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    text = "FROM base\nRUN echo hello > /file\n"
    plain = shop.build(text, clock=7)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    with_line = shop.build(f"# syntax=registry.example/evil/frontend:latest\n{text}", clock=7, no_cache=True)
    assert plain.descriptor is not None
    assert with_line.descriptor == plain.descriptor


TOKENS = (
    "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "SSH_AUTH_SOCK", "DOCKER_CONFIG", "DOCKER_AUTH_CONFIG",
    "LD_PRELOAD", "PYTHONPATH", "PYBUILD_ROOT", "XDG_RUNTIME_DIR", "SSH_CONNECTION",
)  # fmt: skip


def test_s39_the_environment_of_a_step_is_the_images(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """S71. CVE-2021-3602: nothing of the builder's, by environment or by its processes."""
    for name in TOKENS:
        monkeypatch.setenv(name, CANARY)
    shop.build(
        "FROM base\nARG FROM_ARG=1\nENV FROM_ENV=2\n"
        'RUN ["busybox", "env"]\n'
        "RUN cat /proc/*/environ | grep -c canary || true\n"
    )
    *variables, count = shop.output().splitlines()
    assert {each.partition("=")[0] for each in variables} == {
        "PATH",
        "HOME",
        "HOSTNAME",
        "FROM_ARG",
        "FROM_ENV",
    }
    assert count == "0"


@pytest.mark.parametrize("security", ["sandbox", "sandbox --network=host"])
def test_s40_a_step_reaches_nothing_of_the_builders(
    shop: Any, victim: Path, monkeypatch: pytest.MonkeyPatch, security: str
) -> None:
    """Not its store, credentials, context or other stages: no path, descriptor or socket leads there."""
    credentials = victim / "config.json"
    credentials.write_text(CANARY)
    monkeypatch.setenv("DOCKER_CONFIG", str(victim))
    shop.write("not-copied", CANARY)
    shop.write("copied", "x")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(victim / "socket"))
        listener.listen()
        shop.build(
            f"FROM base AS other\nRUN echo {CANARY[::-1]} | busybox rev > /of-another-stage\n"
            "FROM base\nCOPY copied /\n"
            f"RUN --security={security} "
            f"ls -d {shop.root} {shop.context} {victim} /of-another-stage 2>/dev/null;"
            "busybox find / -xdev -type f -exec grep -l pybuild-[c]anary {} + 2>/dev/null;"
            f"for fd in /proc/[0-9]*/fd/*; do readlink $fd; done | grep -v -E 'pipe:|/dev/null|/proc' ;"
            f"busybox nc local:{victim}/socket 2>&1 </dev/null | grep -v usage | head -n 1; echo done\n",
            allow=frozenset({"network.host"}),
        )
    lines = [line for line in shop.output().splitlines() if "nc:" not in line and "BusyBox" not in line]
    assert lines[-1] == "done"
    assert lines[:-1] == []


def test_s45_programs_of_an_image_or_a_context_are_never_run_for_the_build(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVE-2026-41567: what unpacks, hashes and looks up names is ours, whatever lies in the context or the
    image under the names of such programs.
    """
    marker = tmp_path / "ran"
    for name in ("xz", "gzip", "zstd", "bzip2", "tar", "git", "sh", "getent", "docker-credential-x"):
        shop.write(name, f"#!/bin/sh\necho $0 >> {marker}\nexit 1\n")
        (shop.context / name).chmod(0o755)
    (shop.context / "a.tar.xz").write_bytes(tar_of("unpacked"))
    monkeypatch.chdir(shop.context)
    monkeypatch.setenv("PATH", f".:{os.environ['PATH']}")
    shop.build(
        "FROM base AS evil\nCOPY xz gzip zstd bzip2 tar git getent /usr/local/bin/\n"
        "COPY xz /lib/libnss_files.so.2\nCOPY xz /etc/ld.so.preload\nRUN true\n"
        "FROM evil\nADD a.tar.xz /added/\nCOPY --chown=app:extra --from=evil /etc/passwd /copied\n"
        "USER app\nRUN cat /added/unpacked\n",
        outputs=shop.tar(),
    )
    assert shop.output() == "text"
    with tarfile.open(shop.exported) as tar:
        assert "copied" in {name.lstrip("./") for name in tar.getnames()}
    assert not marker.exists()


def test_s92_a_container_is_confined_like_a_step(shop: Any, compiled: Callable[..., str]) -> None:
    """`pybuild run` gives what RUN gives: the same mounts, flags, capabilities, filter and limits."""
    import subprocess
    import sys

    look = (
        "grep -E '^(Cap|Seccomp|NoNewPrivs|Groups)' /proc/self/status; cat /proc/self/limits;"
        "while read a b c d point flags rest; do echo $point $flags; done < /proc/self/mountinfo"
    )
    shop.write("look", look)
    built = shop.build("FROM base\nCOPY look /look\nRUN sh /look\n", tags=("looked",))
    step = shop.output().splitlines()
    assert built.descriptor is not None
    command = [sys.executable, "-m", "builder.cli.main", "--root", shop.root]
    ran = subprocess.run(
        [*command, "run", "--network=none", "looked", "sh", "/look"], capture_output=True, text=True
    )
    container = ran.stdout.splitlines()
    assert ran.returncode == 0, ran.stderr
    assert [line for line in container if line not in step] == []
    assert [line for line in step if line not in container] == []

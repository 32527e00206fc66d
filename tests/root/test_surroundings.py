"""What lies around a build and must not matter: temporary directories, clocks, languages, masks, proxies."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sysconfig

import pytest

from tests.root.conftest import Workshop

pytestmark = pytest.mark.root

PYBUILD = os.path.join(sysconfig.get_path("scripts"), "pybuild")
TEXT = "FROM base\nCOPY file /\nRUN date +%Z; umask; echo made > /made; mkdir -p /b /a; touch /a/2 /a/1\n"


def run(shop: Workshop, *words: str, umask: int = -1, **variables: str) -> str:
    done = subprocess.run(
        [PYBUILD, "--root", shop.root, *words],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **variables},
        capture_output=True,
        text=True,
        umask=umask,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_s61_nothing_in_a_temporary_directory_has_a_name_to_foresee(shop: Workshop) -> None:
    """Whoever may write there too finds no name to take first: no file is made outside of the store."""
    shop.write("Dockerfile", TEXT)
    shop.write("file", "text")
    calls = "openat,open,creat,mkdir,mkdirat,symlink,symlinkat,mknod,mknodat,bind"
    trace = str(shop.context.parent / "trace")
    words = ("--root", shop.root, "build", "--network=none", "--no-cache", str(shop.context))
    strace = ("strace", "-f", "-qq", "-y", "-e", f"trace={calls}", "-o", trace)
    done = subprocess.run([*strace, PYBUILD, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with open(trace, encoding="utf-8", errors="replace") as file:
        made = [line for line in file if re.search(r"O_CREAT|mkdir|symlink|mknod|creat\(|bind\(", line)]
    assert any(shop.root in line for line in made), "the trace shows what is made"
    elsewhere = [line for line in made if str(shop.context.parent) not in line]
    assert [line for line in elsewhere if re.search(r'"/(?:(?:var/)?tmp|dev/shm)/', line)] == []


def test_s64_proxies_are_in_no_history(shop: Workshop) -> None:
    shop.write("Dockerfile", "FROM base\nRUN echo saw $http_proxy > /saw\n")
    address = "http://canary:word@proxy.example:3128"
    build = ("build", "--network=none", "--build-arg", f"HTTP_PROXY={address}", "-t", "x")
    run(shop, *build, str(shop.context))
    assert run(shop, "run", "--network=none", "x", "cat", "/saw").strip() == f"saw {address}"
    shown = run(shop, "inspect", "x") + run(shop, "history", "--no-trunc", "x")
    assert "canary" not in shown and "proxy.example" not in shown


def test_r25_surroundings_are_in_no_byte(shop: Workshop) -> None:
    shop.write("Dockerfile", TEXT)
    shop.write("file", "text")
    os.chmod(shop.context / "file", 0o644)

    def digest(umask: int, *options: str, **variables: str) -> str:
        record = str(shop.context.parent / "record")
        words = ("build", "--network=none", "--no-cache", f"--metadata-file={record}", *options)
        run(shop, *words, str(shop.context), umask=umask, SOURCE_DATE_EPOCH="1600000000", **variables)
        with open(record, encoding="utf-8") as file:
            return str(json.load(file)["containerimage.digest"])

    plain = digest(0o022, LANG="C", TZ="UTC", PYTHONHASHSEED="1")
    other = digest(
        0o077, "--jobs=1", LANG="de_DE.UTF-8", LC_ALL="C.UTF-8", TZ="Asia/Tokyo", PYTHONHASHSEED="77"
    )
    assert plain == other

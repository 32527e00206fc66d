"""What fuzzing has found stays found: the seeds, and every input that once broke a target."""

from __future__ import annotations

import pytest
from archives import tar
from harness import FOUND, MIB, check, load, names

INPUTS = [
    *((name, f"seed {number}") for name in names() for number in range(len(load(name).SEEDS))),
    *((path.parent.name, path.name) for path in sorted(FOUND.glob("*/*"))),
]


@pytest.mark.parametrize(("name", "which"), INPUTS, ids=lambda text: text)
def test_a_target_takes_it(name: str, which: str) -> None:
    module = load(name)
    if which.startswith("seed "):
        data: bytes = module.SEEDS[int(which[5:])]
    else:
        data = (FOUND / name / which).read_bytes()
    check(module, data)


@pytest.mark.parametrize("unit", [b"[", b"\n", b"a", b"*", b"0"])
@pytest.mark.parametrize("name", [name for name in names() if name != "dockerfile"])
def test_a_megabyte_of_one_thing_ends_soon(name: str, unit: bytes) -> None:
    """tests/builder/frontend/test_fuzz.py has more for the Dockerfile."""
    check(load(name), unit * MIB)


D = b'{"mediaType":"a/b","digest":"sha256:%s","size":2}' % (b"0" * 64)
STRUCTURED: dict[str, tuple[str, bytes]] = {
    "numbers in an unknown manifest": ("documents", b'\x03{"x":[%s0]}' % (b"0," * (MIB // 2))),
    "numbers for manifests": (
        "documents",
        b'\x07{"schemaVersion":2,"manifests":[%s1]}' % (b"1," * (MIB // 2)),
    ),
    "layers": (
        "documents",
        b'\x01{"schemaVersion":2,"config":%s,"layers":[%s]}' % (D, b",".join([D] * 9000)),
    ),
    "annotations that are numbers": (
        "documents",
        b'\x07{"schemaVersion":2,"annotations":{%s}}' % b",".join(b'"k%d":1' % n for n in range(80_000)),
    ),
    "lines of an ignore file": ("patterns", b"a/b/c\0" + b"".join(b"a%d/b\n" % n for n in range(19_000))),
    "lines with wildcards": ("patterns", b"a/b/c\0" + b"".join(b"a%d*b?\n" % n for n in range(6_000))),
    "mirrors": ("config", b'[registry."docker.io"]\nmirrors = [%s]\n' % (b'"m.example",' * 80_000)),
    "registries": ("config", b"".join(b'[registry."h%d.example"]\nhttp=true\n' % n for n in range(20_000))),
    "options of an address": ("giturl", b"https://h/a.git?" + b"&".join(b"x%d=1" % n for n in range(80_000))),
    "parts of a name": ("reference", b"h.example/" + b"a/" * (MIB // 2)),
    "records of a header": (
        "apply",
        b"\0" + tar(("a", b"0", "x"), pax={f"k{n}": "v" for n in range(50_000)}),
    ),
    "entries": ("apply", b"\0" + tar(*((f"d{n}/f", b"0", "") for n in range(1900)))),
    "challenges": ("http", b'Basic realm="a", ' * (MIB // 17)),
    "chunks": (
        "http",
        b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 9_000,
    ),
    "errors of a registry": ("answers", b'\x02{"errors":[%s1]}' % (b"1," * (MIB // 2))),
    "scopes": (
        "answers",
        b'\x01Bearer realm="https://r.example/t",scope="%s"' % (b"repository:a/b:pull " * 50_000),
    ),
}


@pytest.mark.parametrize("name", STRUCTURED)
def test_a_megabyte_of_what_can_be_read_ends_soon(name: str) -> None:
    target, data = STRUCTURED[name]
    check(load(target), data)


def test_every_folder_of_found_inputs_has_its_target() -> None:
    assert {path.name for path in FOUND.glob("*") if path.is_dir()} <= set(names())

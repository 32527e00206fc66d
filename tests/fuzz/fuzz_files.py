"""Files that others write: users and groups of an image, a lock, descriptions of devices."""

from __future__ import annotations

import os
import shutil
import tempfile

from harness import scratch

from builder.errors import BuildError
from builder.lock import Lock
from builder.snapshot.view import DirectoryLayer, View
from builder.solver.devices import CdiError, shown
from builder.solver.identity import resolve_owner, resolve_user

SEEDS = (
    b"\x00app:x:1000:1001:An app:/home/app:/bin/sh\n\0app:x:1001:app,root\nstaff:x:50:app\n\0app:staff",
    b"\x00root:x:0:0\n\0root:x:0:root\n\0" + b"1000:50",
    b"\x01version = 1\n[urls]\na.b = " + b"[" * 3000,
    b'\x01version = 1\n[images]\n"a" = "sha256:' + b"0" * 64 + b'"\n',
    (
        b'\x02{"cdiVersion":"0.6.0","kind":"a.b/c","devices":[{"name":"x","containerEdits":{"deviceNodes":'
        b'[{"path":"/dev/null","permissions":"rw"}],"env":["A=b"],"mounts":[{"hostPath":"/etc","containerPath":"/x",'
        b'"options":["ro"]}],"additionalGids":[5]}}],"containerEdits":{}}'
    ),
    b"\x02cdiVersion: 0.6.0\nkind: a.b/c\ndevices:\n- name: x\n",
)
WORDS = (
    b"sha256:",
    b'"devices":',
    b'"containerEdits":',
    b'"kind":',
    b"0:0",
    b":x:",
    b'"images"',
    b'"git"',
    b'"urls"',
)


def target(data: bytes) -> None:
    """The first byte chooses what it is."""
    kind, content = (data[0] if data else 0) % 3, data[1:]
    top = tempfile.mkdtemp(prefix="pybuild-fuzz-", dir=scratch())
    try:
        (_users, _lock, _devices)[kind](content, top)
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _users(content: bytes, top: str) -> None:
    passwd, group, spec = [*content.split(b"\0", 2), b"", b""][:3]
    os.mkdir(f"{top}/etc")
    for name, text in (("passwd", passwd), ("group", group)):
        with open(f"{top}/etc/{name}", "wb") as file:
            file.write(text)
    view, words = View([DirectoryLayer(top)]), spec.decode("utf-8", "surrogateescape")
    try:
        found = resolve_user(view, words)
        assert 0 <= found.uid < 1 << 31 and 0 <= found.gid < 1 << 31 and found.gid in found.groups
        assert all(0 <= each < 1 << 31 for each in found.groups)
    except BuildError as error:
        assert str(error)
    try:
        uid, gid = resolve_owner(view, words)
        assert 0 <= uid < 1 << 31 and 0 <= gid < 1 << 31
    except BuildError as error:
        assert str(error)


def _lock(content: bytes, top: str) -> None:
    try:
        lock = Lock.parse(content.decode("utf-8", "replace"), "a.lock")
    except BuildError as error:
        assert str(error)
        return
    assert Lock.parse(lock.text(), "a.lock") == lock


def _devices(content: bytes, top: str) -> None:
    with open(f"{top}/a.json", "wb") as file:
        file.write(content)
    try:
        shown([("a.b/c=x", True), ("a.b/c", False)], (top,))
    except (BuildError, CdiError) as error:
        assert str(error)

"""Why a program did not start: it is for another machine, and the kernel knows no interpreter for it.

Foreign programs run when binfmt_misc has an emulator for them (Linux,
Documentation/admin-guide/binfmt-misc.rst).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from builder.tree import clean
from oci import platforms
from oci.tar import Kind

if TYPE_CHECKING:
    from builder.graph import Exec
    from builder.tree import Tree

_MACHINES = {
    2: "sparc",
    3: "386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "amd64",
    183: "arm64",
    243: "riscv64",
    258: "loong64",
}
"""e_machine of an ELF header (elf(5)), as Go names it."""

_HEAD = 256
_NO_EXEC = "exec format error"
_STUMBLES = (_NO_EXEC, "syntax error", "not found", "unterminated", "unexpected")
_NAMES = 6


def advice(op: Exec, tree: Tree) -> str:
    """What to do about a program of `op` that the kernel refused; "" when its machine is not the reason.

    `tree` are the files it was looked for in; what only a mount holds is not looked at.
    """
    for path in _places(op):
        architecture = _architecture(tree, path)
        if architecture is not None:
            return _install(path, architecture) if architecture and _is_foreign(architecture) else ""
    return ""


def advice_of_output(op: Exec, lines: Iterable[str], tree: Callable[[], Tree]) -> str:
    """The same for a program that a shell began, by what that printed last.

    dash and bash name the program and the kernel's refusal; busybox takes its bytes for a script and stumbles
    over them. `tree` is asked for only when a line looks like either.
    """
    said = [line for line in lines if any(each in line.lower() for each in _STUMBLES)]
    if not said:
        return ""
    files = tree()
    for name in dict.fromkeys(name for line in said for name in _named(line)):
        if found := advice(replace(op, argv=(name,)), files):
            return found
    if not any(_NO_EXEC in line.lower() for line in said):
        return ""
    return f"a program here is for another machine than {platforms.host()}: {_HOW}"


def _named(line: str) -> list[str]:
    """What may be a program's name in `sh: 1: NAME: Exec format error`."""
    parts = [part.strip() for part in line.split(": ")[:_NAMES]]
    return [part for part in parts if part and not part.startswith("line ") and "\0" not in part]


_HOW = (
    "register an emulator (Debian, Ubuntu: apt install qemu-user-static binfmt-support), or run the step in "
    "a stage FROM --platform=$BUILDPLATFORM"
)


def _install(path: str, architecture: str) -> str:
    return f"{path} is for {architecture}, this machine is {platforms.host()}: {_HOW}"


def _places(op: Exec) -> Iterator[str]:
    """Where the program of `op` may be, in the order in which it is looked for."""
    name = op.argv[0]
    if "/" in name:
        yield os.path.join(op.cwd, name)
        return
    for folder in dict(op.env).get("PATH", "").split(":"):
        yield os.path.join(folder or "/", name)


def _architecture(tree: Tree, path: str, depth: int = 0) -> str | None:
    """What machine the program at `path` is for: "" if it does not say, None if there is no program."""
    head = _head(tree, path)
    if head is None:
        return None
    if head[:2] == b"#!" and depth < 4:
        words = head[2:].split(b"\n")[0].split()
        return (_architecture(tree, os.fsdecode(words[0]), depth + 1) or "") if words else ""
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return ""
    order = "big" if head[5] == 2 else "little"
    name = _MACHINES.get(int.from_bytes(head[18:20], order), "an unknown machine")  # type: ignore[arg-type]
    return name + ("le" if name in ("ppc64", "mips") and order == "little" else "")


def _head(tree: Tree, path: str) -> bytes | None:
    try:
        real = tree.resolve(clean(path))
        node = tree.lstat(real)
        if node is None or node.kind is not Kind.FILE:
            return None
        fd = tree.open(real)
    except OSError:
        return None
    try:
        return os.read(fd, _HEAD)
    finally:
        os.close(fd)


def _is_foreign(architecture: str) -> bool:
    return all(each.architecture != architecture for each in platforms.fitting(platforms.host()))

"""What a step without namespaces (`--isolation=chroot`) can reach: S40 in the mode that has the least."""

from __future__ import annotations

import dataclasses
import os
import select
import shutil
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from builder.sandbox import landlock, syscalls
from builder.sandbox.run import Launcher
from builder.sandbox.spec import DEFAULT_CAPABILITIES, Bind, Sandbox
from builder.solver.chrooted import WITHOUT

pytestmark = pytest.mark.root

ESCAPED = f"escaped-{os.urandom(8).hex()}"
"""A file in the host's /tmp that must not come about."""
ESCAPES = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
static void said(const char *name, long result) { printf("%s %d\n", name, result < 0 ? errno : 0); }
static int reach(const char *path, int abstract) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strcpy(to.sun_path + abstract, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return connect(fd, (void *)&to, offsetof(struct sockaddr_un, sun_path) + abstract + strlen(path));
}
/* `wait`, or: a process of another step, one of the builder's, an abstract socket, a socket, two files. */
int main(int argc, char **argv) {
    if (argc == 2) { printf("%d\n", getpid()); fflush(stdout); pause(); return 0; }
    int sibling = atoi(argv[1]), builder = atoi(argv[2]);
    char here[64]; struct iovec local = {here, 8}, remote = {(void *)main, 8};
    mkdir("inner", 0755); mkdir("proc", 0755);
    said("chroot", chroot("inner"));
    said("mount", mount("proc", "/proc", "proc", 0, 0));
    said("bind", mount("/", "/inner", 0, MS_BIND, 0));
    said("unshare", unshare(CLONE_NEWUSER));
    said("proc", open("/proc/1/root/etc/passwd", O_RDONLY));
    said("cwd", open("/proc/self/cwd/../../../../../../etc/passwd", O_RDONLY));
    said("above", open("../../../../../../../../etc/passwd", O_RDONLY));
    said("path", open(argv[5], O_RDONLY));
    for (int fd = 3; fd < 4096; fd++) if (fcntl(fd, F_GETFD) >= 0) said("kept", 0);
    int outside = fchdir(0);
    said("lent", outside);
    said("lent-open", open("etc/passwd", O_RDONLY));
    said("lent-at", openat(0, "etc/passwd", O_RDONLY));
    said("lent-exec", execl("bin/true", "true", NULL));
    said("lent-make", open(argv[6], O_CREAT | O_WRONLY, 0600));
    said("lent-link", linkat(0, "etc/passwd", AT_FDCWD, "/stolen", 0));
    said("back", chdir("/"));
    said("kill-sibling", kill(sibling, 0));
    said("kill-builder", kill(builder, 0));
    said("kill-launcher", kill(getppid(), 0));
    said("ptrace", ptrace(PTRACE_SEIZE, sibling, 0, 0));
    said("vm", process_vm_readv(sibling, &local, 1, &remote, 1, 0));
    int pidfd = syscall(434, sibling, 0);
    said("getfd", pidfd < 0 ? -1 : syscall(438, pidfd, 1, 0));
    said("abstract", reach(argv[3], 1));
    said("socket", reach(argv[4], 0));
    said("mknod", mknod("/disk", S_IFBLK | 0600, 0x800));
    mkdir("a", 0755); mkdir("b", 0755); close(open("a/f", O_CREAT | O_WRONLY, 0600));
    said("own-rename", rename("a/f", "b/f"));
    said("own-kill", kill(getpid(), 0));
    return 0;
}
"""


@pytest.fixture
def tree(top: str, compiled: Callable[..., str]) -> str:
    for name in ("first", "second"):
        os.makedirs(f"{top}/{name}/bin")
        shutil.copy(compiled(ESCAPES), f"{top}/{name}/bin/escapes")
    return top


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    with Launcher() as launcher:
        yield launcher


def box(root: str, *words: str, **more: Any) -> Sandbox:
    rights = DEFAULT_CAPABILITIES - WITHOUT
    argv = ("/bin/escapes", *words)
    return Sandbox(Bind(root), argv, network="host", chroot=True, capabilities=rights, **more)


def attempts(tree: str, launcher: Launcher, **more: Any) -> tuple[dict[str, int], tuple[str, ...]]:
    """Every escape's errno (0: it worked), and what was weaker. Standard input is the host's root."""
    name = f"pybuild-{os.urandom(8).hex()}"
    with socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX) as named:
        abstract.bind(f"\0{name}")
        named.bind(f"{tree}/socket")
        abstract.listen()
        named.listen()
        (read, write), slash = os.pipe(), os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        sibling, told = os.pipe()
        with launcher.begin(box(f"{tree}/second", "wait"), output_fd=told) as other:
            assert select.select([sibling], [], [], 60)[0], "the sibling did not start"
            pid = os.read(sibling, 64).decode().strip()
            words = (pid, str(os.getpid()), name, f"{tree}/socket", f"{tree}/socket", f"tmp/{ESCAPED}")
            exit_ = launcher.run(box(f"{tree}/first", *words, **more), output_fd=write, stdin_fd=slash)
            other.signal(9)
            other.wait()
        os.close(write)
        with open(read) as file:
            text = file.read()
        for fd in (slash, sibling, told):
            os.close(fd)
    assert exit_.status == 0, exit_
    return {word: int(number) for word, number in map(str.split, text.splitlines())}, exit_.weaker


def test_s40_without_namespaces_nothing_is_in_reach(tree: str, launcher: Launcher) -> None:
    """Neither files, processes nor sockets of the builder or another step: by a second root, by /proc, by
    descriptors, even one of the host's root that somebody lent to the step, by tracing, by abstract sockets.
    """
    if landlock.version() < landlock.SCOPES:
        pytest.skip("the kernel has no Landlock that knows of signals (Linux 6.12)")
    found, weaker = attempts(tree, launcher)
    worked = {name for name, number in found.items() if not number}
    assert worked == {"lent", "back", "own-rename", "own-kill"}, found
    assert weaker == ()
    assert not os.path.exists(f"/tmp/{ESCAPED}")


@pytest.mark.parametrize("kernel", [0, 1, 3, 5])
def test_s40_what_an_older_landlock_leaves_open_is_told(
    tree: str, monkeypatch: pytest.MonkeyPatch, kernel: int
) -> None:
    """An older kernel is made of answers: its version, and descriptors that are none of a ruleset."""
    seen: list[tuple[int, ...]] = []

    def raw(call: str, number: int, *arguments: Any) -> int:
        if call == "landlock_create_ruleset" and arguments[0] is None:
            return kernel
        seen.append((number, len(arguments[0]) if isinstance(arguments[0], bytes) else 0))
        return os.open("/dev/null", os.O_RDONLY)

    monkeypatch.setattr(syscalls, "raw", raw)
    weaker = landlock.confine(0)
    assert weaker == (("landlock",) if kernel < landlock.REFER else ("landlock-scopes",))
    assert seen == [] if kernel < landlock.REFER else seen[0] == (444, 8)


def test_s40_setuid_programs_work_where_the_privilege_is(
    tree: str, launcher: Launcher, compiled: Callable[..., str]
) -> None:
    """Without CAP_SYS_ADMIN no_new_privs is the price of the confinement (rootless/test_chroot.py)."""
    shutil.copy(
        compiled("#include <unistd.h>\nint main() { return geteuid() + 3; }\n"), f"{tree}/first/bin/who"
    )
    os.chmod(f"{tree}/first/bin/who", 0o4755)
    who = box(f"{tree}/first", uid=1000, gid=1000)
    null = os.open("/dev/null", os.O_WRONLY)
    exit_ = launcher.run(dataclasses.replace(who, argv=("/bin/who",)), output_fd=null)
    os.close(null)
    assert exit_.status == 3, exit_

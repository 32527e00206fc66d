"""System calls of a step, made by a program of its own: the kernel's answers, not ours (SECURITY.md S24)."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

import pytest

from builder.sandbox.spec import DEFAULT_CAPABILITIES

pytestmark = pytest.mark.root

_PROBE = r"""
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
static void *nothing(void *value) { return value; }
int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "threads")) {
        pthread_t thread; void *value = 0;
        if (pthread_create(&thread, 0, nothing, argv[1]) || pthread_join(thread, &value)) return 1;
        FILE *pipe = popen("echo from a child", "r"); char line[64];
        printf("thread %s, %s", (char *)value, fgets(line, 64, pipe));
        return pclose(pipe);
    }
    if (argc > 1 && !strcmp(argv[1], "id")) { printf("%d %d\n", getuid(), geteuid()); return 0; }
    for (int at = 1; at + 1 < argc; at += 2) {
        long result = syscall(atol(argv[at]), strtol(argv[at + 1], 0, 0), 0L, 0L, 0L, 0L, 0L);
        printf("%d\n", result < 0 ? errno : 0);
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A static program: it makes the calls it is told (number, first argument) and prints their errno."""
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.c").write_text(_PROBE)
    subprocess.run(["gcc", "-static", "-o", folder / "probe", folder / "probe.c"], check=True)
    return str(folder / "probe")


def put(world: Any, probe: str, mode: int = 0o755) -> None:
    shutil.copy(probe, world.path("image/bin/probe"))
    os.chmod(world.path("image/bin/probe"), mode)


X32 = 0x40000000


def native() -> dict[str, int]:
    """The numbers of this machine's calls."""
    from builder.sandbox import abi

    return abi.numbers(abi.X86_64 if os.uname().machine == "x86_64" else abi.AARCH64)


CALLS: dict[str, tuple[Any, int, int]] = {
    "keyctl": ("keyctl", 0, 1),
    "add_key": ("add_key", 0, 1),
    "request_key": ("request_key", 0, 1),
    "io_uring_setup": ("io_uring_setup", 1, 1),
    "bpf": ("bpf", 0, 1),
    "mount": ("mount", 0, 1),
    "umount2": ("umount2", 0, 1),
    "unshare(NEWUSER)": ("unshare", 0x10000000, 1),
    "setns": ("setns", 0, 1),
    "open_by_handle_at": ("open_by_handle_at", 0, 1),
    "userfaultfd": ("userfaultfd", 0, 1),
    "perf_event_open": ("perf_event_open", 0, 1),
    "socket(AF_ALG)": ("socket", 38, 97),
    "socket(AF_VSOCK)": ("socket", 40, 97),
    "clone(NEWUSER)": ("clone", 0x10000000, 1),
    "clone3": ("clone3", 0, 38),
    "personality(ADDR_NO_RANDOMIZE)": ("personality", 0x40000, 1),
    "a call of the future": (999, 0, 38),
    "getpid": ("getpid", 0, 0),
    "personality(query)": ("personality", 0xFFFFFFFF, 0),
}


def test_s24_answers(world: Any, probe: str) -> None:
    put(world, probe)
    numbers = native()
    calls = CALLS | ({"a call of x32": (X32 | 39, 0, 38)} if os.uname().machine == "x86_64" else {})
    words = [str(word) for call, first, _ in calls.values() for word in (numbers.get(call, call), first)]
    assert "Seccomp:\t2" in world.sh("cat /proc/self/status")
    exit_, output = world.run("probe", *words)
    assert exit_.status == 0
    assert dict(zip(calls, map(int, output.split()), strict=True)) == {
        name: wanted for name, (_, _, wanted) in calls.items()
    }


def test_s24_every_native_call(world: Any, probe: str) -> None:
    """Each refused number, asked of the kernel under the filter (their arguments are never looked at)."""
    from builder.sandbox import seccomp

    put(world, probe)
    refused = seccomp._refused(DEFAULT_CAPABILITIES, (6, 0))
    numbers = native()
    names = sorted(refused & set(numbers))
    exit_, output = world.run("probe", *(word for name in names for word in (str(numbers[name]), "0")))
    assert exit_.status == 0
    assert {name for name, errno in zip(names, output.split(), strict=True) if errno != "1"} == set()
    assert len(names) > 50


def test_threads_and_children_work(world: Any, probe: str) -> None:
    put(world, probe)
    exit_, output = world.run("probe", "threads")
    assert (exit_.status, output) == (0, "thread threads, from a child\n")


def test_setuid_programs_still_change_the_user(world: Any, probe: str) -> None:
    put(world, probe, 0o4755)
    exit_, output = world.run("probe", "id", uid=1000, gid=1000)
    assert (exit_.status, output) == (0, "1000 0\n")


def test_thirty_two_bit_programs_have_their_own_table(world: Any, tmp_path: Any) -> None:
    """A program without a C library: it writes, then tries keyctl, and AF_ALG by socket and socketcall."""
    if os.uname().machine != "x86_64":
        pytest.skip("the program is one for i386")
    source = r"""
static int call(int n, int a, int b, int c) {
    int r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory"); return r; }
void _start(void) {
    int family[3] = {38, 5, 0};
    call(4, 1, (int)"ok\n", 3);
    int bad = call(288, 0, 0, 0) != -1 || call(102, 1, (int)family, 0) != -38 || call(359, 38, 5, 0) != -97
        || call(435, 0, 0, 0) != -38 || call(20, 0, 0, 0) <= 0;
    call(1, bad, 0, 0);
}
"""
    (tmp_path / "small.c").write_text(source)
    program32 = world.path("image/bin/small")
    flags = "-m32 -nostdlib -static -fno-pie -no-pie -fno-stack-protector -ffreestanding -O1"
    subprocess.run(["gcc", *flags.split(), "-o", program32, tmp_path / "small.c"], check=True)
    exit_, output = world.run("small")
    assert (exit_.status, output) == (0, "ok\n")


def test_no_filter_for_a_privileged_step(world: Any, probe: str) -> None:
    put(world, probe)
    assert "Seccomp:\t0" in world.start(world.sandbox("cat", "/proc/self/status", privileged=True))[1]
    exit_, output = world.start(
        world.sandbox("probe", str(native()["unshare"]), "0x4000000", privileged=True)
    )
    assert (exit_.status, output) == (0, "0\n")

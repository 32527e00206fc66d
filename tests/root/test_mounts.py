"""RUN --mount: what each type shows, what is part of a key, who waits for whom, what tries to get out."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from builder import entitlements
from builder.errors import BuildError, ContextError, DockerfileError, SandboxError, StepFailed, UsageError
from builder.events import Warning_
from builder.graph import Exec
from builder.mounts import CacheMount
from builder.sandbox.spec import Bind, Layers, Tmpfs
from builder.solver.caches import Caches, Wanted
from builder.solver.running import Runner

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Workshop

pytestmark = pytest.mark.root

HOST_CANARY = "of-the-host-4c1f"


# ---- bind ----


def test_a_mounted_context_path_alone_is_seen_and_counts(shop: Workshop) -> None:
    shop.write("sub/x", "one")
    shop.write("sub/secret", "no")
    shop.write("beside", "b")
    os.chmod(shop.context / "sub", 0o711)
    shop.write(".dockerignore", "sub/secret\n")
    os.chown(shop.context / "sub/x", 1234, 1234)
    dockerfile = (
        "FROM base\nWORKDIR /w\nRUN --mount=target=in,source=sub stat -c '%n %a %u %g' in in/*; "
        "cat in/x > /got; touch in/new || echo ro\n"
    )
    first = shop.build(dockerfile, outputs=shop.tar())
    assert "in 711 0 0\nin/x 644 0 0\n" in shop.output() and "secret" not in shop.output()
    assert "ro\n" in shop.output()
    assert set(shop.files(first)) >= {"got"} and "w/in" not in shop.files(first)
    shop.write("beside", "changed")
    shop.write("sub/secret", "changed")
    assert shop.build(dockerfile).image_id == first.image_id and shop.ran() == []
    shop.write("sub/x", "two")
    shop.build(dockerfile)
    assert len(shop.ran()) == 1


def test_a_mounted_path_is_no_pattern_and_may_be_a_file(shop: Workshop) -> None:
    shop.write("[a]*", "literal")
    shop.write("a1", "pattern")
    os.symlink("../../../../[a]*", shop.context / "link")
    shop.build("FROM base\nRUN --mount=source=[a]*,target=/f --mount=src=link,dst=/g cat /f /g\n")
    assert shop.output() == "literalliteral"


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        ("target=/x,source=sbu", "did you mean sub?"),
        ("target=/x,source=left", "!left"),
        ("target=/x,from=one,source=/etc/passwdd", "passwd"),
        ("target=/x,from=scratch,source=/etc", ""),
    ],
)
def test_a_path_that_is_not_there(shop: Workshop, mount: str, said: str) -> None:
    shop.write("sub/x", "")
    shop.write("left", "")
    shop.write(".dockerignore", "left\n")
    with pytest.raises(ContextError) as caught:
        shop.build(f"FROM base AS one\nFROM base\nRUN --mount={mount} true\n")
    assert caught.value.at and caught.value.at.first == 3
    assert said in caught.value.hint


def test_a_stage_built_again_with_the_same_part_is_a_hit(shop: Workshop) -> None:
    shop.write("a", "1")
    dockerfile = (
        "FROM base AS made\nCOPY a /a\nRUN mkdir /out; cat /a > /elsewhere; echo %s > /out/f\n"
        "FROM base\nRUN --mount=from=made,source=/out,target=/in cat /in/f > /got\n"
    )
    shop.build(dockerfile % "x")
    shop.write("a", "2")
    shop.build(dockerfile % "x")
    assert [name.split()[1] for name in shop.ran()] == ["a", "mkdir"], "the part is as it was"
    shop.build(dockerfile % "y")
    assert any("--mount" in name for name in shop.ran())


def test_sources_of_every_kind(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/f").write_text("named")
    shop.build(
        "FROM base AS one\nRUN rm /etc/group; echo stage > /s\n"
        "FROM base\n"
        "RUN --mount=from=one,target=/a --mount=from=0,target=/b --mount=from=base,target=/c "
        "--mount=from=ctx,target=/d --mount=from=scratch,target=/e --mount=from=scratch,target=/h,rw "
        "cat /a/s /b/s; test ! -e /a/etc/group && test -e /c/etc/group && cat /d/f && ls /e && touch /h/x\n",
        contexts={"ctx": str(tmp_path / "other")},
    )
    assert shop.output() == "stage\nstage\nnamed"


def test_what_is_written_to_a_mount_is_gone(shop: Workshop) -> None:
    shop.write("d/f", "before")
    built = shop.build(
        "FROM base AS one\nRUN mkdir /o && echo before > /o/f\nFROM base\n"
        "RUN --mount=from=one,source=/o,target=/o,rw --mount=source=d,target=/d,readwrite=true "
        "rm /o/f && echo after > /d/f && touch /d/new && ls /o /d\n"
        "RUN --mount=from=one,source=/o,target=/o --mount=source=d,target=/d cat /o/f /d/f && ls /d\n",
        outputs=shop.tar(),
    )
    assert shop.output() == "/d:\nf\nnew\n\n/o:\nbefore\nbeforef\n"
    assert (shop.context / "d/f").read_text() == "before"
    assert not {"o", "d"} & set(shop.files(built)), "mount points are in no layer"


def test_inner_mounts_come_after_outer_ones(shop: Workshop) -> None:
    shop.write("f", "inner")
    shop.build(
        "FROM base\nRUN --mount=source=f,target=/c/d/f --mount=type=tmpfs,target=/c/d "
        "--mount=type=cache,target=/c cat /c/d/f && ls /c\n"
        "RUN --mount=type=cache,target=/c ls -A /c\n"
    )
    assert shop.output() == "innerd\n", "nothing of a mount point stays in the cache"


# ---- cache ----


def test_a_cache_outlives_builds_and_is_in_no_key_or_layer(shop: Workshop) -> None:
    dockerfile = "FROM base\nRUN --mount=type=cache,target=/c echo %s >> /c/log; cat /c/log; touch /got\n"
    built = shop.build(dockerfile % 1, outputs=shop.tar())
    assert "c" not in shop.files(built)
    shop.build(dockerfile % 2)
    assert shop.output() == "1\n2\n"
    shop.build(dockerfile % 1)
    assert shop.ran() == [], "what the cache holds by now is no reason to run again"


def test_caches_are_told_apart_by_name_namespace_and_beginning(shop: Workshop) -> None:
    """SECURITY.md S72."""
    show = "echo x >> /c/f; wc -l < /c/f"
    shop.build(
        f"FROM base AS seed\nFROM base\nRUN --mount=type=cache,target=/c {show} && : 1\n"
        f"RUN --mount=type=cache,target=/c,id=/c {show} && : 2\n"
        f"RUN --mount=type=cache,target=/c,id=other {show} && : 3\n"
        f"RUN --mount=type=cache,target=/c,uid=7 {show} && : 4\n"
        f"RUN --mount=type=cache,target=/c,from=seed {show} && ls /c/bin/sh\n"
    )
    assert shop.output() == "1\n2\n1\n1\n1\n/c/bin/sh\n"
    shop.build(
        f"FROM base\nRUN --mount=type=cache,target=/c {show} && : 1\n",
        build_args={"BUILDKIT_CACHE_MOUNT_NS": "ns"},
    )
    assert shop.output() == "1\n"


def test_a_new_cache_looks_as_it_was_asked_to(shop: Workshop) -> None:
    shop.write("seed/d/f", "seeded")
    shop.build(
        "FROM base AS one\nCOPY seed /\nRUN chown 5:6 /d/f; rm /etc/group\nFROM base\n"
        "RUN --mount=type=cache,target=/a --mount=type=cache,target=/b,mode=0700,uid=3,gid=4 "
        "--mount=type=cache,target=/c,from=one,source=/d --mount=type=cache,target=/e,from=one,id=/c "
        "--mount=type=cache,target=/f,id=/a,ro "
        "stat -c '%n %a %u %g' /a /b /c/f && ls /e/etc && touch /f/x 2>/dev/null || echo ro\n"
    )
    assert shop.output() == "/a 755 0 0\n/b 700 3 4\n/c/f 644 5 6\npasswd\nro\n"


def test_a_path_in_a_cache_must_be_there(shop: Workshop) -> None:
    with pytest.raises(ContextError, match="the cache c has no /x"):
        shop.build("FROM base\nRUN --mount=type=cache,target=/c,id=c,source=x true\n")


def steps(sharing: str, *names: str) -> str:
    """A stage for each name; each writes when it begins and ends in one cache.

    Those that may run at once meet in another cache before they end.
    """
    meet = f"; while [ $(ls /m | wc -l) -lt {len(names)} ]; do sleep 0.05; done"
    wait = "; sleep 1" if sharing == "locked" else meet
    stages = [
        f"FROM base AS {name}\nRUN --mount=type=cache,id=meet,target=/m "
        f"--mount=type=cache,id=c,target=/c,sharing={sharing} "
        f"echo + >> /c/log; touch /m/{name}{wait}; echo - >> /c/log; : {name}\n"
        for name in names
    ]
    copies = [f"COPY --from={name} /etc/group /{name}\n" for name in names]
    return "".join([*stages, "FROM base\n", *copies])


READ = "FROM base\nRUN --mount=type=cache,id=c,target=/c cat /c/log; : %s\n"


@pytest.mark.parametrize(
    ("sharing", "log"), [("locked", "+\n-\n+\n-\n"), ("shared", "+\n+\n-\n-\n"), ("private", "+\n-\n")]
)
def test_steps_of_one_build_share_a_cache_as_they_ask(shop: Workshop, sharing: str, log: str) -> None:
    shop.build(steps(sharing, "one", "two"), jobs=2)
    said = [event for event in shop.events if isinstance(event, Warning_)]
    assert [event.code for event in said] == (["CacheMountInUse"] if sharing == "locked" else [])
    shop.build(READ % sharing)
    assert shop.output() == log


def pybuild(shop: Workshop, dockerfile: str, *more: str) -> subprocess.Popen[bytes]:
    """A build in a process of its own."""
    path = shop.context / f"Dockerfile.{time.monotonic_ns()}"
    path.write_text(dockerfile)
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "builder.cli.main", "--root", shop.root, "build", "-f", str(path), *more),
            *("--network=none", "--progress=plain", str(shop.context)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_eight_builds_lock_one_cache(shop: Workshop) -> None:
    builds = [
        pybuild(
            shop,
            "FROM base\nRUN --mount=type=cache,id=c,target=/c,sharing=locked "
            f"echo + >> /c/log; sleep 0.3; echo - >> /c/log; : {number}\n",
        )
        for number in range(8)
    ]
    errors = [each.communicate()[1].decode() for each in builds]
    assert [each.returncode for each in builds] == [0] * 8, errors
    assert any("waiting for it" in each for each in errors)
    shop.build(READ % "locked")
    assert shop.output() == "+\n-\n" * 8


@pytest.mark.parametrize(("sharing", "seen"), [("shared", 8), ("private", 1)])
def test_eight_builds_meet_in_a_shared_cache_and_are_alone_in_a_private_one(
    shop: Workshop, sharing: str, seen: int
) -> None:
    """All eight steps run at once: each waits in another cache until the last has come."""
    step = (
        "FROM base\nRUN --mount=type=cache,id=meet,target=/m "
        f"--mount=type=cache,id=c,target=/c,sharing={sharing} "
        "echo + >> /c/log; touch /m/%d; n=0; while [ $(ls /m | wc -l) -lt 8 ]; do n=$((n + 1)); "
        "[ $n -lt 600 ] || exit 9; sleep 0.1; done; echo seen $(wc -l < /c/log)\n"
    )
    builds = [pybuild(shop, step % number) for number in range(8)]
    errors = [each.communicate()[1].decode() for each in builds]
    assert [each.returncode for each in builds] == [0] * 8, errors
    assert all(f" seen {seen}\n" in each for each in errors), errors


def test_a_killed_build_lets_go_of_its_lock(shop: Workshop) -> None:
    """SECURITY.md R04."""
    begun = "FROM base\nRUN --mount=type=cache,id=c,target=/c,sharing=locked touch /c/begun; sleep 60\n"
    first = pybuild(shop, begun)
    until_there(os.path.join(shop.root, "caches"), "begun")
    first.kill()
    first.communicate()
    second = pybuild(shop, begun.replace("sleep 60", "true"))
    assert second.wait(120) == 0
    second.communicate()


def until_there(folder: str, name: str) -> None:
    for _ in range(1000):
        if any(name in files for _, _, files in os.walk(folder)):
            return
        time.sleep(0.02)
    raise AssertionError(f"{name} never came")


def test_who_waits_for_a_cache_can_be_cancelled(tmp_path: Path) -> None:
    stop = threading.Event()
    said: list[Any] = []
    caches = Caches(str(tmp_path), stop, said.append)
    wanted = [Wanted(CacheMount("/c", "c", sharing="locked"))]
    with caches.taken(wanted):
        threading.Timer(0.1, stop.set).start()
        with pytest.raises(BuildError, match="cancelled"), caches.taken(wanted):
            raise AssertionError("it is locked")
    assert len(said) == 1


def test_a_step_takes_many_caches_in_one_order(tmp_path: Path) -> None:
    caches = Caches(str(tmp_path), threading.Event(), lambda _: None)
    mounts = [CacheMount("/a", "a", sharing="locked"), CacheMount("/b", "b", sharing="locked")]
    done: list[int] = []

    def take(order: list[CacheMount]) -> None:
        for _ in range(50):
            with caches.taken([Wanted(each) for each in (*order, order[0])]) as folders:
                assert folders[0] == folders[2]
        done.append(1)

    threads = [threading.Thread(target=take, args=(order,)) for order in (mounts, mounts[::-1])]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert len(done) == 2, "they wait for each other"


# ---- tmpfs ----


def test_a_tmpfs_has_its_size_and_is_gone(shop: Workshop) -> None:
    fill = "dd if=/dev/zero of=/t/x bs=1k count=128 2>/dev/null"
    built = shop.build(
        f"FROM base\nRUN --mount=type=tmpfs,target=/t,size=64k {fill}; stat -c '%s %a' /t/x /t\n"
        "RUN --mount=type=tmpfs,target=/t,ro touch /t/x 2>/dev/null || echo ro\n",
        outputs=shop.tar(),
    )
    assert shop.output() == "65536 644\n60 1777\nro\n"
    assert "t" not in shop.files(built)


# ---- network, security, hosts, limits ----


def test_an_insecure_step_has_all_capabilities_and_nothing_masked(shop: Workshop) -> None:
    look = "grep CapEff /proc/self/status; echo 1 > /proc/sys/net/ipv4/ip_forward && mount -t tmpfs x /mnt"
    line = f"FROM base\nRUN mkdir /mnt\nRUN --security=insecure {look}\n"
    with pytest.raises(DockerfileError, match="not allowed") as caught:
        shop.build(line)
    assert "--allow security.insecure" in caught.value.hint and caught.value.at
    shop.build(line, allow=frozenset({"security.insecure"}))
    with open("/proc/self/status", encoding="ascii") as file:
        mine = next(each for each in file if each.startswith("CapPrm")).split()[1]
    assert shop.output().split()[1] == mine
    with pytest.raises(StepFailed):
        shop.build(line.replace("--security=insecure ", ""), allow=frozenset({"security.insecure"}))


@pytest.mark.parametrize(
    "asked",
    [{"network": "host"}, {"security": "insecure"}, {"security_opts": ("seccomp=unconfined",)}],
)
def test_s35_no_way_to_a_process_leads_around_the_entitlements(asked: Any) -> None:
    op = Exec(("true",), (), **asked)
    runner = Runner(stubs="", logs=lambda: "", emit=lambda _: None)
    with pytest.raises(SandboxError, match="not allowed"):
        runner.sandbox(op, None, lambda: None)  # type: ignore[arg-type, return-value]


def test_security_options(shop: Workshop) -> None:
    look = "FROM base\nRUN grep -E 'NoNewPrivs|Seccomp:' /proc/self/status\n"
    shop.build(look)
    assert shop.output().split()[1::2] == ["0", "2"]
    shop.build(look, security_opts=("no-new-privileges",))  # another key, so it runs again
    assert shop.output().split()[1::2] == ["1", "2"]
    with pytest.raises(UsageError, match="seccomp=unconfined is not allowed") as caught:
        shop.build(look, security_opts=("seccomp=unconfined",))
    assert caught.value.hint == "allow it with --allow security.insecure"
    shop.build(look, security_opts=("seccomp=unconfined",), allow=frozenset({"security.insecure"}))
    assert shop.output().split()[1::2] == ["0", "0"]


def test_entitlements_must_exist() -> None:
    with pytest.raises(UsageError) as caught:
        entitlements.granted(["network.hots"], "default")
    assert "network.host" in caught.value.hint
    with pytest.raises(UsageError, match="is no entitlement"):
        entitlements.granted(["device=/x"], "default")
    assert entitlements.granted(["device=vendor/x"], "default") == {"device=vendor/x"}


@pytest.mark.parametrize(("network", "seen"), [("default", "10."), ("host", "127.0.0.1"), ("none", "")])
def test_the_hosts_gateway(shop: Workshop, network: str, seen: str) -> None:
    shop.build(
        "FROM base\nRUN grep h.internal /etc/hosts || true\n",
        network=network,
        extra_hosts=(("h.internal", "host-gateway"),),
    )
    assert shop.output().startswith(seen) and bool(shop.output()) == bool(seen)


def test_limits_that_cannot_be_given_are_an_error_before_anything_runs(shop: Workshop) -> None:
    with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
        most = int(file.read())
    with pytest.raises(UsageError, match="above the hard limit"):
        shop.build("FROM base\nRUN true\n", ulimits=(("nofile", 1, most + 1),))
    shop.build("FROM base\nRUN ulimit -n -H\n", ulimits=(("nofile", 9, 99),))
    assert shop.output().startswith("99\n")


# ---- what tries to get out (S33, S34) ----


@pytest.mark.parametrize("name", ["../../../../etc", "/etc", "..", ".", "a/../../b", b"\\x00".hex()])
def test_a_caches_name_is_no_path(shop: Workshop, name: str) -> None:
    """SECURITY.md S33."""
    shop.build(f"FROM base\nRUN --mount=type=cache,target=/c,id={name} ls -A /c; touch /c/mine\n")
    assert shop.output() == ""
    (folder,) = os.listdir(os.path.join(shop.root, "caches"))
    assert len(folder) == 40 and os.listdir(os.path.join(shop.root, "caches", folder, "fs")) == ["mine"]


@pytest.fixture
def outside(world: Any) -> str:
    """A directory of the host with a file nobody may see, which also exists as an image's path."""
    folder: str = world.path("outside")
    os.mkdir(folder)
    with open(folder + "/canary", "w", encoding="ascii") as file:
        file.write(HOST_CANARY)
    return folder


@pytest.mark.parametrize("link", ["/", "../../../../../../..", "{outside}", "/proc/1/root", "/proc/self/cwd"])
@pytest.mark.parametrize("read_only", [True, False])
def test_links_in_a_source_stay_inside(world: Any, outside: str, link: str, read_only: bool) -> None:
    """CVE-2024-1753, and the same for a cache (S33)."""
    cache = world.path("cache")
    os.makedirs(cache + "/real")
    os.symlink(link.format(outside=outside), cache + "/link")
    for path in ("link", f"link{outside}", "link/etc"):
        mounts = (
            Bind(cache, "/m", read_only, path),
            Layers("/n", (cache, world.image(f"image{world.made}{path.replace('/', '')}")), path),
        )
        for mount in mounts:
            exit_, output = world.run("sh", "-c", "ls -A /m /n; cat /m/canary /n/canary", mounts=(mount,))
            assert HOST_CANARY not in output and "hostname" not in output, (exit_, output)
            assert exit_.status == 125 or "real" in output or "bin" in output or "No such" in output


def test_a_source_that_is_swapped_all_the_time_shows_nothing_of_the_host(world: Any, outside: str) -> None:
    """CVE-2024-23651, CVE-2024-11218: a parallel step exchanges the path that is being mounted for a link.

    SECURITY.md S33.
    """
    cache = world.path("cache")
    os.makedirs(cache + "/here/sub")
    with open(cache + "/here/sub/canary", "w", encoding="ascii") as file:
        file.write("inside")
    os.symlink(outside, cache + "/link")
    hammer = subprocess.Popen([sys.executable, "-c", HAMMER, cache])
    seen = set()
    try:
        for number in range(1000):
            mount = Bind(cache, "/m", bool(number % 2), "here/sub")
            exit_, output = world.run("cat", "/m/canary", mounts=(mount,))
            assert HOST_CANARY not in output and HOST_CANARY not in exit_.error
            seen.add(output if exit_.status == 0 else exit_.status)
            assert hammer.poll() is None
    finally:
        hammer.kill()
        hammer.wait()
    assert seen > {"inside"}, "each of its states was met"
    assert os.listdir(outside) == ["canary"]


HAMMER = """
import os, sys
os.chdir(sys.argv[1])
moves = (("here/sub", "aside"), ("link", "here/sub"), ("here/sub", "link"), ("aside", "here/sub"))
while True:
    for first, second in moves:
        os.rename(first, second)
"""
"""A directory and a link out of it change places, thousands of times a second."""


def test_mount_points_made_in_a_cache_that_others_change(world: Any, outside: str) -> None:
    """A stub is made in a shared cache and its parent exchanged for a link out: nothing there is touched.

    SECURITY.md S34.
    """
    cache = world.path("cache")
    os.makedirs(cache + "/d")
    os.mkdir(outside + "/stub")
    mounts = (Bind(cache, "/c", path="d"), Tmpfs("/c/stub"), Bind(cache, "/all"))
    script = f"mv /all/d /all/e; ln -s {outside} /all/d; ls /c"
    exit_, output = world.run("sh", "-c", script, mounts=mounts)
    assert exit_.status == 0, (exit_, output)
    assert sorted(os.listdir(outside)) == ["canary", "stub"]


@pytest.mark.parametrize("before", ["true", "rm -rf /a; mkdir /a", "mkdir -p /a/b"])
def test_a_mount_points_parent_exchanged_for_a_link(shop: Workshop, tmp_path: Path, before: str) -> None:
    """CVE-2024-23652: taking away the mount point follows a link out of the root (S34)."""
    victim = tmp_path / "victim"
    (victim / "b").mkdir(parents=True)
    shop.build(
        f"FROM base\nRUN mkdir /a && touch /a/x\nRUN {before}\n"
        f"RUN --mount=type=tmpfs,target=/a/b mv /a /gone || true; ln -s {victim} /a || true\n"
    )
    assert (victim / "b").is_dir()


def test_a_file_in_place_of_a_directory_is_an_error(world: Any) -> None:
    cache = world.path("cache")
    os.mkdir(cache)
    with open(cache + "/f", "w", encoding="ascii"):
        pass
    exit_, _ = world.run("true", mounts=(Bind(cache, "/m", path="f/x"),))
    assert exit_.status == 125 and exit_.error

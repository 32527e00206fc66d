"""RUN --mount: which option belongs to which type, what it may say, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builder.errors import DockerfileError
from builder.frontend import forms_mount
from builder.frontend.lower import PlanOptions, plan
from builder.frontend.reader import decode
from builder.graph import ContextSource, Copy, Exec, Plan, Scratch, Step, walk
from builder.mounts import BindMount, CacheMount, Mount, SecretMount, SshMount, TmpfsMount
from oci.digest import Digest
from oci.image import Image
from oci.model import Descriptor, ImageConfig, Platform

AMD64 = Platform("linux", "amd64")
LAYER = b"layer"


def build(text: str, **options: object) -> Plan:
    config = ImageConfig(AMD64, diff_ids=(Digest.of(LAYER),))
    image = Image.of(config, (Descriptor.of("application/vnd.oci.image.layer.v1.tar", LAYER),))
    settings = PlanOptions(platform=AMD64, build_platform=AMD64)
    return plan(decode(text.encode(), "Dockerfile"), replace(settings, **options), lambda *_: image)  # type: ignore[arg-type]


def run(flags: str, before: str = "FROM a\nWORKDIR /w\n", **options: object) -> tuple[Exec, Step]:
    """The RUN with these flags, and its step."""
    step = build(f"{before}RUN {flags} x\n", **options).target
    assert isinstance(step.op, Exec)
    return step.op, step


OWN = {"step": 1, "source": "/source", "own": True}
MOUNTS: list[tuple[str, Mount]] = [
    ("target=/t", BindMount("/t", **OWN)),  # type: ignore[arg-type]
    ("type=bind,dst=t,src=a/../../b", BindMount("/w/t", **OWN)),  # type: ignore[arg-type]
    ("TYPE=BIND,DESTINATION=../t,rw", BindMount("/t", writable=True, **OWN)),  # type: ignore[arg-type]
    ("", BindMount("/w", **OWN)),  # type: ignore[arg-type]
    ("target=/t,readonly=false", BindMount("/t", writable=True, **OWN)),  # type: ignore[arg-type]
    ("target=/t,rw,ro", BindMount("/t", **OWN)),  # type: ignore[arg-type]
    ("target=/t,from=i", BindMount("/t", 1)),
    ("target=/t,from=i,source=x/../y", BindMount("/t", 1, "/y")),
    ("target=/t,from=scratch", BindMount("/t", 0)),
    ("type=cache,target=/c", CacheMount("/c", "/c")),
    ("type=cache,target=c/./d", CacheMount("/w/c/d", "c/d")),
    ("type=cache,target=/c,id=i,sharing=LOCKED,ro", CacheMount("/c", "i", "", "locked", True)),
    (
        "type=cache,target=/c,from=i,source=s,mode=0700,uid=1,gid=2,sharing=private",
        CacheMount("/c", "/c", "", "private", False, 1, "/s", 0o700, 1, 2),
    ),
    ("type=cache,target=/c,from=scratch", CacheMount("/c", "/c")),
    ("type=tmpfs,target=/t", TmpfsMount("/t")),
    ("type=tmpfs,target=/t,size=1.5m,ro=1", TmpfsMount("/t", 3 << 19, True)),
    ("type=secret,id=s", SecretMount("s", "/run/secrets/s")),
    ("type=secret,id=a/b", SecretMount("a/b", "/run/secrets/b")),
    ("type=secret,source=s", SecretMount("s", "/run/secrets/s")),
    ("type=secret,target=/etc/s", SecretMount("s", "/etc/s")),
    ("type=secret,id=s,env=S", SecretMount("s", "", "S")),
    ("type=secret,id=s,env=S,target=t", SecretMount("s", "/w/t", "S")),
    (
        "type=secret,id=s,required,mode=440,uid=3,gid=4,ro",
        SecretMount("s", "/run/secrets/s", "", True, 0o440, 3, 4),
    ),
    ("type=secret,id=s,required=false", SecretMount("s", "/run/secrets/s")),
    ("type=ssh", SshMount("default", "/run/buildkit/ssh_agent.0")),
    ("type=ssh,id=i,target=/s,required=true,mode=0,uid=1,gid=2", SshMount("i", "/s", True, 0, 1, 2)),
]


@pytest.mark.parametrize(("text", "expected"), MOUNTS)
def test_every_option_has_its_meaning(text: str, expected: Mount) -> None:
    assert run(f"--mount={text}")[0].mounts == (expected,)


def test_values_may_hold_variables() -> None:
    before = "FROM a\nARG T=cache\nARG N=x y\nENV R=1\n"
    op, _ = run('--mount=type=$T,id="$N",target=/c/${R},ro=$R --mount=type=secret,id=$NO$R', before)
    assert op.mounts == (CacheMount("/c/1", "x", read_only=True), SecretMount("1", "/run/secrets/1"))


def test_sockets_and_sources_are_numbered() -> None:
    op, step = run(
        "--mount=type=ssh --mount=type=ssh,id=b --mount=target=/a,from=one"
        " --mount=target=/b,from=one,source=/x --mount=target=/c,source=p --mount=target=/d,source=./p"
        " --mount=type=cache,target=/e,from=one",
        "FROM a AS one\nRUN y\nFROM a\n",
    )
    sockets = [each.target for each in op.mounts if isinstance(each, SshMount)]
    assert sockets == ["/run/buildkit/ssh_agent.0", "/run/buildkit/ssh_agent.1"]
    numbers = [each.step for each in op.mounts if isinstance(each, BindMount | CacheMount)]
    assert numbers == [1, 1, 2, 2, 1] and len(step.inputs) == 3


def test_a_context_is_read_no_further_than_it_is_shown() -> None:
    _, step = run("--mount=target=/t,source=a/[b]*,from=ctx", contexts={"ctx": None})
    copy = step.inputs[1]
    assert copy.op == Copy((ContextSource(("a/[b]*",), "ctx", exact=True),), "/source")
    assert isinstance(copy.inputs[0].op, Scratch) and "[context] a/[b]* of ctx" in copy.name
    _, step = run("--mount=type=cache,target=/t,from=ctx", contexts={"ctx": None})
    assert step.inputs[1].op == Copy((ContextSource((".",), "ctx", exact=True),), "/", True)


def test_the_namespace_of_caches_is_an_argument() -> None:
    op, _ = run("--mount=type=cache,target=/c", build_args={"BUILDKIT_CACHE_MOUNT_NS": "mine"})
    assert op.mounts == (CacheMount("/c", "/c", "mine"),)


def test_a_stage_that_is_mounted_is_built_and_others_are_not() -> None:
    made = build("FROM a AS one\nRUN y\nFROM a AS two\nRUN z\nFROM a\nRUN --mount=from=ONE,target=/t x\n")
    ran = [step.op.argv[-1] for step in walk(made.target) if isinstance(step.op, Exec)]
    assert sorted(ran) == ["x", "y"]


def test_onbuild_may_mount_stages() -> None:
    made = build(
        "FROM a AS one\nRUN y\nFROM a AS base\nONBUILD RUN --mount=from=one,target=/t x\nFROM base\n"
    )
    assert [step.op.argv[-1] for step in walk(made.target) if isinstance(step.op, Exec)] == ["y", "x"]


WRONG = [
    ("type=bnd", "no type `bnd`", "did you mean bind?"),
    ("tagret=/x", "no option `tagret`", "did you mean target?"),
    ("target=/x,bind-propagation=shared", "no option `bind-propagation`", "it knows"),
    ("target=/x,z", "no option `z`", "it knows"),
    ("target", "`target` needs a value", "target=VALUE"),
    ("dst", "`dst` needs a value", "dst=VALUE"),
    ("target=/x,id=a", "type=bind has no option `id`", "belongs to cache, secret, ssh"),
    ("target=/x,mode=7", "type=bind has no option `mode`", "cache, secret, ssh"),
    ("target=/x,size=1", "no option `size`", "belongs to tmpfs"),
    ("type=tmpfs,target=/x,from=a", "no option `from`", "bind, cache"),
    ("type=secret,id=s,sharing=locked", "no option `sharing`", "cache"),
    ("type=ssh,source=a", "no option `source`", "bind, cache, secret"),
    ("type=cache,target=/x,required", "no option `required`", "secret, ssh"),
    ("type=$T,target=/x,required", "no option `required`", "secret, ssh"),
    ("type=$A,target=/x", "no type `a`", "bind"),
    ("target=/x,from=$A", "variables are not replaced", "FROM $NAME AS source"),
    ("target=/x,from=$", "neither a stage", ""),
    ("target=/", "the root itself", "target=/PATH"),
    ("target=/x,ro=maybe", "ro=maybe".replace("ro", "readonly"), ""),
    ("type=cache,target=/x,sharing=lokced", "sharing=lokced", "did you mean locked?"),
    ("type=cache,target=/x,mode=9", "mode=9 is not an octal", ""),
    ("type=cache,target=/x,mode=17777", "mode=17777", ""),
    ("type=cache,target=/x,uid=root", "uid=root is not a number", ""),
    ("type=cache,target=/x,gid=4294967295", "gid=4294967295", ""),
    ("type=cache,target=/x,uid=-1", "uid=-1", ""),
    ("type=tmpfs,target=/x,size=lots", "size=lots is not a size", ""),
    ("type=secret", "it has no name", "id=NAME"),
    ("type=secret,id=a,source=b", "both name the secret", ""),
    ("type=secret,id=a,env=A-B", "no name of a variable", ""),
    ("type=secret,id=/", "cannot be /run/secrets", ""),
    ("type=secret,id=a,ro=false", "always read-only", ""),
    ("target=/x,from=9", "no stage 9", "count from 0"),
    ("target=/x,from=later", "comes after this one", "above it"),
    ("target=/x,from=here", "from its own stage", "earlier ones"),
]


@pytest.mark.parametrize(("text", "message", "advice"), WRONG)
def test_what_cannot_be_says_where_and_why(text: str, message: str, advice: str) -> None:
    """SECURITY.md S38."""
    with pytest.raises(DockerfileError) as caught:
        build(
            f"FROM a AS here\nARG A=a\nARG T=cache\nRUN --mount={text} x\nFROM a AS later\nRUN y\nFROM here\n"
            "COPY --from=later / /\n"
        )
    assert message in str(caught.value) and advice in caught.value.hint
    assert caught.value.at and caught.value.at.first == 4


def test_options_count_in_stages_that_are_not_built() -> None:
    with pytest.raises(DockerfileError, match="no option `id`"):
        build("FROM a AS unused\nRUN --mount=target=/x,id=a x\nFROM a\n")


def test_every_option_belongs_to_a_type() -> None:
    """SECURITY.md S38."""
    assert set(forms_mount.ALIASES.values()) < set(forms_mount.NAMES)
    assert set(forms_mount.FLAGS) < set(forms_mount.NAMES)


def test_how_something_is_mounted_is_part_of_the_definition() -> None:
    """Each variant is other work than each other one, and than no mount at all (S70)."""
    found = {repr(Exec(("x",), ()).definition())}
    found |= {repr(Exec(("x",), (), mounts=(mount,)).definition()) for _, mount in MOUNTS}
    assert len(found) == 1 + len({mount for _, mount in MOUNTS})
    assert Exec(("x",), ()).definition() != Exec(("x",), (), security="insecure").definition()


SECURITY = [
    ("", frozenset(), "sandbox"),
    ("--security=sandbox", frozenset(), "sandbox"),
    ("--security=insecure", frozenset({"security.insecure"}), "insecure"),
    ("", frozenset({"security.insecure"}), "sandbox"),
]


@pytest.mark.parametrize(("flag", "allow", "expected"), SECURITY)
def test_security_is_what_was_asked_for_and_allowed(flag: str, allow: frozenset[str], expected: str) -> None:
    assert run(flag, allow=allow)[0].security == expected


@pytest.mark.parametrize("allow", [frozenset(), frozenset({"network.host"})])
def test_more_privilege_than_allowed_is_an_error(allow: frozenset[str]) -> None:
    with pytest.raises(DockerfileError, match="--security=insecure is not allowed") as caught:
        run("--security=insecure", allow=allow, network="host")
    assert "--allow security.insecure" in caught.value.hint

"""What `-v`, `--mount` and `--tmpfs` ask for."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.container.volumes import Volume, arranged, parse, parse_mounts, parse_tmpfs
from builder.errors import UsageError

GIB = 1 << 30


def silent(text: str) -> None:
    raise AssertionError(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data", Volume("volume", "", "/data")),
        ("/data/../x//", Volume("volume", "", "/x")),
        ("cache:/data", Volume("volume", "cache", "/data")),
        ("a.b_c-1:/data:ro", Volume("volume", "a.b_c-1", "/data", True)),
        ("cache:/data:nocopy,ro", Volume("volume", "cache", "/data", True, False)),
        ("cache:/data:rw", Volume("volume", "cache", "/data")),
        ("/src:/data", Volume("bind", "/src", "/data", create=True)),
        ("/src/../x:/data:ro,rprivate", Volume("bind", "/x", "/data", True, create=True)),
        ("/:/host:ro,cached", Volume("bind", "/", "/host", True, create=True)),
        ("./x:/data", Volume("bind", os.path.abspath("x"), "/data", create=True)),
        ("..:/data", Volume("bind", os.path.dirname(os.getcwd()), "/data", create=True)),
    ],
)
def test_short_forms(text: str, expected: Volume) -> None:
    assert parse([text], silent) == (expected,)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected [SOURCE:]TARGET[:OPTIONS]"),
        (":/data", "expected [SOURCE:]TARGET[:OPTIONS]"),
        ("a:/b:ro:x", "expected [SOURCE:]TARGET[:OPTIONS]"),
        ("cache:", "expected [SOURCE:]TARGET[:OPTIONS]"),
        ("data", "'data' is no absolute path"),
        ("cache:data", "'data' is no absolute path"),
        ("/data:ro", "options need a source"),
        ("/", "nothing can be mounted at /"),
        ("cache:/..", "nothing can be mounted at /"),
        ("a/b:/data", "'a/b' is no name"),
        ("x:/data", "'x' is no name"),
        ("-ab:/data", "'-ab' is no name"),
        ("a" * 256 + ":/data", "is no name"),
        ("cache:/data:wr", "'wr' is no option of a volume"),
        ("/src:/data:nocopy", "'nocopy' is no option of a bind"),
        ("cache:/data:ro,rw", "contradict"),
        ("cache:/data:ro,ro", "repeat"),
        ("/src:/data:z,Z", "contradict"),
        ("/src:/data:rshared", "mounts cannot be rshared"),
        ("/src:/data:slave", "mounts cannot be slave"),
    ],
)
def test_what_is_no_volume(text: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(["good:/good", text], silent)
    assert why in str(caught.value) + caught.value.hint
    assert f"-v {text}" in str(caught.value)


def test_labels_are_left_as_they_are() -> None:
    said: list[str] = []
    assert parse(["/src:/data:Z"], said.append) == (Volume("bind", "/src", "/data", create=True),)
    assert said == ["-v /src:/data:Z: Z has no effect, SELinux labels are left as they are"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("target=/data", Volume("volume", "", "/data")),
        ("type=volume,src=cache,dst=/data,ro", Volume("volume", "cache", "/data", True)),
        ("source=cache,destination=/data,readonly=false", Volume("volume", "cache", "/data")),
        ("source=cache,target=/data,volume-nocopy", Volume("volume", "cache", "/data", copy=False)),
        ("source=cache,target=/data,volume-driver=local", Volume("volume", "cache", "/data")),
        ("type=bind,source=/src,target=/data,readonly=1", Volume("bind", "/src", "/data", True)),
        ("type=bind,source=./src,target=/data", Volume("bind", os.path.abspath("src"), "/data")),
        ("type=bind,source=/src,target=/data,bind-create-src", Volume("bind", "/src", "/data", create=True)),
        ('type=bind,"source=/a,b",target=/data', Volume("bind", "/a,b", "/data")),
        ("type=bind,source=/src,target=/data,bind-propagation=rprivate", Volume("bind", "/src", "/data")),
        ("type=tmpfs,target=/t", Volume("tmpfs", "", "/t")),
        (
            "type=tmpfs,target=/t,tmpfs-size=1g,tmpfs-mode=0700",
            Volume("tmpfs", "", "/t", size=GIB, mode=0o700),
        ),
        ("type=tmpfs,target=/t,rw=false", Volume("tmpfs", "", "/t", True)),
        ("TYPE=tmpfs,Target=/t", Volume("tmpfs", "", "/t")),
    ],
)
def test_long_forms(text: str, expected: Volume) -> None:
    assert parse_mounts([text]) == (expected,)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "target=PATH is missing"),
        ("/src", "is no KEY=VALUE"),
        ("type=npipe,target=/x", "no type 'npipe'"),
        ("type=bind,source=/src", "target=PATH is missing"),
        ("type=bind,target=/x", "'' is no source of a bind"),
        ("type=bind,source=name,target=/x", "'name' is no source of a bind"),
        ("source=/src,target=/x", "'/src' is no name"),
        ("target=x", "'x' is no absolute path"),
        ("target=/", "nothing can be mounted at /"),
        ("target=/x,readonly=maybe", "readonly is true or false, not 'maybe'"),
        ("target=/x,dst=/y", "target is there twice"),
        ("target=/x,volume-opt=type=nfs", "volume-opt cannot be given"),
        ("target=/x,volume-driver=nfs", "there is no driver 'nfs'"),
        ("target=/x,tmpfs-size=1", "tmpfs-size is not for type=volume"),
        ("type=tmpfs,target=/x,source=y", "a tmpfs has no source"),
        ("type=tmpfs,target=/x,tmpfs-size=big", "'big' is no size"),
        ("type=tmpfs,target=/x,tmpfs-mode=9", "'9' is no mode"),
        ("type=bind,source=/s,target=/x,bind-propagation=shared", "mounts cannot be shared"),
        ("type=bind,source=/s,target=/x,consistency=odd", "consistency 'odd'"),
        ('type=bind,"source=/s,target=/x', "quotes"),
    ],
)
def test_what_is_no_mount(text: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_mounts([text])
    assert why in str(caught.value)
    assert f"--mount {text}" in str(caught.value)


def test_memory() -> None:
    assert parse_tmpfs(["/run", "/tmp:rw,noexec,nosuid,size=65536k,mode=755", "/x:exec,ro"]) == (
        Volume("tmpfs", "", "/run"),
        Volume("tmpfs", "", "/tmp", size=64 << 20, mode=0o755),
        Volume("tmpfs", "", "/x", True, executable=True),
    )
    for text, why in (("run", "absolute"), ("/x:uid=1", "'uid=1' cannot"), ("/x:size=50%", "no size")):
        with pytest.raises(UsageError, match=why):
            parse_tmpfs([text])


def test_arranged() -> None:
    """What lies in another comes after it; an image's volume gives way to what is mounted there."""
    given_ = [*parse(["/a:/x/y", "data:/x"], silent), *parse_tmpfs(["/x/y/z"])]
    found = arranged(given_, ["/x/", "/var/lib", "relative", "/"])
    assert [(each.kind, each.target) for each in found] == [
        ("volume", "/relative"),
        ("volume", "/x"),
        ("volume", "/var/lib"),
        ("bind", "/x/y"),
        ("tmpfs", "/x/y/z"),
    ]
    assert [each.source for each in found][:2] == ["", "data"]
    with pytest.raises(UsageError, match="duplicate mount point: /x"):
        arranged([*given_, Volume("tmpfs", "", "/x")])


NAMES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,20}", fullmatch=True)
PATHS = st.from_regex(r"(/[a-z0-9_]{1,8}){1,4}", fullmatch=True)


@given(st.one_of(NAMES, PATHS), PATHS, st.booleans())
def test_both_forms_say_the_same(source: str, target: str, read_only: bool) -> None:
    (short,) = parse([f"{source}:{target}:{'ro' if read_only else 'rw'}"], silent)
    kind = "bind,bind-create-src" if source.startswith("/") else "volume"
    assert parse_mounts([f"type={kind},src={source},dst={target},ro={read_only}"]) == (short,)
    assert (short.source, short.target, short.read_only) == (source, target, read_only)


@given(st.text(alphabet='ab/.:,=roz"- \0', max_size=24))
def test_anything_is_a_volume_or_an_error(text: str) -> None:
    for read in (
        lambda: parse([text], lambda _: None),
        lambda: parse_mounts([text]),
        lambda: parse_tmpfs([text]),
    ):
        try:
            found = read()
        except UsageError:
            continue
        for each in found:
            assert each.target.startswith("/") and each.target != "/" and ".." not in each.target.split("/")
            assert each.kind != "bind" or each.source.startswith("/")

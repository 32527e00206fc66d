"""A Dockerfile to a step graph: scopes, stages, steps, config and history."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from builder.errors import BuildError, DockerfileError, NotFound, RegistryFailed, UsageError
from builder.events import Warning_
from builder.frontend.lower import PlanOptions, plan
from builder.frontend.reader import decode
from builder.giturl import GitUrl
from builder.graph import (
    Base,
    ContextSource,
    Copy,
    Exec,
    GitSource,
    HttpSource,
    InlineFile,
    InlineSource,
    Mkdir,
    Plan,
    Scratch,
    StepSource,
    walk,
)
from builder.source import SourceRange
from oci.digest import Digest
from oci.image import Image
from oci.model import Descriptor, Healthcheck, ImageConfig, Platform, RunConfig

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Find = Callable[[str, Platform], Image]


def image(*, layers: int = 1, platform: Platform = AMD64, author: str = "", **config: object) -> Image:
    """An image with this config and some layers."""
    run = RunConfig(**{"env": ("PATH=/bin",), **config})  # type: ignore[arg-type]
    contents = [b"layer %d" % number for number in range(layers)]
    diff_ids = tuple(Digest.of(each) for each in contents)
    media_type = "application/vnd.oci.image.layer.v1.tar"
    descriptors = tuple(Descriptor.of(media_type, each) for each in contents)
    return Image.of(ImageConfig(platform, run, diff_ids, author=author), descriptors)


def build(text: str | bytes, find: Find | None = None, **options: object) -> Plan:
    """The plan of a Dockerfile whose bases are all `image()`, or what `find` gives."""

    def resolve(reference: str, platform: Platform, at: SourceRange) -> Image:
        return find(reference, platform) if find else image(platform=platform)

    settings = PlanOptions(**{"platform": AMD64, "build_platform": AMD64, **options})  # type: ignore[arg-type]
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return plan(decode(content, "Dockerfile"), settings, resolve)


def history(made: Plan) -> list[str]:
    return [each.created_by for each in made.records]


def execs(made: Plan) -> list[Exec]:
    return [step.op for step in walk(made.target) if isinstance(step.op, Exec)]


def copies(made: Plan) -> list[Copy]:
    return [step.op for step in walk(made.target) if isinstance(step.op, Copy)]


def names(made: Plan) -> list[str]:
    return [step.name for step in walk(made.target)]


# --- scopes of variables (I02-I05, P14) ---------------------------------------------------------------------

SCOPES = [
    ("ARG A=1\nFROM a\nRUN x", {}, {}),
    ("ARG A=1\nFROM a\nARG A\nRUN x", {}, {"A": "1"}),
    ("ARG A=1\nFROM a\nARG A=2\nRUN x", {}, {"A": "2"}),
    ("ARG A\nFROM a\nARG A\nRUN x", {}, {}),
    ("ARG A\nFROM a\nARG A\nRUN x", {"A": "3"}, {"A": "3"}),
    ("FROM a\nRUN x\nARG A=1", {"A": "3"}, {}),
    ("FROM a\nARG A=1\nRUN x", {"A": "3"}, {"A": "3"}),
    ("FROM a\nARG A=1\nARG B=${A}2\nRUN x", {}, {"A": "1", "B": "12"}),
    ("FROM a\nARG A=1 B=$A\nRUN x", {}, {"A": "1", "B": "1"}),
    ("ARG A=1\nARG B=${A}2\nFROM a\nARG B\nRUN x", {}, {"B": "12"}),
    ("ARG A=1\nARG B=${A}2\nFROM a\nARG B\nRUN x", {"A": "9"}, {"B": "92"}),
    ("FROM a\nARG A=1\nENV A=2\nRUN x", {"A": "3"}, {"A": "2"}),
    ("FROM a\nENV A=2\nARG A=1\nRUN x", {}, {"A": "1"}),
    ("FROM a\nENV A=1\nENV A=2 B=$A\nRUN x", {}, {"A": "2", "B": "1"}),
    (
        "FROM a\nARG TARGETARCH\nARG BUILDPLATFORM\nRUN x",
        {},
        {"TARGETARCH": "arm64", "BUILDPLATFORM": "linux/amd64"},
    ),
    ("FROM a\nARG TARGETARCH=x\nRUN x", {}, {"TARGETARCH": "x"}),
    ("FROM a\nARG TARGETARCH\nRUN x", {"TARGETARCH": "y"}, {"TARGETARCH": "y"}),
    ("FROM a\nARG TARGETSTAGE\nRUN x", {}, {"TARGETSTAGE": "default"}),
    ("FROM a AS q\nARG TARGETSTAGE\nRUN x", {}, {"TARGETSTAGE": "q"}),
    ("FROM a AS q\nARG A=1\nENV E=2\nFROM q\nRUN x", {}, {"A": "1", "E": "2"}),
    ("FROM a AS q\nARG A=1\nENV A=2\nARG A=3\nFROM q\nRUN x", {}, {"A": "2"}),
    ("FROM a\nARG HTTP_PROXY\nRUN x", {"HTTP_PROXY": "p"}, {"HTTP_PROXY": "p"}),
    ("FROM a\nARG BUILDKIT_SBOM_SCAN_STAGE=1\nRUN x", {}, {}),
]


@pytest.mark.parametrize(("text", "given", "expected"), SCOPES)
def test_run_sees_the_variables_in_scope(text: str, given: dict[str, str], expected: dict[str, str]) -> None:
    env = dict(execs(build(text, build_args=given, platform=ARM64))[0].env)
    assert env.pop("PATH") == "/bin"
    assert env == expected


def test_proxies_reach_run_and_are_part_of_no_key() -> None:
    text = "FROM a\nRUN x"
    plain, proxied = build(text), build(text, build_args={"https_proxy": "p", "NO_PROXY": "q"})
    assert execs(proxied)[0].proxy_env == (
        ("NO_PROXY", "q"),
        ("no_proxy", "q"),
        ("HTTPS_PROXY", "p"),
        ("https_proxy", "p"),
    )
    assert execs(proxied)[0].env == execs(plain)[0].env
    assert proxied.target.digest == plain.target.digest
    assert history(proxied) == history(plain)


def test_an_arg_is_in_the_key_from_the_first_run_that_sees_it() -> None:
    text = "FROM a\nRUN one\nARG A\nRUN two"
    first, second = (build(text, build_args={"A": value}) for value in ("1", "2"))
    assert first.target.digest != second.target.digest
    assert first.target.inputs[0].digest == second.target.inputs[0].digest


def test_build_arguments_that_nobody_declared_are_named() -> None:
    said: list[Warning_] = []
    given = {
        "A": "1",
        "no": "2",
        "also": "3",
        "HTTP_PROXY": "x",
        "TARGETOS": "x",
        "BUILDKIT_INLINE_CACHE": "1",
    }
    build("ARG A\nFROM a\n", build_args=given, warn=said.append)
    assert [each.message for each in said] == ["[Warning] One or more build-args [also no] were not consumed"]


def test_with_a_clock_run_sees_a_fixed_time_unless_it_asks_for_the_real_one() -> None:
    assert ("SOURCE_DATE_EPOCH", "315532800") in execs(build("FROM a\nRUN x", clock=1700000000))[0].env
    first, second = (build("FROM a\nRUN x", clock=clock) for clock in (1, 2))
    assert first.target.digest == second.target.digest != build("FROM a\nRUN x").target.digest
    asked = build("FROM a\nARG SOURCE_DATE_EPOCH=5\nRUN x", clock=1700000000)
    assert ("SOURCE_DATE_EPOCH", "1700000000") in execs(asked)[0].env
    assert "SOURCE_DATE_EPOCH" not in dict(execs(build("FROM a\nRUN x"))[0].env)
    assert history(build("FROM a\nRUN x", clock=1)) == ["RUN /bin/sh -c x # buildkit"]


# --- RUN (P11, I07, I40) ------------------------------------------------------------------------------------

RUNS = [
    ("RUN a  b", ("/bin/sh", "-c", "a  b")),
    ("RUN a \\\n  b", ("/bin/sh", "-c", "a   b")),
    ("RUN a \\\n# c\n\tb", ("/bin/sh", "-c", "a \tb")),
    ("RUN a 'b' \"$c\" \\d", ("/bin/sh", "-c", "a 'b' \"$c\" \\d")),
    ('RUN ["a", "b $c"]', ("a", "b $c")),
    ('SHELL ["/bin/bash", "-ec"]\nRUN a', ("/bin/bash", "-ec", "a")),
    ('SHELL ["/x"]\nRUN ["a"]', ("a",)),
    ("RUN <<EOF\na $b\n\nEOF", ("/bin/sh", "-c", "a $b\n\n")),
    ("RUN <<-EOF\n\ta\n\tEOF", ("/bin/sh", "-c", "a\n")),
    ("RUN <<'EOF'\na\nEOF", ("/bin/sh", "-c", "a\n")),
    ("RUN <<EOF sh -s\na\nEOF", ("/bin/sh", "-c", "<<EOF sh -s\na\nEOF")),
    ("RUN cat <<-EOF >x\n\ta\n\tEOF", ("/bin/sh", "-c", "cat <<-EOF >x\n\ta\nEOF")),
    ("RUN <<A cat >f && <<B cat\na\nA\nb\nB", ("/bin/sh", "-c", "<<A cat >f && <<B cat\na\nA\nb\nB")),
    ("RUN <<EOF\n#!/bin/x\na\nEOF", ("/bin/sh", "-c", "/dev/pipes/EOF")),
]


@pytest.mark.parametrize(("text", "argv"), RUNS)
def test_run_becomes_an_argument_vector(text: str, argv: tuple[str, ...]) -> None:
    made = build("FROM a\n" + text)
    assert execs(made)[0].argv == argv
    assert history(made)[-1] == f"RUN {' '.join(argv)} # buildkit"


def test_a_heredoc_with_a_shebang_is_a_file_of_its_own() -> None:
    op = execs(build(b"FROM a\nRUN <<-'EOF'\n\t#!/bin/x\n\t\xff\n\tEOF\n"))[0]
    assert [(each.name, each.content) for each in op.files] == [("EOF", b"#!/bin/x\n\xff\n")]


def test_a_step_knows_where_it_runs_and_as_whom() -> None:
    op = execs(build("FROM a\nWORKDIR b/c\nUSER $U:2\nENV U=1\nUSER $U:2\nRUN x", hostname="h", shm_size=1))[
        0
    ]
    assert (op.cwd, op.user, op.hostname, op.shm_size) == ("/b/c", "1:2", "h", 1)


NETWORKS = [
    ("RUN x", "default", frozenset(), "default"),
    ("RUN x", "host", frozenset(), "host"),
    ("RUN --network=default x", "none", frozenset(), "none"),
    ("RUN --network=none x", "default", frozenset(), "none"),
    ("RUN --network=none x", "host", frozenset(), "none"),
    ("RUN --network=host x", "default", frozenset({"network.host"}), "host"),
    ("RUN --network=host x", "host", frozenset(), "host"),
    ("RUN --network=host x", "default", frozenset(), None),
]


@pytest.mark.parametrize(("text", "network", "allow", "expected"), NETWORKS)
def test_the_network_is_the_users_and_a_dockerfile_may_only_lessen_it(
    text: str, network: str, allow: frozenset[str], expected: str | None
) -> None:
    if expected is None:
        with pytest.raises(DockerfileError, match="not allowed") as caught:
            build("FROM a\n" + text, network=network, allow=allow)
        assert "--allow network.host" in caught.value.hint
    else:
        assert execs(build("FROM a\n" + text, network=network, allow=allow))[0].network == expected


# --- COPY and ADD (P12, I21-I28) ----------------------------------------------------------------------------

COPIES = [
    ("COPY a b", Copy((ContextSource(("a",)),), "/w/b")),
    ("COPY a /b", Copy((ContextSource(("a",)),), "/b")),
    ("COPY a /b/", Copy((ContextSource(("a",)),), "/b", True)),
    ("COPY a .", Copy((ContextSource(("a",)),), "/w", True)),
    ("COPY a ./", Copy((ContextSource(("a",)),), "/w", True)),
    ("COPY a ./x/.", Copy((ContextSource(("a",)),), "/w/x", True)),
    ("COPY a ../../../x", Copy((ContextSource(("a",)),), "/x")),
    ("COPY a $NO", Copy((ContextSource(("a",)),), "/w", True)),
    ("COPY a b /c", Copy((ContextSource(("a", "b")),), "/c")),
    ("COPY . /", Copy((ContextSource((".",)),), "/", True)),
    ("COPY ./a//b/ /c", Copy((ContextSource(("a/b",)),), "/c")),
    ("COPY /a ../b /c/", Copy((ContextSource(("a", "b")),), "/c", True)),
    ("COPY a* [ab] /c/", Copy((ContextSource(("a*", "[ab]")),), "/c", True)),
    ('COPY ["a b", "$V/"]', Copy((ContextSource(("a b",)),), "/w/v", True)),
    ("COPY $V '$V' \"$V\" x/", Copy((ContextSource(("v", "$V", "v")),), "/w/x", True)),
    ("COPY --chown=$V:1 --chmod=0644 a b", Copy((ContextSource(("a",)),), "/w/b", False, "v:1", "0644")),
    ("COPY --chmod=u=rwX,go=rX a b", Copy((ContextSource(("a",)),), "/w/b", False, "", "u=rwX,go=rX")),
    ("COPY --chmod=+x a b", Copy((ContextSource(("a",)),), "/w/b", False, "", "+x")),
    ("COPY --from=ctx a b", Copy((ContextSource(("a",), "ctx"),), "/w/b")),
    ("ADD a b", Copy((ContextSource(("a",)),), "/w/b", unpack=True)),
    ("ADD --unpack=false a b", Copy((ContextSource(("a",)),), "/w/b")),
    ("ADD --chown=1 --chmod=7777 a b", Copy((ContextSource(("a",)),), "/w/b", False, "1", "7777", True)),
    ("COPY <<e /d\n$V\ne", Copy((InlineSource((InlineFile("e", b"v\n"),)),), "/d")),
    ("COPY <<'e' /d\n$V\ne", Copy((InlineSource((InlineFile("e", b"$V\n"),)),), "/d")),
    ("COPY <<-e /d\n\t'$V' \\$V\n\te", Copy((InlineSource((InlineFile("e", b"'v' $V\n"),)),), "/d")),
    (
        "COPY <<e a <<f /d\n1\ne\n2\nf",
        Copy(
            (ContextSource(("a",)), InlineSource((InlineFile("e", b"1\n"), InlineFile("f", b"2\n")))),
            "/d",
        ),
    ),
]


@pytest.mark.parametrize(("text", "expected"), COPIES)
def test_copy_and_add_say_from_where_and_to_where(text: str, expected: Copy) -> None:
    made = build("FROM a\nENV V=v\nWORKDIR /w\n" + text, contexts={"ctx": None})
    assert copies(made) == [expected]


FLAGS = [
    ("COPY --link a b", Copy((ContextSource(("a",)),), "/b", link=True), "COPY a b"),
    ("COPY --link=false a b", Copy((ContextSource(("a",)),), "/b"), "COPY a b"),
    (
        "ADD --link --chown=5 a b",
        Copy((ContextSource(("a",)),), "/b", owner="5", unpack=True, link=True),
        "ADD --chown=5 a b",
    ),
    (
        "COPY --link --chown=root:root a b",
        Copy((ContextSource(("a",)),), "/b", owner="root:root", link=True),
        "COPY --chown=root:root a b",
    ),
    (
        "COPY --exclude=*.md --exclude=$E/x a b",
        Copy((ContextSource(("a",)),), "/b", exclude=("*.md", "e/x")),
        "COPY a b",
    ),
    (
        "COPY --parents ./x/a.txt /s/./t/**/u y/. /d/",
        Copy((ContextSource(("x/a.txt", "s/./t/**/u", "y")),), "/d", into_directory=True, parents=True),
        "COPY --parents ./x/a.txt /s/./t/**/u y/. /d/",
    ),
    ("COPY --if-exists a b", Copy((ContextSource(("a",)),), "/b", optional=True), "COPY a b"),
]


@pytest.mark.parametrize(("line", "expected", "said"), FLAGS)
def test_flags_of_copy_and_what_history_says_of_them(line: str, expected: Copy, said: str) -> None:
    made = build(f"FROM a\nENV E=e\n{line}\n")
    assert copies(made) == [expected]
    assert history(made)[-1] == f"{said} # buildkit"


SHA = "sha256:" + "0" * 64
ADDED = [
    (
        "https://h/p/f.txt?q=1 d/",
        HttpSource("https://h/p/f.txt?q=1", "f.txt"),
        "ADD https://h/p/f.txt?q=1 d/",
    ),
    ("https://h/a%20b /", HttpSource("https://h/a%20b", "a b"), "ADD https://h/a%20b /"),
    ("https://h/ /", HttpSource("https://h/"), "ADD https://h/ /"),
    (f"--checksum={SHA} http://h/f /", HttpSource("http://h/f", "f", SHA), "ADD http://h/f /"),
    ("--unpack https://h/f /", HttpSource("https://h/f", "f", "", True), "ADD https://h/f /"),
    (
        "https://u:p@h/r.git#v1:sub /",
        GitSource(GitUrl("https://h/r.git", "v1", "sub", userinfo="u:p")),
        "ADD https://h/r.git#v1:sub /",
    ),
    (
        "--keep-git-dir --checksum=abcdef1 git@h:r.git /",
        GitSource(GitUrl("git@h:r.git", "abcdef1", "", "abcdef1"), True),
        "ADD git@h:r.git /",
    ),
    (
        "https://h/r.git?keep-git-dir=1&submodules=0 /",
        GitSource(GitUrl("https://h/r.git", keep_git_dir=True, submodules=False), True),
        "ADD https://h/r.git?keep-git-dir=1&submodules=0 /",
    ),
]


@pytest.mark.parametrize(("rest", "expected", "said"), ADDED)
def test_what_add_fetches(rest: str, expected: HttpSource | GitSource, said: str) -> None:
    made = build(f"FROM a\nADD {rest}\n")
    assert [each.sources for each in copies(made)] == [(expected,)]
    assert history(made)[-1] == f"{said} # buildkit"
    assert "u:p" not in "".join(names(made))


def test_add_keeps_the_order_of_files_and_urls() -> None:
    (made,) = copies(build("FROM a\nADD a https://h/b c d /e/\n"))
    assert made.sources == (ContextSource(("a",)), HttpSource("https://h/b", "b"), ContextSource(("c", "d")))


# --- stages (I01, I20, I22, C05) ----------------------------------------------------------------------------


def _found(record: list[str]) -> Find:
    def find(reference: str, platform: Platform) -> Image:
        record.append(f"{reference} {platform}")
        return image(platform=platform)

    return find


def test_only_what_the_target_needs_is_resolved_and_each_image_once() -> None:
    asked: list[str] = []
    text = """
        FROM broken AS unused
        RUN --mount=type=cache,target=/x y
        FROM one AS a
        FROM one AS b
        COPY --from=a x y
        COPY --from=two:3 x y
        COPY --from=two:3 x z
        FROM b
        """
    build(text, _found(asked))
    assert asked == ["docker.io/library/one:latest linux/amd64", "docker.io/library/two:3 linux/amd64"]


def test_a_target_is_a_name_in_any_case_or_an_index() -> None:
    text = "FROM a AS one\nRUN 1\nFROM a AS Two\nRUN 2\nFROM a\nRUN 3"
    for target, command in (("", "3"), ("one", "1"), ("TWO", "2"), ("0", "1"), ("1", "2"), ("2", "3")):
        assert execs(build(text, target=target))[0].argv[-1] == command
    for target in ("tow", "3", "-1", "99999999999999999999"):
        with pytest.raises(UsageError, match="there is no stage") as caught:
            build(text, target=target)
    with pytest.raises(UsageError) as caught:
        build(text, target="tow")
    assert "did you mean two?" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        build("FROM a", target="x")
    assert "no stage here has a name" in caught.value.hint


def test_stages_inherit_config_history_and_files() -> None:
    made = build(
        "FROM x AS a\nENV E=1\nUSER 5\nRUN 1\nLABEL l=1\nFROM A\nRUN 2\n", lambda *_: image(author="me")
    )
    assert history(made) == [
        "ENV E=1",
        "USER 5",
        "RUN /bin/sh -c 1 # buildkit",
        "LABEL l=1",
        "RUN /bin/sh -c 2 # buildkit",
    ]
    assert made.config.config.env == ("PATH=/bin", "E=1")
    assert (made.config.config.user, made.config.author) == ("5", "me")
    assert made.config.config.labels == {"l": "1"}
    assert made.base is not None
    assert next(step.op for step in walk(made.target)) == Base("docker.io/library/x:latest", made.base)
    assert set(made.stages) == {"0", "a", "1"}
    assert made.stages["a"].digest == made.target.inputs[0].digest


def test_every_layer_has_its_line_of_history() -> None:
    made = build("FROM a\nENV a=b\nWORKDIR /x\nWORKDIR /\nRUN y\nCOPY a b\nCMD z\n")
    assert [(each.created_by, each.step is not None) for each in made.records] == [
        ("ENV a=b", False),
        ("WORKDIR /x", True),
        ("WORKDIR /", False),
        ("RUN /bin/sh -c y # buildkit", True),
        ("COPY a b # buildkit", True),
        ('CMD ["/bin/sh" "-c" "z"]', False),
    ]
    assert {each.comment for each in made.records} == {"buildkit.dockerfile.v0"}
    assert [each.step for each in made.records if each.step][-1] is made.target


def test_copy_from_means_a_context_a_stage_an_index_or_an_image() -> None:
    asked: list[str] = []
    text = "FROM a AS s\nRUN x\nFROM b\n" + "".join(
        f"COPY --from={each} p q\n" for each in ("S", "0", "im", "scratch")
    )
    made = build(text, _found(asked))
    sources = [step.inputs[1] for step in walk(made.target) if isinstance(step.op, Copy)]
    assert [type(each.op) for each in sources] == [Exec, Exec, Base, Scratch]
    assert all(each.sources == (StepSource(("p",)),) for each in copies(made))
    assert asked == [
        "docker.io/library/a:latest linux/amd64",
        "docker.io/library/b:latest linux/amd64",
        "docker.io/library/im:latest linux/amd64",
    ]


def test_a_named_context_comes_before_a_stage_and_an_image() -> None:
    ours = image(env=("PATH=/ours",))
    text = (
        "FROM a AS s\nRUN broken\nFROM base\nCOPY --from=s p q\nCOPY --from=docker.io/library/im:latest p q"
    )
    made = build(text, contexts={"s": None, "base": lambda _: ours, "im": lambda _: ours})
    assert made.config.config.env == ("PATH=/ours",)
    assert execs(made) == []
    first, second = copies(made)
    assert first.sources == (ContextSource(("p",), "s"),)
    assert second.sources == (StepSource(("p",)),)
    assert Base("base", ours) in [step.op for step in walk(made.target)]


def test_a_named_context_of_the_platform_goes_first() -> None:
    plain, arm = image(env=("PATH=/plain",)), image(env=("PATH=/arm",))
    contexts = {
        "base": lambda _: plain,
        "base::linux/arm64": lambda _: arm,
        "d::linux/arm64": None,
        "d": None,
    }
    for platform, path, name in ((AMD64, "/plain", "d"), (ARM64, "/arm", "d::linux/arm64")):
        made = build("FROM base\nCOPY --from=d p q\n", contexts=contexts, platform=platform)
        assert made.config.config.env == (f"PATH={path}",)
        assert copies(made)[0].sources == (ContextSource(("p",), name),)
    made = build("FROM --platform=linux/arm64 base\n", contexts=contexts)
    assert made.config.config.env == ("PATH=/arm",)
    made = build("FROM other\n", contexts={"other::linux/arm64": lambda _: arm})
    assert made.config.config.env == ("PATH=/bin",), "a platform that is not built for"


def test_a_directory_may_be_a_base() -> None:
    made = build("FROM files\nRUN x", contexts={"files": None})
    assert [step.op for step in walk(made.target)][:2] == [
        Scratch(),
        Copy((ContextSource((".",), "files"),), "/", True),
    ]
    assert [each.created_by for each in made.records] == ["FROM files", "RUN /bin/sh -c x # buildkit"]
    assert made.records[0].step is made.target.inputs[0]
    assert made.base is None


def test_scratch_begins_with_nothing() -> None:
    made = build("FROM scratch\nCOPY a b", contexts={"scratch": lambda _: image()})
    assert made.base is None
    assert made.config.config == RunConfig(env=(PATH,), working_dir="/")
    assert made.config.diff_ids == () and made.config.history == ()
    assert [type(step.op) for step in walk(made.target)] == [Scratch, Copy]


def test_an_image_without_path_gets_one() -> None:
    assert build("FROM a\nENV b=c", lambda *_: image(env=("X=1",))).config.config.env == ("X=1", PATH, "b=c")


def test_platforms() -> None:
    asked: list[str] = []
    text = "FROM --platform=$BUILDPLATFORM a AS b\nRUN x\nFROM c\nCOPY --from=b x y\nCOPY --from=d x y"
    made = build(text, _found(asked), platform=ARM64, platform_is_default=False)
    assert asked == [
        f"docker.io/library/{each}" for each in ("a:latest linux/amd64", "c:latest linux/arm64")
    ] + ["docker.io/library/d:latest linux/arm64"]
    assert made.platform == made.config.platform == ARM64
    only = build("FROM --platform=linux/arm64 a", platform=AMD64)
    assert only.platform == ARM64
    assert build("FROM --platform=linux/arm64 a", platform=AMD64, platform_is_default=False).platform == AMD64


def test_onbuild_runs_after_from_and_is_gone_afterwards() -> None:
    """SECURITY.md S71."""
    triggers = ("RUN one", "COPY --from=tools a b", "ENV x=y", "COPY <<e /d\nhi\ne")

    def find(reference: str, platform: Platform) -> Image:
        return image(on_build=triggers if "base" in reference else ())

    made = build("FROM t AS tools\nRUN tool\nFROM base AS mid\nRUN two\nONBUILD RUN three\nFROM mid\n", find)
    assert history(made) == [
        "RUN /bin/sh -c one # buildkit",
        "COPY a b # buildkit",
        "ENV x=y",
        "COPY <<e /d # buildkit",
        "RUN /bin/sh -c two # buildkit",
        "RUN /bin/sh -c three # buildkit",
    ]
    assert made.onbuild == (*triggers[:3], "COPY <<e /d", "RUN three")
    assert made.config.config.on_build == ()
    kept = build(
        "FROM base AS mid\nONBUILD RUN three\nONBUILD COPY a b", lambda *_: image(on_build=("RUN x",))
    )
    assert kept.config.config.on_build == ("RUN three", "COPY a b")


def test_labels_of_the_command_line_come_last_and_leave_no_history() -> None:
    made = build("FROM a\nLABEL a=1 b=2", labels={"b": "3", "c": "4"})
    assert made.config.config.labels == {"a": "1", "b": "3", "c": "4"}
    assert history(made) == ["LABEL a=1 b=2"]


# --- config and history -------------------------------------------------------------------------------------

LINES = [
    ("ARG a", "ARG a"),
    ("ARG a=1 b c=$a", "ARG a=1 b c=1"),
    ("ENV a=b 'c d'=\"e f\"", "ENV a=b c d=e f"),
    ("ENV a  b  c", "ENV a=b  c"),
    ('LABEL a="b c"', "LABEL a=b c"),
    ("MAINTAINER a b", "MAINTAINER a b"),
    ("EXPOSE 80 53/UDP 9-11", "EXPOSE [53/udp 80/tcp 9/tcp 10/tcp 11/tcp]"),
    ("EXPOSE 127.0.0.1:80:81", "EXPOSE [81/tcp]"),
    ("EXPOSE $NO", "EXPOSE []"),
    ("VOLUME /b /a", "VOLUME [/b /a]"),
    ('VOLUME ["/a b"]', "VOLUME [/a b]"),
    ("USER a:b", "USER a:b"),
    ("WORKDIR a//b/../c/", "WORKDIR /a/c"),
    ('SHELL ["a", "b"]', "SHELL [a b]"),
    ("STOPSIGNAL sigterm", "STOPSIGNAL sigterm"),
    ("STOPSIGNAL RTMIN+3", "STOPSIGNAL RTMIN+3"),
    ("STOPSIGNAL 9", "STOPSIGNAL 9"),
    ('CMD ["a", "b c"]', 'CMD ["a" "b c"]'),
    ("CMD []", "CMD []"),
    ("ENTRYPOINT a", 'ENTRYPOINT ["/bin/sh" "-c" "a"]'),
    (
        "HEALTHCHECK --interval=1m --retries=2 CMD a b",
        (
            "HEALTHCHECK {Test:[CMD-SHELL a b] Interval:1m0s Timeout:0s "
            "StartPeriod:0s StartInterval:0s Retries:2}"
        ),
    ),
    ("RUN --network=none a", "RUN /bin/sh -c a # buildkit"),
    ("COPY --chown=1:2 --chmod=755 --link a b c/", "COPY --chown=1:2 --chmod=755 a b c/ # buildkit"),
    ("COPY a <<e c/\nx\ne", "COPY a <<e c/ # buildkit"),
    ("ADD a $NO/b", "ADD a /b # buildkit"),
]


@pytest.mark.parametrize(("text", "line"), LINES)
def test_history_has_buildkits_wording(text: str, line: str) -> None:
    assert history(build("FROM a\n" + text))[-1] == line


def test_history_shows_the_args_a_run_saw() -> None:
    made = build("FROM a AS b\nARG x=1\nARG y\nENV x=2\nRUN 1\nFROM b\nARG z=3\nRUN 2")
    assert history(made)[-3] == "RUN |2 x=2 y= /bin/sh -c 1 # buildkit"
    assert history(made)[-1] == "RUN |3 x=2 y= z=3 /bin/sh -c 2 # buildkit"


def test_onbuild_of_a_base_can_be_refused() -> None:
    """SECURITY.md S71."""

    def find(reference: str, platform: Platform) -> Image:
        return image(on_build=("RUN one", "ENV x=y") if "base" in reference else ())

    with pytest.raises(DockerfileError, match=r"base brings ONBUILD.*: RUN one; ENV x=y") as caught:
        build("FROM a\nRUN two\nFROM base\n", find, no_onbuild=True)
    assert caught.value.at is not None and caught.value.at.first == 3
    build("FROM a AS mid\nONBUILD RUN three\nFROM mid", find, no_onbuild=True)  # of the file itself


def test_onbuild_leaves_no_line_of_history() -> None:
    assert history(build("FROM a\nONBUILD RUN x")) == []


def test_the_config_of_every_instruction() -> None:
    text = """
        FROM a
        ENV A=1
        LABEL l="x y" m=$A
        EXPOSE 80 53/udp
        VOLUME /v /u
        USER u
        WORKDIR w
        STOPSIGNAL SIGINT
        SHELL ["/s", "-c"]
        HEALTHCHECK --timeout=3s CMD ["h"]
        ONBUILD RUN y
        ENTRYPOINT ["e"]
        CMD c $A
        MAINTAINER who
        """
    config = build(text, lambda *_: image(labels={"k": "v"}, exposed_ports=("1/tcp",))).config
    assert config.author == "who"
    assert config.config == RunConfig(
        user="u",
        exposed_ports=("1/tcp", "53/udp", "80/tcp"),
        env=("PATH=/bin", "A=1"),
        entrypoint=("e",),
        cmd=("/s", "-c", "c $A"),
        volumes=("/u", "/v"),
        working_dir="/w",
        labels={"k": "v", "l": "x y", "m": "1"},
        stop_signal="SIGINT",
        args_escaped=True,
        healthcheck=Healthcheck(("CMD", "h"), timeout_ns=3_000_000_000),
        on_build=("RUN y",),
        shell=("/s", "-c"),
    )


def test_entrypoint_drops_a_cmd_that_came_with_the_base() -> None:
    def find(*_: object) -> Image:
        return image(cmd=("sh",), entrypoint=("old",))

    assert build("FROM a", find).config.config.cmd == ("sh",)
    assert build('FROM a\nENTRYPOINT ["e"]', find).config.config.cmd is None
    assert build('FROM a\nCMD ["c"]\nENTRYPOINT ["e"]', find).config.config.cmd == ("c",)
    assert build('FROM a AS b\nCMD ["c"]\nFROM b\nENTRYPOINT ["e"]', find).config.config.cmd is None
    assert build("FROM a\nENTRYPOINT []", find).config.config.entrypoint is None


def test_workdir_makes_a_directory_that_belongs_to_the_user_of_then() -> None:
    made = build(
        "FROM a\nWORKDIR /x\nUSER 1:2\nWORKDIR y\nWORKDIR /\nUSER 3", lambda *_: image(working_dir="/base")
    )
    assert [step.op for step in walk(made.target) if isinstance(step.op, Mkdir)] == [
        Mkdir("/x", ""),
        Mkdir("/x/y", "1:2"),
    ]
    assert made.config.config.working_dir == "/"
    assert (
        build("FROM a\nWORKDIR y", lambda *_: image(working_dir="/base")).config.config.working_dir
        == "/base/y"
    )


def test_text_that_is_no_utf8_goes_on_as_bytes_and_is_replaced_in_json() -> None:
    made = build(
        b"FROM a\nENV a=\xff\nLABEL b=\xff\nHEALTHCHECK CMD \xff\nRUN \xff\nCOPY <<e /x\n\xff$a\ne\n"
    )
    assert execs(made)[0].argv[-1].encode("utf-8", "surrogateescape") == b"\xff"
    assert copies(made)[0].sources == (InlineSource((InlineFile("e", b"\xff\xff\n"),)),)
    assert b"\xef\xbf\xbd" in made.config.to_json()
    assert history(made)[0] == "ENV a=\ufffd"


# --- what people see ----------------------------------------------------------------------------------------


def test_steps_are_named_as_buildkit_does() -> None:
    text = """
        FROM base AS one
        ENV x=1
        RUN echo $x ${no} "q"
        workdir $x
        FROM one AS two
        COPY --from=one a $x
        FROM scratch
        COPY --from=two a b
        """
    assert names(build(text)) == [
        "",
        "[one 1/3] FROM docker.io/library/base:latest",
        '[one 2/3] RUN echo 1 ${no} "q"',
        "[one 3/3] WORKDIR 1",
        "[two 1/1] COPY --from=one a 1",
        "[stage-2 1/1] COPY --from=two a b",
    ]


def test_a_single_stage_has_no_name_and_numbers_are_aligned() -> None:
    found = names(build("FROM a\n" + "RUN x\n" * 9))
    assert found[0] == "[ 1/10] FROM docker.io/library/a:latest"
    assert found[-1] == "[10/10] RUN x"


def test_triggers_and_heredocs_show_in_names() -> None:
    made = build("FROM a\nRUN <<E\necho $x\nmore\nE\n", lambda *_: image(on_build=("RUN t",)))
    assert names(made) == [
        "[1/3] FROM docker.io/library/a:latest",
        "[2/3] ONBUILD RUN t",
        "[3/3] RUN <<E (echo $x...)",
    ]
    assert names(build("FROM a\nRUN x", show_platform=True))[1] == "[linux/amd64 2/2] RUN x"


def test_steps_know_their_line_their_stage_and_whether_to_ask_the_cache() -> None:
    text = "FROM a AS One\nRUN x \\\n y\nFROM one AS two\nRUN z\n"
    steps = list(walk(build(text, no_cache_filter=frozenset({"ONE"})).target))
    assert [(step.stage, step.fresh) for step in steps] == [("one", False), ("one", True), ("two", False)]
    assert [(step.at.first, step.at.last) for step in steps if step.at] == [(1, 1), (2, 3), (5, 5)]
    assert [step.fresh for step in walk(build(text, no_cache=True).target)] == [False, True, True]
    assert build(text).target.digest == build(text, no_cache=True).target.digest


def test_a_name_that_is_no_stage_is_told() -> None:
    said: list[Warning_] = []
    names = frozenset({"one", "0", "TWO", "stage-2", "ome"})
    build("FROM a AS one\nFROM one AS two\nFROM two\n", no_cache_filter=names, warn=said.append)
    assert [each.message for each in said] == ["--no-cache-filter ome: there is no such stage"]


# --- what cannot be -----------------------------------------------------------------------------------------

BROKEN = [
    ("FROM $A", 1, "empty once its variables are replaced", "declare the ARG"),
    ("FROM ${A:?needed}", 1, "A: needed", ""),
    ("FROM a\nARG A=1\nFROM $A", 3, "empty once", ""),
    ("FROM UPPER", 1, "neither a stage before this line nor an image's name", ""),
    ("FROM --platform=a/b/c/d a", 1, "is no platform", "$BUILDPLATFORM"),
    ("FROM --platform=$NO a", 1, "is no platform", ""),
    ("FROM a AS b\nCOPY --from=b x y", 2, "copies from its own stage", ""),
    ("FROM a\nCOPY --from=0 x y", 2, "copies from its own stage", ""),
    ("FROM a\nCOPY --from=1 x y", 2, "there is no stage 1", "the last is 0"),
    ("FROM a\nCOPY --from=-1 x y", 2, "there is no stage -1", ""),
    ("FROM a\nCOPY --from=$b x y", 2, "variables are not replaced here", "FROM $NAME AS"),
    ("FROM a AS b\nFROM a AS c\nCOPY --from=d x y\nFROM b AS d\nFROM c", 3, "comes after this one", "move"),
    ("FROM a AS b\nCOPY --from=c x y\nFROM b AS c", 1, "needs itself", ""),
    ("FROM a AS b\nCOPY --from=d x y\nFROM b AS c\nFROM c AS d\nFROM a", 1, "needs itself", ""),
    ("FROM a\nCOPY --from=Bad$ x y", 2, "variables", ""),
    ("FROM a\nCOPY --from=x:y:z x y", 2, "neither a stage", ""),
    ("FROM a\nENV b='x", 2, "a single quote is opened", ""),
    ("FROM a\nENV b=${c", 2, "never closed", ""),
    ("FROM a\nARG b=${c:?say}", 2, "c: say", ""),
    ("ARG b=${c:?say}\nFROM a", 1, "c: say", ""),
    ("FROM a\nCOPY a ${c:?say}", 2, "c: say", ""),
    ("FROM a\nEXPOSE ${c:?say}", 2, "c: say", ""),
    ("FROM a\nCOPY <<e /x\n${c:?say}\ne", 2, "c: say", ""),
    ("FROM a\nEXPOSE http", 2, "`http` is no port", "8080"),
    ("FROM a\nEXPOSE 80/tpc", 2, "`tpc` is no protocol", "tcp"),
    ("FROM a\nEXPOSE 65536", 2, "is no port", ""),
    ("FROM a\nEXPOSE 9-8", 2, "is no port", ""),
    ("FROM a\nVOLUME $NO", 2, "empty path", ""),
    ("FROM a\nUSER 2147483648", 2, "ids go from 0", ""),
    ("FROM a\nUSER x:4294967296", 2, "ids go from 0", ""),
    ("FROM a\nUSER 99999999999999999999999999", 2, "ids go from 0", ""),
    ("FROM a\nWORKDIR " + "x/" * 3000, 2, "longer than the 4095", ""),
    ("FROM a\nSTOPSIGNAL SIGTREM", 2, "no such signal", "SIGTERM"),
    ("FROM a\nSTOPSIGNAL 0", 2, "no such signal", ""),
    ("FROM a\nCOPY --chmod=999 a b", 2, "--chmod=999 is no mode", "755"),
    ("FROM a\nCOPY --chmod=10000 a b", 2, "is no mode", ""),
    ("FROM a\nCOPY --chmod=u+q a b", 2, "is no mode", ""),
    ("FROM a\nCOPY http://x/y z", 2, "COPY cannot fetch", "ADD takes URLs"),
    ("FROM a\nCOPY git@x:y z", 2, "COPY cannot fetch", ""),
    ("FROM a\nADD https://:x/y z", 2, "is no URL", ""),
    ("FROM a\nADD https://x/y.git#-v1 z", 2, "no name of a branch", ""),
    ("FROM a\nADD https://x/y.git?rev=1 z", 2, "unknown key 'rev'", ""),
    ("FROM a\nADD https://u:pw@x/y.git?rev=1 z", 2, "https://x/y.git?rev=1: the query", ""),
    ("FROM a\nADD --keep-git-dir=false https://x/y.git?keep-git-dir=1 z", 2, "contradict", ""),
    ("FROM a\nADD --keep-git-dir https://x/y z", 2, "is none", ""),
    ("FROM a\nADD --checksum=sha256:1 a b", 2, "--checksum needs one URL", ""),
    ("FROM a\nADD --checksum=sha256:1 https://x/y b", 2, "is no digest", "64 hex"),
    ("FROM a\nADD --checksum=xyz https://x/y.git b", 2, "is no commit", ""),
    (f"FROM a\nADD --checksum={SHA} https://x/y a b", 2, "--checksum needs one URL", ""),
    ("FROM a\nCOPY --link --chown=app a b", 2, "--link reads nothing", "numbers"),
    ("FROM a\nADD --if-exists a b", 2, "no flag --if-exists", ""),
    ("FROM a\nRUN --device=x y", 2, "RUN --device=x is not allowed", "--allow device=x"),
    ("FROM a\nRUN <<a/b\n#!x\na/b", 2, "cannot be a file's name", ""),
    (
        "FROM a\nARG A=" + "x" * 100_000 + "\n" + "RUN x\n" * 1000,
        331,
        "multiply to more than can be planned",
        "fewer",
    ),
]


@pytest.mark.parametrize(("text", "line", "message", "advice"), BROKEN)
def test_what_cannot_be_says_where_and_why(text: str, line: int, message: str, advice: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        build(text)
    assert message in str(caught.value)
    assert advice in caught.value.hint
    assert caught.value.at is not None
    assert message.startswith("multiply") or caught.value.at.first == line


def test_a_bad_trigger_points_at_the_from_that_brought_it() -> None:
    for trigger in ("NOPE x", "FROM x", "RUN a\nRUN b", "", "COPY --from=9 a b"):
        with pytest.raises(DockerfileError) as caught:
            build("ARG x\nFROM base", lambda *_, each=trigger: image(on_build=(each,)))
        assert caught.value.at is not None and caught.value.at.first == 2


@pytest.mark.parametrize("kind", [NotFound, RegistryFailed])
@pytest.mark.parametrize("line", ["FROM biuld", "FROM a\nCOPY --from=biuld / /"])
def test_a_base_that_is_nowhere_may_have_been_a_stage(kind: type[BuildError], line: str) -> None:
    def nowhere(reference: str, platform: Platform) -> Image:
        if "biuld" in reference:
            raise kind(f"{reference} is not here", hint="load it")
        return image()

    with pytest.raises(kind) as caught:
        build(f"FROM a AS build\n{line}", nowhere)
    assert caught.value.hint == "did you mean the stage build? load it"


# --- cost ---------------------------------------------------------------------------------------------------


def test_a_plan_of_ten_steps_takes_a_few_milliseconds() -> None:
    text = "FROM a AS b\n" + "ENV A=$A:x\nRUN make $A \\\n  all\nCOPY --chown=1:1 a b /c/\n" * 5
    build(text)
    best = 1.0
    for _ in range(10):
        start = time.process_time()
        build(text)
        best = min(best, time.process_time() - start)
    assert best < 0.01


def test_planning_imports_nothing_heavy() -> None:
    code = "import sys, builder.frontend.lower; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "difflib",
        "jsonschema",
        "dockerfile_parse",
        "csv",
        "requests",
        "subprocess",
        "ctypes",
        "logging",
    }
    assert not heavy & set(done.stdout.split())

"""Logical lines to typed instructions."""

from __future__ import annotations

from typing import Any

import pytest

from builder.devices import Device
from builder.errors import DockerfileError
from builder.frontend import durations
from builder.frontend.flags import NotStrings, json_words, split_flags
from builder.frontend.instructions import (
    Add,
    Arg,
    Cmd,
    Command,
    Copy,
    Dockerfile,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from builder.frontend.line import quoted_words
from builder.frontend.parser import parse, split_keyword
from builder.frontend.quoting import quoted
from builder.frontend.reader import decode, read
from builder.frontend.suggest import closest


def parsed(text: str) -> Dockerfile:
    return parse(read(decode(text.encode(), "Dockerfile")))


def one(text: str, head: str = "FROM a\n") -> Instruction:
    return parsed(head + text + "\n").stages[0].body[0]


def shell(text: str) -> Command:
    return Command((text,), shell=True)


def exec_(*words: str) -> Command:
    return Command(words, shell=False)


FORMS: list[tuple[str, type[Any], dict[str, Any]]] = [
    ("ARG a", Arg, {"args": (("a", None),)}),
    ("ARG a=1 b= c='x y'", Arg, {"args": (("a", "1"), ("b", ""), ("c", "'x y'"))}),
    ("ENV a=b", Env, {"pairs": (("a", "b"),)}),
    ("ENV a=b c='d e' f=g\\ h", Env, {"pairs": (("a", "b"), ("c", "'d e'"), ("f", "g\\ h"))}),
    ("ENV a b  c=d", Env, {"pairs": (("a", "b  c=d"),)}),
    ("ENV a=", Env, {"pairs": (("a", ""),)}),
    ("env a=b", Env, {"pairs": (("a", "b"),)}),
    ('LABEL "a b"="c d"', Label, {"pairs": (('"a b"', '"c d"'),)}),
    ("MAINTAINER a b <c>", Maintainer, {"name": "a b <c>"}),
    ("EXPOSE 80  443/udp", Expose, {"ports": ("443/udp", "80")}),
    ("VOLUME /a /b", Volume, {"paths": ("/a", "/b")}),
    ('VOLUME ["/a b"]', Volume, {"paths": ("/a b",)}),
    ("USER a:b", User, {"user": "a:b"}),
    ("WORKDIR /a b", Workdir, {"path": "/a b"}),
    ('SHELL ["/bin/x", "-c"]', Shell, {"argv": ("/bin/x", "-c")}),
    ("STOPSIGNAL SIGTERM", StopSignal, {"signal": "SIGTERM"}),
    ("CMD a  b", Cmd, {"command": shell("a  b")}),
    ('CMD ["a", "b"]', Cmd, {"command": exec_("a", "b")}),
    ("CMD ['a']", Cmd, {"command": shell("['a']")}),
    ('CMD ["a"', Cmd, {"command": shell('["a"')}),
    ('CMD ["a"] b', Cmd, {"command": shell('["a"] b')}),
    ("CMD []", Cmd, {"command": exec_()}),
    ("CMD", Cmd, {"command": shell("")}),
    ("ENTRYPOINT exec x", Entrypoint, {"command": shell("exec x")}),
    ("HEALTHCHECK NONE", Healthcheck, {"test": ("NONE",)}),
    ("HEALTHCHECK CMD a b", Healthcheck, {"test": ("CMD-SHELL", "a b")}),
    ('HEALTHCHECK cmd ["a", "b"]', Healthcheck, {"test": ("CMD", "a", "b")}),
    (
        "HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=0 --start-interval=5ms --retries=3 CMD x",
        Healthcheck,
        {
            "interval_ns": 90_000_000_000,
            "timeout_ns": 1_500_000_000,
            "start_period_ns": 0,
            "start_interval_ns": 5_000_000,
            "retries": 3,
        },
    ),
    ("ONBUILD  run a  b ", Onbuild, {"trigger": "run a  b"}),
    ("ONBUILD RUN <<E\nx\nE", Onbuild, {"trigger": "RUN <<E\nx\nE"}),
    ("RUN a && b", Run, {"command": shell("a && b")}),
    ('RUN ["a"]', Run, {"command": exec_("a")}),
    ("RUN --network=none a", Run, {"command": shell("a"), "network": "none"}),
    ("RUN --security=sandbox --network=host a", Run, {"security": "sandbox", "network": "host"}),
    ("RUN --device=x --device=v/c=y,required a", Run, {"devices": (Device("x"), Device("v/c=y", True))}),
    ("RUN --device=name=v/c=*,required=false a", Run, {"devices": (Device("v/c=*"),)}),
    ('RUN --device="required,v/c" a', Run, {"devices": (Device("v/c", True),)}),
    ("RUN -- --x", Run, {"command": shell("--x")}),
    ("RUN echo --x", Run, {"command": shell("echo --x")}),
    ("RUN a \\\n  --b", Run, {"command": shell("a   --b")}),
    ("RUN a \\\\", Run, {"command": shell("a \\\\")}),
    ("COPY a b", Copy, {"sources": ("a",), "dest": "b"}),
    ("COPY a b c/", Copy, {"sources": ("a", "b"), "dest": "c/"}),
    ('COPY ["a b", "c"]', Copy, {"sources": ("a b",), "dest": "c"}),
    (
        "COPY --from=x --chown=1:2 --chmod=+x --link --parents --exclude=p --exclude=q a b",
        Copy,
        {
            "origin": "x",
            "chown": "1:2",
            "chmod": "+x",
            "link": True,
            "parents": True,
            "exclude": ("p", "q"),
        },
    ),
    ("COPY --link=false a b", Copy, {"link": False}),
    ('COPY --chown="a b" c d', Copy, {"chown": "a b", "sources": ("c",)}),
    ("ADD a b", Add, {"sources": ("a",), "dest": "b", "unpack": None, "keep_git_dir": None}),
    ("ADD --unpack=false --keep-git-dir a b", Add, {"unpack": False, "keep_git_dir": True}),
    ("ADD --checksum=sha256:x http://h/a b", Add, {"checksum": "sha256:x", "sources": ("http://h/a",)}),
]


@pytest.mark.parametrize(("text", "kind", "fields"), FORMS)
def test_every_form_is_understood(text: str, kind: type[Any], fields: dict[str, Any]) -> None:
    instruction = one(text)
    assert type(instruction) is kind
    assert {name: getattr(instruction, name) for name in fields} == fields
    assert instruction.at.first == 2


def test_a_mount_is_read_and_its_options_checked() -> None:
    run = one("RUN --mount=type=cache,target=/c,'\"id=a,b\"' --mount=target=/x make")
    assert isinstance(run, Run)
    assert [each.options for each in run.mounts] == [
        (("type", "cache"), ("target", "/c"), ("id", "a,b")),
        (("target", "/x"),),
    ]
    assert run.command == shell("make")


def test_copy_takes_paths_and_heredocs_together() -> None:
    copy = one("COPY a <<one <<-'two' /d/\n$x\none\n\ty\ntwo")
    assert isinstance(copy, Copy)
    assert copy.sources == ("a",)
    assert [(each.name, each.text, each.expand) for each in copy.documents] == [
        ("one", "$x\n", True),
        ("two", "y\n", False),
    ]


def test_from_has_its_name_and_platform() -> None:
    first, second = parsed("ARG A\nFROM --platform=$B x:1\nfrom y aS Build\n").stages
    assert first.head == From("FROM --platform=$B x:1", first.head.at, "x:1", "", "$B")
    assert (second.head.base, second.head.name, second.label) == ("y", "build", "build")
    assert first.label == "stage-0"


BROKEN = [
    ("FORM a", "unknown instruction `FORM`", "FROM"),
    ("COPPY a b", "unknown instruction", "COPY"),
    ("frobnicate x", "unknown instruction", "an instruction is one of"),
    ("RUN\u00a0x", "unknown instruction", ""),
    ("FROM", "FROM needs an image", ""),
    ("FROM a b", "FROM needs", "AS"),
    ("FROM a OR b", "FROM needs", ""),
    ("FROM a AS 1x", "`1x` cannot name a stage", "begins with a letter"),
    ("FROM a AS b c", "FROM needs", ""),
    ("FROM --plat=x a", "FROM has no flag --plat", "--platform"),
    ("ARG", "ARG needs a name", ""),
    ("ARG =x", "has no name", ""),
    ("ENV", "ENV needs", ""),
    ("ENV a", "ENV `a` has no value", "NAME=value"),
    ("ENV a=b c", "ENV: `c` has no `=`", "quotes"),
    ("ENV =b", "no name before", ""),
    ("LABEL a=b c", "LABEL: `c` has no `=`", ""),
    ("ENV --x a=b", "ENV has no flag --x", "ENV has no flags"),
    ("MAINTAINER", "MAINTAINER needs a name", ""),
    ("EXPOSE", "EXPOSE needs a port", ""),
    ("VOLUME", "VOLUME needs a path", ""),
    ("VOLUME []", "VOLUME needs a path", ""),
    ("VOLUME [1]", "JSON form holds strings only", "double quotes"),
    ("USER", "USER needs a user", "<user>"),
    ("WORKDIR", "WORKDIR needs a path", ""),
    ("STOPSIGNAL", "STOPSIGNAL needs a signal", ""),
    ("SHELL /bin/sh -c", "SHELL needs the JSON form", "double quotes"),
    ("SHELL []", "SHELL needs the JSON form", ""),
    ("CMD --x a", "CMD has no flag --x", ""),
    ('CMD ["a", 1]', "strings only", ""),
    ("CMD [null]", "strings only", ""),
    ("HEALTHCHECK", "HEALTHCHECK needs CMD or NONE", ""),
    ("HEALTHCHECK NONE x", "takes no arguments", ""),
    ("HEALTHCHECK CDM x", "`CDM` is neither", ""),
    ("HEALTHCHECK CMD", "needs a command", ""),
    ("HEALTHCHECK --interval=1 CMD x", "--interval=1 is no duration", "30s"),
    ("HEALTHCHECK --interval=-1s CMD x", "shorter than 1ms", ""),
    ("HEALTHCHECK --timeout=1ns CMD x", "shorter than 1ms", ""),
    ("HEALTHCHECK --retries=x CMD x", "--retries=x is no count", ""),
    ("HEALTHCHECK --retry=1 CMD x", "no flag --retry", "--retries"),
    ("ONBUILD", "ONBUILD needs an instruction", ""),
    ("ONBUILD ONBUILD RUN x", "ONBUILD cannot be", ""),
    ("ONBUILD from x", "FROM cannot be", ""),
    ("ONBUILD MAINTAINER x", "MAINTAINER cannot be", ""),
    ("ONBUILD CPY a b", "unknown instruction `CPY`", "COPY"),
    ("ONBUILD COPY a", "needs a destination", ""),
    ("RUN", "RUN needs a command", ""),
    ("RUN --network=bridge x", "RUN --network=bridge", "default, none or host"),
    ("RUN --network=hst x", "RUN --network=hst", "did you mean host?"),
    ("RUN --network x", "--network needs a value", ""),
    ("RUN --security=none x", "no security mode", "sandbox or insecure"),
    ("RUN --mont=type=bind x", "RUN has no flag --mont", "did you mean --mount?"),
    ("RUN --mount=type=bnd x", "--mount has no type `bnd`", "did you mean bind?"),
    ("RUN --mount=type=bind,propagation=shared x", "no option `propagation`", "it knows"),
    ("RUN --mount=tagret=/x y", "no option `tagret`", "did you mean target?"),
    ("COPY", "COPY needs a source and a destination", ""),
    ("COPY a", "COPY needs a destination after `a`", ""),
    ("COPY --form=x a b", "COPY has no flag --form", "did you mean --from?"),
    ("COPY --unpack a b", "COPY has no flag --unpack", ""),
    ("COPY --from=a --from=b c d", "--from is given twice", ""),
    ("COPY --link=maybe a b", "--link is true or false", ""),
    ("COPY << EOF /x", "`<<` is no path", "<<EOF"),
    ("COPY a <<EOF\nEOF", "the destination `<<EOF` is a heredoc", ""),
    ("COPY <<a/b /x\na/b", "cannot be a file's name", ""),
    ("COPY <<.. /x\n..", "cannot be a file's name", ""),
    ("ADD --from=x a b", "ADD has no flag --from", ""),
]


@pytest.mark.parametrize(("text", "message", "advice"), BROKEN)
def test_every_broken_form_says_what_was_expected(text: str, message: str, advice: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parsed("FROM a\n" + text + "\n")
    assert message in str(caught.value)
    assert advice in caught.value.hint
    assert caught.value.at is not None and caught.value.at.first == 2


def test_only_arg_may_stand_before_from() -> None:
    with pytest.raises(DockerfileError, match="RUN stands before the first FROM") as caught:
        parsed("ARG a\nRUN x\nFROM a\n")
    assert str(caught.value.at) == "Dockerfile:2"
    with pytest.raises(DockerfileError, match="no FROM"):
        parsed("ARG a\n")


def test_what_is_quoted_in_an_error_stays_short() -> None:
    with pytest.raises(DockerfileError) as caught:
        parsed("FROM a\nRUN --" + "x" * 100_000 + " y")
    assert len(str(caught.value)) < 1000 and len(caught.value.hint) < 1000


KEYWORDS = [
    ("RUN a  b", ("RUN", "a  b")),
    ("run\ta", ("run", "a")),
    ("CMD", ("CMD", "")),
    ("RUN a \\", ("RUN", "a \\")),
    ("RUN a \\\x1c", ("RUN", "a \\\x1c")),
    ("RUN a `", ("RUN", "a `")),
    ("RUN \udcff b", ("RUN", "\udcff b")),
    ("RUN a\x85b", ("RUN", "a\x85b")),
    ("RUN # escape=`", ("RUN", "# escape=`")),
    ("NO a", ("NO", "")),
]


@pytest.mark.parametrize(("text", "expected"), KEYWORDS)
def test_a_keyword_is_split_off_and_nothing_else_changes(text: str, expected: tuple[str, str]) -> None:
    assert split_keyword(text) == expected


def test_flags_come_first() -> None:
    assert split_flags("--a --b='c d' --e=\"f\" g --h") == (["--a", "--b=c d", "--e=f"], "g --h")
    assert split_flags(r"--a=b\ c d") == (["--a=b c"], "d")
    assert split_flags("-a --b") == ([], "-a --b")
    assert split_flags("--a -- --b") == (["--a"], "--b")
    assert split_flags('--a="b') == (["--a=b"], "")


def test_json_is_what_the_reference_takes_for_json() -> None:
    assert json_words(' [ "a" ,\t"b" ] ') == ["a", "b"]
    assert json_words('["\\u00e9", "\\ud800", "\udcff"]') == ["é", "\ufffd", "\ufffd"]
    for text in ("a", "['a']", '["a",]', '["a"] x', "[NaN]", "[" * 100_000, '["a\nb"]', '{"a": 1}'):
        assert json_words(text) is None
    for text in ("[1]", "[null]", '[["a"]]', f"[{'9' * 5000}]"):
        with pytest.raises(NotStrings):
            json_words(text)


def test_words_keep_their_quotes() -> None:
    assert quoted_words("a 'b c' \"d e\"f g\\ h ''", "\\") == ["a", "'b c'", '"d e"f', "g\\ h", "''"]
    assert quoted_words(r"""'a\' "b\" c" d\ """, "\\") == ["'a\\'", '"b\\" c"', "d\\ "]
    assert quoted_words("a` b \\", "`") == ["a` b", "\\"]
    assert quoted_words("a 'b c", "\\") == ["a", "'b c"]


DURATIONS = [
    ("0", 0, "0s"),
    ("1s", 10**9, "1s"),
    ("1m30s", 90 * 10**9, "1m30s"),
    ("1h", 3600 * 10**9, "1h0m0s"),
    ("1.5s", 1_500_000_000, "1.5s"),
    (".5ms", 500_000, "500µs"),
    ("1us", 1000, "1µs"),
    ("7ns", 7, "7ns"),
    ("2m0.25s", 120_250_000_000, "2m0.25s"),
]


@pytest.mark.parametrize(("text", "nanoseconds", "shown"), DURATIONS)
def test_durations_are_gos(text: str, nanoseconds: int, shown: str) -> None:
    assert durations.parse(text) == nanoseconds
    assert durations.format_(nanoseconds) == shown


def test_text_that_is_no_duration() -> None:
    for text in ("", "1", "s", "1 s", "1sx", "1x", ".s", "-", "9" * 19 + "h", "9" * 18 + "h", "\u0661s"):
        assert durations.parse(text) is None


def test_lists_are_quoted_as_go_does() -> None:
    assert quoted(["a", 'b"c', "d\\", "é\n\t\x01\x7f", "\u00ad", "\U000e0001", "\udcff", ""]) == (
        r'["a" "b\"c" "d\\" "é\n\t\x01\x7f" "\u00ad" "\U000e0001" "\xff" ""]'
    )
    assert quoted([]) == "[]"


def test_suggestions() -> None:
    assert closest("buidl", ["build", "test"]) == "build"
    assert closest("zzz", ["build"]) == ""
    assert closest("x" * 1000, ["x" * 999]) == ""

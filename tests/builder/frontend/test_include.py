"""INCLUDE, ENV --from-file and shell-strict: what becomes of them, where errors point, and the plain text."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import ContextError, DockerfileError, UsageError
from builder.events import Warning_
from builder.frontend import include
from builder.frontend.lower import PlanOptions, plan
from builder.frontend.plain import plain
from builder.frontend.reader import decode
from builder.graph import Exec, Plan, walk
from builder.source import SourceRange
from oci.image import Image
from oci.model import ImageConfig, Platform, RunConfig

AMD64 = Platform("linux", "amd64")
ON = "# pybuild=include,env-file\n"
STRICT = "# pybuild=shell-strict\n"


def options(files: Mapping[str, str], **more: object) -> PlanOptions:
    def read_file(path: str) -> tuple[str, bytes]:
        if path not in files:
            raise ContextError("there is no such file in the context")
        return path, files[path].encode("utf-8", "surrogateescape")

    values = {"platform": AMD64, "build_platform": AMD64, "read_file": read_file, **more}
    return PlanOptions(**values)  # type: ignore[arg-type]


def build(
    text: str, files: Mapping[str, str] | None = None, shell: tuple[str, ...] = (), **more: object
) -> Plan:
    def resolve(reference: str, platform: Platform, at: SourceRange) -> Image:
        return Image.of(ImageConfig(platform, RunConfig(env=("PATH=/bin",), shell=shell or None)))

    return plan(
        decode(text.encode("utf-8", "surrogateescape"), "Dockerfile"), options(files or {}, **more), resolve
    )


def history(text: str, files: Mapping[str, str] | None = None, **more: object) -> list[str]:
    return [each.created_by for each in build(text, files, **more).records]  # type: ignore[arg-type]


def fails(text: str, files: Mapping[str, str] | None = None, **more: object) -> DockerfileError:
    with pytest.raises(DockerfileError) as caught:
        build(text, files, **more)  # type: ignore[arg-type]
    return caught.value


# --- INCLUDE (D01) ------------------------------------------------------------------------------------------


def test_the_lines_of_a_file_stand_where_it_is_included() -> None:
    files = {"parts/a": "# a comment\nLABEL b=2\nCOPY <<EOF /f\nx\nEOF\n", "tail": "LABEL d=4"}
    made = history(f"{ON}FROM base\nLABEL a=1\nINCLUDE parts/a\nLABEL c=3\ninclude tail\n", files)
    assert made == ["LABEL a=1", "LABEL b=2", "COPY <<EOF /f # buildkit", "LABEL c=3", "LABEL d=4"]


def test_whole_stages_and_files_in_files() -> None:
    files = {"stages": "ARG V=1\nFROM base AS one\nINCLUDE inner\n", "inner": "LABEL v=one\n"}
    assert history(f"{ON}INCLUDE stages\nFROM one\nLABEL w=two\n", files) == ["LABEL v=one", "LABEL w=two"]
    assert history("INCLUDE stages\n", files, enable=frozenset({"include"})) == ["LABEL v=one"]


@pytest.mark.parametrize(
    ("text", "given", "name"),
    [
        ("ARG D=a\nFROM base\nINCLUDE $D/x\n", {}, "a/x"),
        ("ARG D=a\nFROM base\nINCLUDE $D/x\n", {"D": "b"}, "b/x"),
        ("ARG D=a\nFROM base\nARG D=b\nINCLUDE $D/x\n", {}, "b/x"),
        ("ARG D=a\nFROM base\nARG E=${D}b\nINCLUDE $E/x\n", {}, "ab/x"),
        ("FROM base AS s\nARG D=b\nFROM s\nINCLUDE $D/x\n", {}, "b/x"),
        ("FROM base\nINCLUDE ${D:-c}/x\n", {}, "c/x"),
        ("FROM base\nINCLUDE $TARGETARCH/x\n", {}, "amd64/x"),
        ('FROM base\nINCLUDE "a b"/x\n', {}, "a b/x"),
    ],
)
def test_arguments_in_the_path(text: str, given: dict[str, str], name: str) -> None:
    assert history(ON + text, {name: "LABEL found=1\n"}, build_args=given)[-1] == "LABEL found=1"


@pytest.mark.parametrize(
    "text",
    [
        "FROM base\nINCLUDE $D/x\n",
        "FROM base\nARG D=a\nFROM base\nINCLUDE $D/x\n",
        "FROM base\nARG D=a\nENV D=b\nINCLUDE $D/x\n",
        "ARG D=a\nFROM base\nENV D=b\nINCLUDE $D/x\n",
        "ARG D=a\nFROM base AS s\nENV D=b\nFROM s\nINCLUDE $D/x\n",
        "FROM base\nARG D=a\nENV --from-file=env\nINCLUDE $D/x\n",
        "FROM base\nENV D=a\nINCLUDE $D/x\n",
        "FROM base\nARG D\nINCLUDE $D/x\n",
    ],
)
def test_a_variable_that_is_not_surely_known_is_an_error(text: str) -> None:
    error = fails(ON + text, {"a/x": "", "b/x": "", "/x": "", "env": "D=b\n"})
    assert "$D is no ARG that is known here" in str(error) and "ARG NAME=default" in error.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("INCLUDE", "takes one path"),
        ("INCLUDE a b", "takes one path"),
        ("INCLUDE --x a", "takes one path"),
        ("INCLUDE nothing", "INCLUDE nothing: there is no such file in the context"),
        ("INCLUDE ${a", "INCLUDE `${a`"),
    ],
)
def test_a_path_that_cannot_be_read(text: str, said: str) -> None:
    error = fails(f"{ON}FROM base\n{text}\n", {"a": ""})
    assert said in str(error) and error.at and error.at.first == 3


def test_it_has_to_be_switched_on() -> None:
    error = fails("FROM base\nINCLUDE a\n", {"a": ""})
    assert "unknown instruction `INCLUDE`" in str(error) and "# pybuild=include" in error.hint
    error = fails("FROM base\nENV --from-file=a\n", {"a": ""})
    assert "ENV --from-file is not known here" in str(error) and "# pybuild=env-file" in error.hint
    error = fails(f"{ON}FROM base\nONBUILD INCLUDE a\n", {"a": ""})
    assert "unknown instruction `INCLUDE`" in str(error)
    error = fails("# pybuild=inclde\nFROM base\n")
    assert "no extension `inclde`" in str(error) and error.hint == "did you mean include?"
    with pytest.raises(UsageError, match="--enable nope"):
        build("FROM base\n", enable=frozenset({"nope"}))


def test_a_file_that_includes_itself_is_told_with_its_chain() -> None:
    files = {"a": "LABEL x=1\nINCLUDE b\n", "b": "INCLUDE c", "c": "INCLUDE a"}
    error = fails(f"{ON}FROM base\nINCLUDE a\n", files)
    assert str(error) == "INCLUDE a: a includes itself: Dockerfile:3 -> a:2 -> b:1 -> c:1 -> a"
    assert str(error.at) == "c:1"
    twice = {"a": "INCLUDE b\nINCLUDE b\n", "b": "LABEL b=1\n"}
    assert history(f"{ON}FROM base\nINCLUDE a\n", twice) == ["LABEL b=1"] * 2, "that is no circle"


def test_how_deep_how_many_how_large(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = {str(each): f"INCLUDE {each + 1}\n" for each in range(40)}
    assert "more than 16 deep" in str(fails(f"{ON}FROM base\nINCLUDE 0\n", deep))
    doubled = {str(each): f"INCLUDE {each + 1}\n" * 2 for each in range(14)} | {"14": ""}
    assert "more than 1000 files" in str(fails(f"{ON}FROM base\nINCLUDE 0\n", doubled))
    many = {"a": "LABEL a=1\n" * 15_000}
    assert "more than 20000 instructions" in str(fails(f"{ON}FROM base\nINCLUDE a\nINCLUDE a\n", many))
    monkeypatch.setattr(include, "MOST_TEXT", 100)
    large = {"a": "#" * 60}
    assert "larger than" in str(fails(f"{ON}FROM base\nINCLUDE a\nINCLUDE a\n", large))


def test_errors_and_warnings_name_the_file_its_line_and_what_includes_it() -> None:
    files = {"a": "LABEL x=1\n\nINCLUDE b\n", "b": "# one\nRUM x\n"}
    error = fails(f"{ON}FROM base\nINCLUDE a\n", files)
    assert str(error.at) == "b:2" and error.at
    assert error.at.excerpt().split("\n") == [
        "1 |     # one",
        "2 | >>> RUM x",
        "3 |",
        "included by a:3: INCLUDE b",
        "included by Dockerfile:3: INCLUDE a",
    ]
    found: list[Warning_] = []
    build(f"{ON}FROM base\nINCLUDE a\n", {"a": "\nMAINTAINER me\n"}, warn=found.append)
    assert [(each.code, each.at) for each in found] == [("MaintainerDeprecated", "a:2")]
    assert "included by Dockerfile:3: INCLUDE a" in found[0].excerpt


def test_directives_of_an_included_file() -> None:
    assert history(f"{ON}FROM base\nINCLUDE a\n", {"a": "# syntax=x\n# escape=\\\nLABEL a=1\n"}) == [
        "LABEL a=1"
    ]
    error = fails(f"{ON}FROM base\nINCLUDE a\n", {"a": "# escape=`\nLABEL a=1\n"})
    assert "cannot change the escape character" in str(error) and str(error.at) == "a:1"
    ticks = f"# escape=`\n{ON}FROM base\nINCLUDE a\n"
    assert history(ticks, {"a": "LABEL a=1 `\n  b=2\n"}) == ["LABEL a=1 b=2"]


@pytest.mark.parametrize("text", ["RUN a \\", "RUN a \\\n", "RUN a \\\n# c\n", "LABEL a=1\nRUN a \\\n\n"])
def test_an_included_file_cannot_end_within_an_instruction(text: str) -> None:
    error = fails(f"{ON}FROM base\nINCLUDE a\nRUN b\n", {"a": text})
    assert "ends in the middle of an instruction" in str(error) and str(error.at).startswith("a:")


def test_nothing_at_all() -> None:
    assert "no instructions" in str(fails(f"{ON}INCLUDE a\n", {"a": "# nothing\n"}))


# --- ENV --from-file (D21) ----------------------------------------------------------------------------------


def test_variables_from_a_file_are_taken_as_they_are() -> None:
    text = "\ufeff# comment\n\n  A=1 $PATH \"x\" \\ \nB=\nC==d #e\r\n\tD='q'\n"
    made = build(f"{ON}FROM base\nENV A=0\nENV --from-file=vars\n", {"vars": text})
    assert made.config.config.env == ("PATH=/bin", 'A=1 $PATH "x" \\ ', "B=", "C==d #e", "D='q'")
    assert made.records[-1].created_by == "ENV A=1 $PATH \"x\" \\  B= C==d #e D='q'"


def test_several_files_in_order_and_an_empty_one() -> None:
    files = {"a": "X=1\nY=1\n", "b": "Y=2\n", "none": "# nothing\n"}
    made = build(f"{ON}FROM base\nENV --from-file=a --from-file=b\nENV --from-file=none\n", files)
    assert made.config.config.env == ("PATH=/bin", "X=1", "Y=2")


@pytest.mark.parametrize("escape", ["\\", "`"])
def test_values_survive_either_escape_character(escape: str) -> None:
    files = {"v": 'A=a`b\\c"d$e``\\\\\nB=\udcff\n'}
    made = build(f"# escape={escape}\n{ON}FROM base\nENV --from-file=v\n", files)
    assert made.config.config.env[1:] == ('A=a`b\\c"d$e``\\\\', "B=\ufffd")


@pytest.mark.parametrize(
    "line", ["hunter2", "=hunter2", "A B=hunter2", "'A'=hunter2", "$A=hunter2", "A=hunter2\0"]
)
def test_a_line_that_is_no_variable_is_named_and_not_shown(line: str) -> None:
    error = fails(f"{ON}FROM base\nENV --from-file=v\n", {"v": f"OK=1\n{line}\n"})
    assert str(error) == "line 2 of v is no NAME=VALUE" and str(error.at) == "Dockerfile:3"
    assert error.at and "hunter2" not in error.at.excerpt() + error.hint


def test_from_file_stands_alone() -> None:
    assert "takes nothing else" in str(fails(f"{ON}FROM base\nENV --from-file=v A=1\n", {"v": "B=1"}))
    assert "takes nothing else" in str(fails(f"{ON}FROM base\nENV --from-file=v --x=1\n", {"v": "B=1"}))
    assert "no such file" in str(fails(f"{ON}FROM base\nENV --from-file=w\n"))


def test_variables_of_a_file_are_known_to_later_lines_and_to_checks() -> None:
    found: list[Warning_] = []
    made = build(f"{ON}FROM base\nENV --from-file=v\nWORKDIR /$A\n", {"v": "A=x\n"}, warn=found.append)
    assert made.config.config.working_dir == "/x" and not found


# --- shell-strict (D28) -------------------------------------------------------------------------------------


def script(text: str, **more: object) -> Exec:
    (found,) = [step.op for step in walk(build(text, **more).target) if isinstance(step.op, Exec)]  # type: ignore[arg-type]
    return found


HEREDOC = "RUN <<EOF\na\nb\nEOF\n"


@pytest.mark.parametrize(
    ("shell", "argv"),
    [
        ((), ("/bin/sh", "-c", "set -e\na\nb\n")),
        (("/bin/bash", "-c"), ("/bin/bash", "-c", "set -eo pipefail\na\nb\n")),
        (("/usr/bin/python3", "-c"), ("/usr/bin/python3", "-c", "a\nb\n")),
        (("/bin/busybox", "ash", "-c"), ("/bin/busybox", "ash", "-c", "set -e\na\nb\n")),
        (
            ("/usr/bin/env", "A=b", "bash", "-c"),
            ("/usr/bin/env", "A=b", "bash", "-c", "set -eo pipefail\na\nb\n"),
        ),
    ],
)
def test_a_heredoc_gets_a_first_line_of_its_shell(shell: tuple[str, ...], argv: tuple[str, ...]) -> None:
    made = build(f"{STRICT}FROM base\n{HEREDOC}", shell=shell)
    (found,) = [step.op for step in walk(made.target) if isinstance(step.op, Exec)]
    assert found.argv == argv and made.records[-1].created_by == f"RUN {' '.join(argv)} # buildkit"


@pytest.mark.parametrize(
    ("first", "line"),
    [
        ("#!/bin/sh", "set -e\n"),
        ("#!/usr/bin/env -S bash -u", "set -eo pipefail\n"),
        ("#!/usr/bin/env python3", ""),
        ("#! /bin/busybox sh -u", "set -e\n"),
        ("#!/bin/busybox awk -f", ""),
        ("#!", ""),
    ],
)
def test_a_script_with_its_own_shell(first: str, line: str) -> None:
    found = script(f"{STRICT}FROM base\nRUN <<EOF\n{first}\na\nEOF\n")
    assert found.files[0].content.decode() == f"{first}\n{line}a\n"


def test_only_heredocs_that_are_all_of_a_run_and_only_when_asked() -> None:
    for text in ("RUN a; b\n", "RUN <<EOF cat\na\nEOF\n", "RUN cat <<EOF\na\nEOF\n", 'RUN ["a"]\n'):
        assert script(f"{STRICT}FROM base\n{text}") == script(f"FROM base\n{text}")
    loose = script(f"FROM base\n{HEREDOC}")
    strict = script(f"FROM base\n{HEREDOC}", enable=frozenset({"shell-strict"}))
    assert loose.argv[-1] == "a\nb\n" and strict.argv[-1] == "set -e\na\nb\n"
    assert loose.definition() != strict.definition(), "they are two steps to the cache"


def test_the_check_of_heredocs_is_silent_then() -> None:
    for head, said in (("", 1), (STRICT, 0)):
        found: list[Warning_] = []
        check = "# check=experimental=HeredocIgnoresErrors\n"
        build(f"{check}{head}FROM base\n{HEREDOC}", warn=found.append)
        assert len(found) == said


# --- pybuild expand -----------------------------------------------------------------------------------------


def test_the_plain_text() -> None:
    files = {
        "a": "# syntax=x\n# of a\nLABEL a=1 \\\n  b=2\nINCLUDE b\n# end",
        "b": "RUN <<-E\n\tx\n\tE\n",
        "v": "A=$x\n",
    }
    text = (
        "# syntax=docker/dockerfile:1\n# pybuild=include,env-file,shell-strict\n\nFROM base\n  # kept\n"
        "INCLUDE a\n"
        'ENV --from-file=v\nSHELL ["/bin/bash", "-c"]\nRUN <<A && <<B\nx\nA\ny\nB\nRUN <<E\n#!/bin/sh\nE\n'
    )
    assert plain(decode(text.encode(), "Dockerfile"), options(files)) == (
        "# syntax=docker/dockerfile:1\n\nFROM base\n  # kept\n# of a\nLABEL a=1 \\\n  b=2\n"
        "RUN <<-E\nset -e\n\tx\n\tE\n"
        '# end\nENV A="\\$x"\nSHELL ["/bin/bash", "-c"]\n'
        "RUN <<A && <<B\nx\nA\ny\nB\nRUN <<E\n#!/bin/sh\nset -e\nE\n"
    )


@pytest.mark.parametrize(
    ("text", "files"),
    [
        (
            "FROM base AS x\nINCLUDE a\nFROM x\nRUN <<EOF\nb\nEOF\n",
            {"a": 'SHELL ["bash", "-c"]\nRUN <<A\n#!/bin/sh -e\nc\nA'},
        ),
        ("ARG D=a\nINCLUDE $D\nENV --from-file=v\nRUN x\n", {"a": "FROM base\nRUN y", "v": "Q=$\"'`\\\\ \n"}),
        ("FROM base\nRUN x\n# pybuild=no directive\nRUN <<-EOF\n\ta\n\tEOF\n", {}),
    ],
)
def test_the_plain_text_builds_the_same(text: str, files: dict[str, str]) -> None:
    head = "# pybuild=include,env-file,shell-strict\n"
    written = plain(decode((head + text).encode(), "Dockerfile"), options(files))
    made, again = build(head + text, files), build(written)
    assert made.target.digest == again.target.digest and made.config == again.config
    assert [each.created_by for each in made.records] == [each.created_by for each in again.records]


def test_without_extensions_the_text_stays_as_it_is() -> None:
    text = "# check=skip=all\n\nfrom base\n\n\nRUN a \\\n\n# c\n b\n"
    assert plain(decode(text.encode(), "Dockerfile"), options({})) == text


_LINE = st.one_of(
    st.sampled_from(["RUN a", "LABEL a=b", "ENV A=b", "ARG D=x", "FROM base AS s", "# c", "", "RUN a \\"]),
    st.sampled_from(["RUN a \\\n  b", 'SHELL ["bash"]', "ENV --from-file=v", "RUN <<E\nq\nE", "X"]),
    st.sampled_from(["RUN <<E\n#!/bin/sh\nq\nE", "RUN a \\\n# c", "COPY <<-E /x\n\tE"]),
    st.sampled_from(["0", "1", "2", "3", "$D", "v"]).map(lambda name: f"INCLUDE {name}"),
)
_TEXT = st.lists(_LINE, max_size=4).map("\n".join)


@given(_TEXT, st.lists(_TEXT, min_size=4, max_size=4))
def test_whatever_includes_whatever_is_an_error_or_its_plain_text_builds_the_same(
    text: str, texts: list[str]
) -> None:
    files = {str(number): each for number, each in enumerate(texts)} | {"v": "Q=$1", "x": "LABEL x=y"}
    whole = f"# pybuild=include,env-file,shell-strict\nFROM base\n{text}\n"
    source = decode(whole.encode(), "Dockerfile")
    try:
        made = build(whole, files)
    except DockerfileError as error:
        assert error.at is not None
        return
    again = build(plain(source, options(files)))
    assert made.target.digest == again.target.digest and made.config == again.config

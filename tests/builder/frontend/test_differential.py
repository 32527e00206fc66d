"""Our reader and parser beside the Go parser (through its binding, of an older BuildKit), on made-up files.

`make test` tries 500 files; `make test-differential` 20,000 (PYBUILD_EXAMPLES). Variables are not expanded by
the binding: Docker and bash are judges of that (test_words_docker.py, test_words_bash.py).

Known differences, where we follow today's BuildKit or our own rules:

- a directive the binding does not know (`check`) ends its directives; here `escape` may follow it;
- NUL is refused here; the binding takes it for a character;
- flags are read byte by byte there: a letter beyond ASCII becomes two;
- a file may be without instructions there; here that is an error;
- text after a JSON array is dropped there; today (and here) it makes the line a shell form;
- a heredoc's name that needs lexing differs in the binding's age: the grammar below writes plain ones;
- what an instruction needs is checked here when it is read, there by those who use it: see `LATER`.
"""

from __future__ import annotations

import os
import re

import dockerfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import DockerfileError
from builder.frontend import instructions as ins
from builder.frontend.flags import NotStrings, json_words, split_flags
from builder.frontend.parser import FORMS, instruction_of, parse, split_keyword
from builder.frontend.reader import Document, LogicalLine, decode, read
from builder.frontend.words import SPACE

EXAMPLES = int(os.environ.get("PYBUILD_EXAMPLES", "500"))

LATER = (
    r"needs (a|an|the|CMD)\b|has no (flag|name|value|body|`=`)|holds strings only|an ONBUILD trigger",
    r"is given twice|is true or false|unknown instruction|is neither CMD nor NONE|takes no arguments",
    r"is no (path|duration|count)|cannot be a file's name|only sources may be heredocs|is a heredoc",
    r"cannot name a stage|is shorter than|is not known here",
)
"""The errors of ours that the binding leaves to those who use it."""

_WORD = st.text("ab$\\`\"'=[],:{}-#é<", min_size=1, max_size=6)
_PLAIN = st.sampled_from(["a", "b=c", 'd="e f"', "'g h'=i", "80/tcp", "/x", "k=", "$v", "m\\ n"])
_BLANK = st.sampled_from([" ", "  ", "\t", " \t "])
_FLAG = st.sampled_from(["--flag=x", "--a", "x # y", "--chown=1:2", "--from=b", "--interval=3s", "--"])
_VALUE = st.lists(st.one_of(_WORD, _PLAIN, _PLAIN, _FLAG), max_size=4)
_KEYWORD = st.sampled_from([*(name for name in FORMS if name != "FROM"), "run", "Env", "label", "arg", "X"])
_BREAK = st.sampled_from([" \\\n  ", "\\\n", " \\ \n# comment\n  ", "\\\t\n\n", " \\\n \\\n", "\\\\\n"])
_JSON = st.lists(st.sampled_from(["a", "b c", 'q"', "\\", "é", "$x"]), max_size=3)


@st.composite
def _instruction(draw: st.DrawFn) -> str:
    parts = [draw(st.sampled_from(["", " ", "\t", "ONBUILD ", "onbuild\t"])), draw(_KEYWORD)]
    for word in draw(_VALUE):
        parts += (draw(st.one_of(_BLANK, _BREAK)), word)
    parts.append(draw(st.sampled_from(["", " ", " \\", "\\\\", "\r"])))
    return "".join(parts)


@st.composite
def _pairs(draw: st.DrawFn) -> str:
    keyword = draw(
        st.sampled_from(["ENV", "LABEL", "ARG", "EXPOSE", "VOLUME", "ONBUILD ENV", "USER", "LABEL"])
    )
    name = st.text("abA_-.1", min_size=1, max_size=4)
    value = st.one_of(_PLAIN, st.text("ab$\\`\"'= é{}", max_size=6), st.just('"a b"'), st.just("'$x'"))
    words = draw(st.lists(st.tuples(name, value).map("=".join), min_size=1, max_size=3))
    return keyword + "".join(draw(st.one_of(_BLANK, _BREAK)) + word for word in words)


@st.composite
def _listed(draw: st.DrawFn) -> str:
    import json

    words = json.dumps(draw(_JSON), ensure_ascii=draw(st.booleans()))
    head = draw(
        st.sampled_from(
            [
                "RUN",
                "CMD",
                "ENTRYPOINT",
                "SHELL",
                "VOLUME",
                "COPY",
                "ADD --link",
                "HEALTHCHECK CMD",
                "ONBUILD RUN",
            ]
        )
    )
    return f"{head}{draw(_BLANK)}{words}{draw(st.sampled_from(['', ' ', ' x']))}"


@st.composite
def _heredoc(draw: st.DrawFn) -> str:
    dash, quote = draw(st.sampled_from(["", "-"])), draw(st.sampled_from(["", "'", '"']))
    body = draw(st.lists(st.text("ab #\\$\t", max_size=6).map(lambda text: text + "\n"), max_size=3))
    end = draw(st.sampled_from(["", "\t"])) if dash else ""
    command = draw(
        st.sampled_from(["RUN {}", "RUN cat {} >x", "COPY {} /x", "ONBUILD RUN {}", "ADD a {} b/"])
    )
    return command.format(f"<<{dash}{quote}EOF{quote}") + "\n" + "".join(body) + end + "EOF"


_LINE = st.one_of(
    _instruction(),
    _instruction(),
    _pairs(),
    _listed(),
    _heredoc(),
    st.sampled_from(["", "# note", "  # note", "\t", 'RUN [ "a",\\\n "b" ]', "HEALTHCHECK NONE"]),
)
_HEAD = st.sampled_from(
    ["", "# escape=`\n", "# syntax=x\n", "#escape = \\\n", "# x\n# escape=`\n", "\n# escape=`\n"]
)


@st.composite
def _file(draw: st.DrawFn) -> str:
    return (
        draw(_HEAD)
        + "\n".join(["FROM a", *draw(st.lists(_LINE, max_size=5))])
        + draw(st.sampled_from(["", "\n"]))
    )


def _ours(text: str) -> Document | str:
    try:
        return read(decode(text.encode(), "Dockerfile"))
    except DockerfileError as error:
        return str(error)


def _refused(document: Document) -> bool:
    try:
        parse(document)
    except DockerfileError:
        return True
    return False


def _theirs(text: str) -> tuple[dockerfile.Command, ...] | str:
    try:
        return tuple(dockerfile.parse_string(text))
    except dockerfile.GoParseError as error:
        return str(error)


def _words(line: ins.Instruction) -> list[str]:
    """What an instruction consists of, as the Go parser lists it."""
    match line:
        case ins.Env(pairs=pairs) | ins.Label(pairs=pairs):
            return [word for pair in pairs for word in pair]
        case ins.Arg(args=args):
            return [name if value is None else f"{name}={value}" for name, value in args]
        case ins.Run(command=command) | ins.Cmd(command=command) | ins.Entrypoint(command=command):
            return list(command.argv) if any(command.argv) or not command.shell else []
        case ins.Copy(sources=sources, dest=dest) | ins.Add(sources=sources, dest=dest):
            return [*sources, dest]
        case ins.Healthcheck(test=test):
            return [test[0].removesuffix("-SHELL"), *test[1:]]
        case ins.Expose(ports=words) | ins.Volume(paths=words) | ins.Shell(argv=words):
            return list(words)
        case ins.User(user=word) | ins.Workdir(path=word) | ins.Maintainer(name=word):
            return [word]
        case ins.StopSignal(signal=word):
            return [word]
        case ins.From(base=base):
            return [base]
        case _:
            raise AssertionError(line)


def _is_listed(rest: str) -> bool:
    """Whether the whole of it is a JSON array of strings."""
    try:
        return json_words(rest) is not None
    except NotStrings:
        return False


def _compare_words(line: LogicalLine, each: dockerfile.Command, escape: str) -> None:
    try:
        found = instruction_of(line, escape)
    except DockerfileError as error:
        assert re.search("|".join(LATER), str(error)), error
        return
    if isinstance(found, ins.Onbuild):
        inner = split_flags(split_keyword(line.text.strip(SPACE))[1])[1]
        assert each.sub_cmd.upper() == split_keyword(inner)[0].upper()
        found = instruction_of(LogicalLine(inner, line.at, line.heredocs), escape)
    if line.heredocs and isinstance(found, ins.Transfer):
        return
    theirs = list(each.value)
    rest = split_flags(split_keyword(line.text.strip(SPACE))[1])[1]
    if each.json and not any(_is_listed(rest[at:]) for at in range(len(rest)) if rest[at] == "["):
        assert "]" in rest  # text after the array
        return
    if isinstance(found, ins.Expose):
        theirs.sort()
    assert _words(found) == theirs


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_file())
def test_lines_places_flags_and_words_are_those_of_the_go_parser(text: str) -> None:
    ours, theirs = _ours(text), _theirs(text)
    if isinstance(theirs, str):
        assert isinstance(ours, str) or _refused(ours), theirs
        return
    assert isinstance(ours, Document), ours
    assert [(line.at.first, line.at.last) for line in ours.lines] == [
        (each.start_line, each.end_line) for each in theirs
    ]
    for line, each in zip(ours.lines, theirs, strict=True):
        keyword, value = split_keyword(line.text.strip(SPACE))
        assert keyword == (each.cmd or "")
        if keyword.upper() not in FORMS:
            continue
        flags, _ = split_flags(value)
        if keyword.upper() != "ONBUILD":
            assert [flag.encode().decode("latin-1") for flag in flags] == list(each.flags)
            assert [(one.name, one.content) for one in line.heredocs] == [
                (one.name, one.content) for one in each.heredocs
            ]
        _compare_words(line, each, ours.escape)

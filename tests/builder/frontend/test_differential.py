"""Our reader and parser beside the Go parser (through its binding, of an older BuildKit), on made-up files.

Known differences, where we follow today's BuildKit or our own rules:

- a directive the binding does not know (`check`) ends its directives; here `escape` may follow it;
- NUL is refused here; the binding takes it for a character;
- flags are read byte by byte there: a letter beyond ASCII becomes two;
- a file may be without instructions there; here that is an error;
- text after a JSON array is dropped there; today (and here) it makes the line a shell form;
- a heredoc's name that needs lexing differs in the binding's age: the grammar below writes plain ones;
- instructions are checked here when they are read (a COPY needs two arguments), there later: compared are
  places, keywords, flags, and the values of shell forms.
"""

from __future__ import annotations

import dockerfile
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import DockerfileError
from builder.frontend.flags import split_flags
from builder.frontend.parser import FORMS, split_keyword
from builder.frontend.reader import Document, decode, read
from builder.frontend.words import SPACE

_WORD = st.text("ab$\\`\"'=[],:{}-#é<", min_size=1, max_size=6)
_BLANK = st.sampled_from([" ", "  ", "\t", " \t "])
_VALUE = st.lists(st.one_of(_WORD, st.sampled_from(["--flag=x", "--a", "x # y"])), max_size=4)
_KEYWORD = st.sampled_from(
    [
        "RUN",
        "run",
        "CMD",
        "ENTRYPOINT",
        "COPY",
        "ADD",
        "USER",
        "WORKDIR",
        "VOLUME",
        "MAINTAINER",
        "STOPSIGNAL",
    ]
)
_BREAK = st.sampled_from([" \\\n  ", "\\\n", " \\ \n# comment\n  ", "\\\t\n\n", " \\\n \\\n", "\\\\\n"])


@st.composite
def _instruction(draw: st.DrawFn) -> str:
    parts = [draw(st.sampled_from(["", " ", "\t"])), draw(_KEYWORD)]
    for word in draw(_VALUE):
        parts += (draw(st.one_of(_BLANK, _BREAK)), word)
    parts.append(draw(st.sampled_from(["", " ", " \\", "\\\\", "\r"])))
    return "".join(parts)


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
    _heredoc(),
    st.sampled_from(["", "# note", "  # note", "\t", 'RUN [ "a",\\\n "b" ]']),
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


def _theirs(text: str) -> tuple[dockerfile.Command, ...] | str:
    try:
        return tuple(dockerfile.parse_string(text))
    except dockerfile.GoParseError as error:
        return str(error)


@settings(max_examples=500, deadline=None)
@given(_file())
def test_lines_places_flags_and_values_are_those_of_the_go_parser(text: str) -> None:
    ours, theirs = _ours(text), _theirs(text)
    if isinstance(theirs, str):
        return
    assert isinstance(ours, Document), ours
    assert [(line.at.first, line.at.last) for line in ours.lines] == [
        (each.start_line, each.end_line) for each in theirs
    ]
    for line, each in zip(ours.lines, theirs, strict=True):
        keyword, value = split_keyword(line.text.strip(SPACE))
        assert keyword == each.cmd
        if keyword.upper() not in FORMS:
            continue
        flags, rest = split_flags(value)
        assert [flag.encode().decode("latin-1") for flag in flags] == list(each.flags)
        if not each.json and keyword in ("RUN", "CMD", "ENTRYPOINT", "USER", "WORKDIR"):
            assert rest == "".join(each.value)
        assert [(one.name, one.content) for one in line.heredocs] == [
            (one.name, one.content) for one in each.heredocs
        ] or keyword == "ONBUILD"

"""Dockerfile text to logical lines."""

from __future__ import annotations

import pytest

from builder.errors import DockerfileError
from builder.frontend.reader import MAX_EMPTY, MAX_INSTRUCTIONS, Document, decode, heredoc_of, read


def doc(text: str | bytes) -> Document:
    return read(decode(text if isinstance(text, bytes) else text.encode(), "Dockerfile"))


def lines(text: str | bytes) -> list[tuple[str, int, int]]:
    return [(line.text, line.at.first, line.at.last) for line in doc(text).lines]


LINES = [
    ("FROM a", [("FROM a", 1, 1)]),
    ("FROM a\n\n\nRUN b\n", [("FROM a", 1, 1), ("RUN b", 4, 4)]),
    ("  FROM a  \n\tRUN b", [("FROM a  ", 1, 1), ("RUN b", 2, 2)]),
    ("# c\nFROM a\n  # d\nRUN b # e\n", [("FROM a", 2, 2), ("RUN b # e", 4, 4)]),
    ("RUN a\\\nb", [("RUN ab", 1, 2)]),
    ("RUN a \\\n  b \\\n\tc", [("RUN a   b \tc", 1, 3)]),
    ("RUN a \\  \t\n b", [("RUN a  b", 1, 2)]),
    ("RUN a \\\n# c\n   # d\\\n b", [("RUN a  b", 1, 4)]),
    ("RUN a \\\n\n b", [("RUN a  b", 1, 3)]),
    ("RUN a\\\\\nRUN b", [("RUN a\\\\", 1, 1), ("RUN b", 2, 2)]),
    ("RUN a\\ b\nRUN b", [("RUN a\\ b", 1, 1), ("RUN b", 2, 2)]),
    ("RUN a \\", [("RUN a ", 1, 1)]),
    ("\\\nFROM a", [("FROM a", 1, 2)]),
    ("FROM a\r\nRUN b \\\r\n c\r\n", [("FROM a", 1, 1), ("RUN b  c", 2, 3)]),
    (b"\xef\xbb\xbfFROM a", [("FROM a", 1, 1)]),
    (b"FROM a\nRUN \xff", [("FROM a", 1, 1), ("RUN \udcff", 2, 2)]),
    ("FROM a\nRUN a\u2028b", [("FROM a", 1, 1), ("RUN a\u2028b", 2, 2)]),
    ("# escape=`\nRUN a `\n  b\\\nRUN c", [("RUN a   b\\", 2, 3), ("RUN c", 4, 4)]),
    ("#!/usr/bin/env x\nFROM a", [("FROM a", 2, 2)]),
]


@pytest.mark.parametrize(("text", "expected"), LINES)
def test_lines_are_joined_and_placed(text: str | bytes, expected: list[tuple[str, int, int]]) -> None:
    assert lines(text) == expected


DIRECTIVES = [
    ("# escape=`\nFROM a", "`", ["escape"]),
    ("#escape=\\\nFROM a", "\\", ["escape"]),
    ("# EsCaPe = `\nFROM a", "`", ["escape"]),
    ("  # escape=`  \nFROM a", "`", ["escape"]),
    (
        "# syntax=docker/dockerfile:1\n# check=skip=all\n# escape=`\nFROM a",
        "`",
        ["syntax", "check", "escape"],
    ),
    ("\n# escape=`\nFROM a", "\\", []),
    ("# note\n# escape=`\nFROM a", "\\", []),
    ("# other=1\n# escape=`\nFROM a", "\\", []),
    ("FROM a\n# escape=`\n", "\\", []),
    ("# escape=\n# x\nFROM a", "\\", []),
]


@pytest.mark.parametrize(("text", "escape", "names"), DIRECTIVES)
def test_directives_stand_at_the_top(text: str, escape: str, names: list[str]) -> None:
    document = doc(text)
    assert document.escape == escape
    assert [each.name for each in document.directives] == names


HEREDOCS = [
    ("RUN <<EOF\na\nEOF\n", [("EOF", "a\n", True)]),
    ("RUN <<EOF\nEOF", [("EOF", "", True)]),
    ("RUN <<-EOF\n\ta\n\t\tEOF\n", [("EOF", "a\n", True)]),
    ("RUN <<EOF\n\tEOF\nEOF\n", [("EOF", "\tEOF\n", True)]),
    ("RUN <<'EOF'\n$a\nEOF\n", [("EOF", "$a\n", False)]),
    ('RUN <<"EOF"\nEOF\n', [("EOF", "", False)]),
    ('RUN <<E"O"F\nEOF\n', [("EOF", "", False)]),
    ("RUN <<A cat >x && <<B cat >y\na\nA\nb\nB\n", [("A", "a\n", True), ("B", "b\n", True)]),
    ("RUN 3<<EOF\nEOF\n", [("EOF", "", True)]),
    ("RUN <<'E F'\nE F\n", [("E F", "", False)]),
    ("RUN <<$X\n$X\n", [("$X", "", True)]),
    ("RUN <<EOF\n# c\n\nFROM x \\\nEOF\n", [("EOF", "# c\n\nFROM x \\\n", True)]),
    ("RUN <<EOF\r\na\r\nEOF\r\n", [("EOF", "a\r\n", True)]),
    ("RUN cat << EOF >x\n", []),
    ("RUN a \\\n <<EOF\nb\nEOF\n", [("EOF", "b\n", True)]),
    ("COPY <<a <<b /d/\n1\na\n2\nb\n", [("a", "1\n", True), ("b", "2\n", True)]),
    ("ADD x <<a /d/\na\n", [("a", "", True)]),
    ("run --mount=type=x <<a\na\n", [("a", "", True)]),
    ("ONBUILD COPY <<a /d/\na\n", [("a", "", True)]),
    ("RUN echo $((1 << 2))", []),
    ("RUN echo '<<EOF'", []),
    ('RUN echo "<<EOF"', []),
    ("RUN echo a<<EOF", []),
    ("RUN cat <<<EOF", []),
    ("RUN cat <<", []),
    ("RUN cat <<'", []),
    ('RUN ["<<EOF", "x"]', []),
    ('RUN [1, "<<EOF"]', []),
    ("CMD <<EOF", []),
    ("ENV a <<EOF", []),
]


@pytest.mark.parametrize(("text", "expected"), HEREDOCS)
def test_heredocs_follow_their_line(text: str, expected: list[tuple[str, str, bool]]) -> None:
    found = doc("FROM a\n" + text).lines[-1]
    assert [(each.name, each.text, each.expand) for each in found.heredocs] == expected
    assert found.at.first == 2
    assert found.at.last == max(2, text.rstrip("\n").count("\n") + 2)


def test_a_heredocs_content_is_what_was_written_also_where_it_is_no_utf8() -> None:
    body = doc(b"FROM a\nCOPY <<x /y\n\xff\xfe\nx\n").lines[1].heredocs[0]
    assert body.text.encode("utf-8", "surrogateescape") == b"\xff\xfe\n"


def test_words_that_announce_no_heredoc() -> None:
    assert heredoc_of("<<") is None
    assert heredoc_of("x<<a") is None
    assert heredoc_of("<<a b") is None
    assert heredoc_of("12<<-a") is not None


BROKEN = [
    ("", "has no instructions", 0),
    ("# only a comment\n", "has no instructions", 0),
    ("FROM a\nRUN <<EOF\nx\n", "`<<EOF` is never closed", 2),
    ("FROM a\nRUN <<-EOF\n EOF\n", "never closed", 2),
    ("# escape=x\nFROM a", "`x` cannot be the escape", 1),
    ("# escape=`\n# escape=`\nFROM a", "`escape` is given twice", 2),
    ("# syntax=a\n# SYNTAX=b\nFROM a", "`syntax` is given twice", 2),
    ("FROM a\nRUN x\0y", "a NUL byte", 2),
    ("FROM a\n" + "RUN x\n" * MAX_INSTRUCTIONS, "more than 20000 instructions", MAX_INSTRUCTIONS + 1),
]


@pytest.mark.parametrize(("text", "message", "line"), BROKEN)
def test_text_that_cannot_be_read_says_where(text: str, message: str, line: int) -> None:
    with pytest.raises(DockerfileError, match=message) as caught:
        doc(text)
    assert (caught.value.at.first if caught.value.at else 0) == line


def test_empty_continuation_lines_are_warned_about_and_not_without_end() -> None:
    document = doc("FROM a\nRUN x \\\n\n y\n")
    assert [(each.first, each.last) for each in document.empty_continuations] == [(4, 4)]
    assert len(doc("FROM a\n" + "RUN x \\\n\n y\n" * 100).empty_continuations) == MAX_EMPTY

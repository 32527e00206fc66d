"""Where something was written."""

from __future__ import annotations

from builder.source import SourceFile, SourceRange

FILE = SourceFile("Dockerfile", "FROM a\nRUN x\nRUN y \\\n  z\nCOPY a b\nRUN 6\nRUN 7\nRUN 8\n")


def test_a_range_is_named_by_its_first_line() -> None:
    assert str(SourceRange(FILE, 3, 4)) == "Dockerfile:3"


def test_the_excerpt_marks_the_range_and_shows_its_surroundings() -> None:
    assert SourceRange(FILE, 3, 4).excerpt().split("\n") == [
        "1 |     FROM a",
        "2 |     RUN x",
        "3 | >>> RUN y \\",
        "4 | >>>   z",
        "5 |     COPY a b",
        "6 |     RUN 6",
        "7 |     RUN 7",
    ]


def test_the_excerpt_stops_at_both_ends_of_the_file() -> None:
    one = SourceFile("x", "FROM a")
    assert SourceRange(one, 1, 1).excerpt() == "1 | >>> FROM a"
    assert SourceRange(FILE, 8, 8).excerpt().split("\n")[-1] == "9 |"


def test_numbers_are_aligned() -> None:
    long = SourceFile("x", "\n".join(f"RUN {n}" for n in range(1, 13)))
    assert SourceRange(long, 10, 10).excerpt().split("\n")[0] == " 7 |     RUN 7"

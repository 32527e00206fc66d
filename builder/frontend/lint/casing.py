"""Upper and lower case: L01, L02, L04."""

from __future__ import annotations

from collections.abc import Iterator

from builder.frontend import instructions as ins
from builder.frontend.lint.rules import Found
from builder.frontend.lint.scene import File, from_words, keyword


def stage_name_casing(file: File) -> Iterator[Found]:
    for head in file.lines(ins.From):
        words = from_words(head)
        if len(words) == 3 and words[2] != words[2].lower():
            yield Found(f"Stage name '{words[2]}' should be lowercase", head.at)


def from_as_casing(file: File) -> Iterator[Found]:
    for head in file.lines(ins.From):
        words, name = from_words(head), keyword(head)
        # FROM in mixed case is for ConsistentInstructionCasing.
        if len(words) == 3 and _is_uniform(name) and words[1] != _in_case_of(name, words[1]):
            yield Found(f"'{words[1]}' and '{name}' keywords' casing do not match", head.at)


def consistent_instruction_casing(file: File) -> Iterator[Found]:
    """The majority counts, and upper case when there is none. ARGs before the first FROM do not vote."""
    lines = [line for stage in file.dockerfile.stages for line in (stage.head, *stage.body)]
    names = [keyword(line) for line in lines]
    votes = [name for name in names if _is_uniform(name)]
    lower = sum(name == name.lower() for name in votes) * 2 > len(votes)
    for name, line in zip(names, lines, strict=True):
        if name != (name.lower() if lower else name.upper()):
            case = "lowercase" if lower else "uppercase"
            yield Found(f"Command '{name}' should match the case of the command majority ({case})", line.at)


def _is_uniform(word: str) -> bool:
    return word in (word.lower(), word.upper())


def _in_case_of(model: str, word: str) -> str:
    return word.lower() if model == model.lower() else word.upper()

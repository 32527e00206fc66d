"""How things are written down: L03, L08, L13, L20."""

from __future__ import annotations

from collections.abc import Iterator

from builder.frontend import comments
from builder.frontend import instructions as ins
from builder.frontend.line import quoted_words
from builder.frontend.lint.rules import Found
from builder.frontend.lint.scene import File, Moment, keyword, rest


def no_empty_continuation(file: File) -> Iterator[Found]:
    for at in file.document.empty_continuations:
        yield Found("Empty continuation line", at)


def maintainer_deprecated(file: File) -> Iterator[Found]:
    for line in file.lines(ins.Maintainer):
        yield Found("Maintainer instruction is deprecated in favor of using label", line.at)


def legacy_key_value_format(moment: Moment) -> Iterator[Found]:
    line = moment.line
    words = quoted_words(rest(line), moment.lexer.escape)
    if words and "=" not in words[0]:
        name = keyword(line)
        message = f'"{name} key=value" should be used instead of legacy "{name} key value" format'
        yield Found(message, line.at)


def invalid_definition_description(file: File) -> Iterator[Found]:
    """The comment right above FROM or ARG is taken for a description by `--call=outline` and `targets`."""
    for line in file.lines(ins.From, ins.Arg):
        names = _defined(line)
        above = comments.above(file.document, line.at)
        if not above or not names or above[-1].split(" ")[0] in names:
            continue
        instruction = "ARG" if isinstance(line, ins.Arg) else "FROM"
        name = names[0] if len(names) == 1 else "<arg_key>"
        yield Found(f"Comment for {instruction} should follow the format: `# {name} <description>`", line.at)


def _defined(line: ins.Written) -> list[str]:
    """The names an instruction gives."""
    if isinstance(line, ins.Arg):
        return [name for name, _ in line.args]
    return [line.name] if isinstance(line, ins.From) and line.name else []

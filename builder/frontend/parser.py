"""Logical lines to typed instructions.

dockerfile-parse splits the keyword from its value. It gets one logical line at a time, in a form it reads
right: our reader has resolved directives, continuations, comments and heredocs.
What the value means, per instruction, is `forms.py` and `forms_files.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

from builder.errors import DockerfileError
from builder.frontend import extensions, forms, forms_files
from builder.frontend.broken import broken
from builder.frontend.flags import NotStrings, split_flags
from builder.frontend.instructions import Arg, Dockerfile, From, Instruction, Onbuild, Stage
from builder.frontend.line import Line
from builder.frontend.reader import Document, LogicalLine, read
from builder.frontend.suggest import hint
from builder.frontend.words import SPACE
from builder.source import SourceFile, SourceRange

_KEYWORD = re.compile(r"[^\t\v\f\r ]+")

FORMS: dict[str, Callable[[Line], Instruction]] = {
    "ADD": forms_files.add,
    "ARG": forms.arg,
    "CMD": forms.cmd,
    "COPY": forms_files.copy,
    "ENTRYPOINT": forms.entrypoint,
    "ENV": forms.env,
    "EXPOSE": forms.expose,
    "FROM": forms.from_,
    "HEALTHCHECK": forms.healthcheck,
    "LABEL": forms.label,
    "MAINTAINER": forms.maintainer,
    "ONBUILD": forms.onbuild,
    "RUN": forms_files.run,
    "SHELL": forms.shell,
    "STOPSIGNAL": forms.stopsignal,
    "USER": forms.user,
    "VOLUME": forms.volume,
    "WORKDIR": forms.workdir,
}


def parse(document: Document) -> Dockerfile:
    """The stages of a Dockerfile. Raises DockerfileError for the first instruction that cannot be read."""
    args: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for line in document.lines:
        instruction = instruction_of(line, document.escape)
        if isinstance(instruction, From):
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            args.append(instruction)
        else:
            raise broken(
                f"{instruction.code.split()[0].upper()} stands before the first FROM",
                at=line.at,
                hint="only ARG and comments may stand there; begin with `FROM <image>`",
            )
    if not stages:
        raise broken("no FROM: there is nothing to build on", at=document.lines[-1].at)
    numbered = (Stage(index, head, tuple(body)) for index, (head, body) in enumerate(stages))
    return Dockerfile(document.escape, tuple(args), tuple(numbered))


def instruction_of(line: LogicalLine, escape: str) -> Instruction:
    """The instruction a logical line holds. Raises DockerfileError."""
    keyword, value = split_keyword(line.text.strip(SPACE))
    form = FORMS.get(keyword.upper())
    if form is None:
        raise broken(
            f"unknown instruction `{keyword[:80]}`",
            at=line.at,
            hint=_advice(keyword),
        )
    flags, rest = split_flags(value)
    code = line.text.strip(SPACE)
    parts = Line(keyword.upper(), tuple(flags), rest, code, line.at, escape, line.heredocs)
    try:
        instruction = form(parts)
    except NotStrings:
        raise parts.error(
            f"{parts.keyword}: the JSON form holds strings only",
            'write every word in double quotes, like `["a", "1"]`',
        ) from None
    if isinstance(instruction, Onbuild):
        _check_trigger(parts)
    return instruction


def _advice(keyword: str) -> str:
    if keyword.upper() == "INCLUDE":
        return extensions.advice(extensions.INCLUDE)
    return hint(keyword, FORMS, "an instruction is one of " + ", ".join(FORMS))


def split_keyword(text: str) -> tuple[str, str]:
    """The first word of a logical line, and the rest."""
    match = _KEYWORD.match(text)
    keyword = match[0] if match else ""
    if keyword.upper() not in FORMS:
        return keyword, ""
    from dockerfile_parse import DockerfileParser

    # A line that ends in a backslash would be taken for one that continues, were the backtick not the escape.
    # The library reads strict UTF-8; what it gives back is the end of the text, so its length tells where the
    # value begins.
    visible = text.rstrip()
    prefix = "# escape=`\n" if visible.endswith("\\") else ""
    content = f"{prefix}{text}\n".encode("utf-8", "replace")
    file: Any = BytesIO(content)
    entries = DockerfileParser(fileobj=file, env_replace=False).structure
    length = len(entries[-1]["value"])
    return keyword, text[len(visible) - length :] if length else ""


def _check_trigger(line: Line) -> None:
    """An ONBUILD trigger has to be a good instruction itself, today and not only when it fires."""
    instruction_of(LogicalLine(line.rest, line.at, line.heredocs), line.escape)


def trigger(text: str, name: str, at: SourceRange) -> Instruction:
    """The instruction of an ONBUILD trigger that a base brought. Errors point at `at`, the FROM that brought
    it.
    """
    try:
        document = read(SourceFile(name, text))
        if len(document.lines) != 1:
            raise broken("it is not one instruction")
        line = document.lines[0]
        return instruction_of(LogicalLine(line.text, at, line.heredocs), document.escape)
    except DockerfileError as error:
        raise broken(f"the base's ONBUILD `{text[:200]}`: {error}", at=at, hint=error.hint) from None

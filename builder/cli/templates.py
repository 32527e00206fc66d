"""`--format`: the part of Go's templates that people use with docker, over plain JSON values.

    {{.Name}}  {{.Config.Cmd}}  {{json .Config}}  {{.Size | json}}  {{index .RepoTags 0}}  {{len .Layers}}
    {{upper .ID}}  {{lower .ID}}  {{join .Env ", "}}  {{println .}}  {{"text"}}
    {{range .Config.Env}}...{{else}}...{{end}}     {{if .Config.User}}...{{else}}...{{end}}

A template is compiled before anything is shown, so that a mistake in it is said once and first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field

from builder.errors import UsageError
from oci.data import dataclass

_ACTION = re.compile(r"(\s*)\{\{(- )?(.*?)( -)?\}\}", re.DOTALL)
_TOKEN = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|`[^`]*`|\$?\.[\w.]*|-?\d+|\w+|\||\(|\))""")
_ESCAPES = {r"\t": "\t", r"\n": "\n"}

Value = object


class Struct(dict[str, "Value"]):
    """An object with a fixed set of fields, as Go's structs: `zeros` are those that it may lack, and what a
    template sees then. JSON shows only those that are there.
    """

    __slots__ = ("zeros",)

    def __init__(self, value: Mapping[str, Value], zeros: Mapping[str, Value]) -> None:
        super().__init__(value)
        self.zeros = zeros


class NilList(list["Value"]):
    """A list that is not there: it has no element, and is null in JSON."""


class NilMap(dict[str, "Value"]):
    """A map that is not there: it has no key, and is null in JSON."""


class Nil:
    """A pointer to nothing: null in JSON, and false."""

    def __bool__(self) -> bool:
        return False


Expression = Callable[[Value], Value]


@dataclass(frozen=True, slots=True)
class _Block:
    """`range` or `if`: what it looks at, its body and its else."""

    word: str
    subject: Expression
    body: list[_Part] = field(default_factory=list)
    otherwise: list[_Part] = field(default_factory=list)


_Part = str | Expression | _Block


class Template:
    """A compiled template. Raises UsageError, when made, for what it does not understand."""

    def __init__(self, text: str) -> None:
        for written, meant in _ESCAPES.items():
            text = text.replace(written, meant)
        self._text = text
        self._parts = self._parse(text)

    def render(self, value: Value) -> str:
        """The text for one value. Raises UsageError for a field it does not have."""
        return _render(self._parts, value)

    def fields(self) -> list[str]:
        """The fields it names, in their order: what a table's heading is made of."""
        return re.findall(r"\.(\w+)", " ".join(match[3] for match in _ACTION.finditer(self._text)))

    def heading(self, titles: Mapping[str, str]) -> str:
        """The template's text with titles in the place of fields."""
        return _ACTION.sub(lambda match: match[1] + self._title(match[3], titles), self._text)

    def _title(self, action: str, titles: Mapping[str, str]) -> str:
        name = re.search(r"\.(\w+)", action)
        return titles.get(name[1], name[1].upper()) if name else ""

    def _parse(self, text: str) -> list[_Part]:
        open_blocks: list[_Block] = []
        current: list[_Part] = []
        outer: list[list[_Part]] = []
        position = 0
        for match in _ACTION.finditer(text):
            current.append(text[position : match.start()] + ("" if match[2] else match[1]))
            position = match.end() + (
                len(text[match.end() :]) - len(text[match.end() :].lstrip()) if match[4] else 0
            )
            word, _, rest = match[3].strip().partition(" ")
            if word in ("range", "if"):
                block = _Block(word, self._expression(rest))
                current.append(block)
                outer.append(current)
                open_blocks.append(block)
                current = block.body
            elif word == "else" and open_blocks and not rest:
                current = open_blocks[-1].otherwise
            elif word == "end" and open_blocks:
                open_blocks.pop()
                current = outer.pop()
            elif not word.startswith("/*"):
                current.append(self._expression(match[3].strip()))
        if open_blocks:
            raise self._mistake(f"{{{{{open_blocks[-1].word}}}}} has no {{{{end}}}}")
        current.append(text[position:])
        return current

    def _expression(self, text: str) -> Expression:
        tokens = _TOKEN.findall(text)
        if not tokens or "".join(tokens) != re.sub(r'("[^"]*"|`[^`]*`)|\s', lambda m: m[1] or "", text):
            raise self._mistake(f"{{{{{text}}}}} is not understood")
        pipe: Expression | None = None
        for command in _split(tokens, "|"):
            pipe = self._command(command, pipe)
        assert pipe is not None
        return pipe

    def _command(self, tokens: list[str], before: Expression | None) -> Expression:
        if not tokens or "(" in tokens or ")" in tokens:
            raise self._mistake("parentheses and empty pipes are not understood")
        name, *arguments = tokens
        values = [self._operand(token) for token in arguments]
        if before is not None:
            values.append(before)
        if name in _FUNCTIONS:
            function = _FUNCTIONS[name]
            return lambda dot: self._call(name, function, [each(dot) for each in values])
        if values or not (name[0] in '".`$' or name.lstrip("-").isdigit()):
            raise self._mistake(f"no function {name!r}; there are {', '.join(sorted(_FUNCTIONS))}")
        return self._operand(name)

    def _call(self, name: str, function: Callable[..., Value], values: list[Value]) -> Value:
        try:
            return function(*values)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError):
            raise self._mistake(
                f"{name} cannot be applied to {', '.join(map(_go, values)) or 'nothing'}"
            ) from None

    def _operand(self, token: str) -> Expression:
        if token[0] == '"':
            text = json.loads(token)
            return lambda dot: text
        if token[0] == "`":
            return lambda dot: token[1:-1]
        if token.lstrip("-").isdigit():
            return lambda dot: int(token)
        if token.lstrip("$")[:1] == ".":
            path = [part for part in token.lstrip("$").split(".") if part]
            return lambda dot: self._field(dot, path)
        raise self._mistake(f"{token!r} is not understood")

    def _field(self, value: Value, path: list[str]) -> Value:
        for name in path:
            if value is None or isinstance(value, Nil):
                return None
            zeros = value.zeros if isinstance(value, Struct) else {}
            if name in zeros and isinstance(value, Struct) and value.get(name) is None:
                value = zeros[name]
                continue
            if not isinstance(value, Mapping) or name not in value:
                known = ", ".join({**value, **zeros}) if isinstance(value, Mapping) else "none here"
                raise self._mistake(f"no field .{name}; the fields are: {known}")
            value = value[name]
        return value

    def _mistake(self, text: str) -> UsageError:
        return UsageError(f"--format {self._text!r}: {text}")


def show(
    rows: Sequence[Mapping[str, Value]], form: str, titles: Mapping[str, str], table: Callable[..., str]
) -> str:
    """Rows in a form people gave: `json` or a template (a line each), `table TEMPLATE` (in columns)."""
    if form == "json":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not form.startswith("table "):
        template = Template(form)
        return "".join(template.render(row) + "\n" for row in rows)
    template = Template(form.removeprefix("table "))
    lines = [template.heading(titles), *(template.render(row) for row in rows)]
    return table([line.split("\t") for line in lines])


def _render(parts: Iterable[_Part], dot: Value) -> str:
    return "".join(_render_one(part, dot) for part in parts)


def _render_one(part: _Part, dot: Value) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, _Block):
        return _go(part(dot))
    subject = part.subject(dot)
    if part.word == "if":
        return _render(part.body if subject else part.otherwise, dot)
    if not subject or not isinstance(subject, Mapping | Sequence):
        return _render(part.otherwise, dot)
    values = [subject[key] for key in sorted(subject)] if isinstance(subject, Mapping) else subject
    return "".join(_render(part.body, value) for value in values)


def _go(value: Value) -> str:
    """A value as Go prints it."""
    match value:
        case None:
            return "<no value>"
        case Nil():
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case Mapping():
            return f"map[{' '.join(f'{key}:{_go(value[key])}' for key in sorted(value))}]"
        case list() | tuple():
            return f"[{' '.join(map(_go, value))}]"
    return str(value)


def _split(tokens: list[str], at: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for token in tokens:
        if token == at:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _index(value: Value, *keys: Value) -> Value:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else value[key]  # type: ignore[index]
    return value


_FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "json": lambda value: json.dumps(
        None if isinstance(value, NilList | NilMap | Nil) else value,
        ensure_ascii=False,
        separators=(",", ":"),
    ),
    "index": _index,
    "len": len,
    "join": lambda values, by: by.join(values),
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "title": lambda text: text.title(),
    "split": lambda text, by: text.split(by),
    "print": lambda *values: "".join(map(_go, values)),
    "println": lambda *values: " ".join(map(_go, values)) + "\n",
    "truncate": lambda text, length: text[:length],
}

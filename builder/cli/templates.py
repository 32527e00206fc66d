"""`--format`: the part of Go's templates that people use with docker, over plain JSON values.

    {{.Name}}  {{.Config.Cmd}}  {{json .Config}}  {{.Size | json}}  {{index .RepoTags 0}}  {{len .Layers}}
    {{upper .ID}}  {{join .Env ", "}}  {{println .}}  {{"text"}}  {{printf "%s" (lower .ID)}}  {{$.Name}}
    {{range .Config.Env}}...{{else}}...{{end}}     {{if eq .Os "linux"}}...{{else}}...{{end}}
    {{range $key, $value := .Config.Labels}}...{{end}}   {{with .Config.User}}...{{end}}   {{$x := .ID}}

A template is compiled before anything is shown, so that a mistake in it is said once and first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field

from builder.cli.template_values import FUNCTIONS, Nil, Struct, Value, go
from builder.errors import UsageError
from oci.data import dataclass

_ACTION = re.compile(r"(\s*)\{\{(- )?(.*?)( -)?\}\}", re.DOTALL)
_TOKEN = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|`[^`]*`|\$\w*(?:\.\w+)*|\.[\w.]*|-?\d+|\w+|\||\(|\))""")
_ASSIGNED = re.compile(r"\s*(\$\w+)(?:\s*,\s*(\$\w+))?\s*:?=\s*(.*)", re.DOTALL)
_ESCAPES = {r"\t": "\t", r"\n": "\n"}
_BLOCKS = ("range", "if", "with")


@dataclass(frozen=True, slots=True)
class _Scope:
    """What `.` and the variables are; `$` is what the template was given."""

    dot: Value
    variables: dict[str, Value]


Expression = Callable[[_Scope], Value]


@dataclass(frozen=True, slots=True)
class _Block:
    """`range`, `if` or `with`: what it looks at, the variables it sets, its body and its else."""

    word: str
    subject: Expression
    names: tuple[str, ...] = ()
    body: list[_Part] = field(default_factory=list)
    otherwise: list[_Part] = field(default_factory=list)


_Part = str | Expression | _Block


class Template:
    """A compiled template. Raises UsageError, when made, for what it does not understand."""

    def __init__(self, text: str) -> None:
        for written, meant in _ESCAPES.items():
            text = text.replace(written, meant)
        self._text = text
        self._variables = {"$"}
        self._parts = self._parse(text)

    def render(self, value: Value) -> str:
        """The text for one value. Raises UsageError for a field it does not have."""
        return _render(self._parts, _Scope(value, {"$": value}))

    def fields(self) -> list[str]:
        """The fields it names, in their order: what a table's heading is made of."""
        return re.findall(r"\.(\w+)", " ".join(match[3] for match in _ACTION.finditer(self._text)))

    def heading(self, titles: Mapping[str, str]) -> str:
        """The template's text with titles in the place of fields."""
        return _ACTION.sub(lambda match: match[1] + self._title(match[3], titles), self._text)

    def _title(self, action: str, titles: Mapping[str, str]) -> str:
        if label := re.search(r'\.Label\s+"([^"]*)"', action):  # docker's: the last part of its name
            return re.sub(r"[-_]", " ", label[1].rpartition(".")[2])
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
            if word in _BLOCKS:
                block = self._block(word, rest)
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
                current.append(self._action(match[3].strip()))
        if "{{" in text[position:]:
            raise self._mistake("{{ has no }}")
        if open_blocks:
            raise self._mistake(f"{{{{{open_blocks[-1].word}}}}} has no {{{{end}}}}")
        current.append(text[position:])
        return current

    def _block(self, word: str, text: str) -> _Block:
        match = _ASSIGNED.fullmatch(text)
        if match is None:
            return _Block(word, self._expression(text))
        names = tuple(name for name in match.groups()[:2] if name)
        if len(names) > 1 and word != "range":
            raise self._mistake(f"{word} sets one variable")
        subject = self._expression(match[3])
        self._variables.update(names)
        return _Block(word, subject, names)

    def _action(self, text: str) -> Expression:
        """What stands for a text, or sets a variable and stands for none."""
        match = _ASSIGNED.fullmatch(text)
        if match is None:
            return self._expression(text)
        if match[2]:
            raise self._mistake(f"{{{{{text}}}}} sets two variables, which only range does")
        name, value = match[1], self._expression(match[3])
        self._variables.add(name)

        def put(scope: _Scope) -> Value:
            scope.variables[name] = value(scope)
            return ""

        return put

    def _expression(self, text: str) -> Expression:
        tokens = _TOKEN.findall(text)
        if not tokens or "".join(tokens) != re.sub(r'("[^"]*"|`[^`]*`)|\s', lambda m: m[1] or "", text):
            raise self._mistake(f"{{{{{text}}}}} is not understood")
        return self._pipe(tokens)

    def _pipe(self, tokens: Sequence[str]) -> Expression:
        pipe: Expression | None = None
        for command in self._split(tokens):
            pipe = self._command(command, pipe)
        assert pipe is not None
        return pipe

    def _split(self, tokens: Sequence[str]) -> list[list[str | Expression]]:
        """The commands of a pipe; what is in parentheses is an expression already."""
        commands: list[list[str | Expression]] = [[]]
        depth, inner = 0, list[str]()
        for token in tokens:
            depth += (token == "(") - (token == ")")
            if depth < 0:
                break
            if depth or token == ")":
                if token == ")" and not depth:
                    commands[-1].append(self._pipe(inner[1:]))
                    inner = []
                else:
                    inner.append(token)
            elif token == "|":
                commands.append([])
            else:
                commands[-1].append(token)
        if depth or not all(commands):
            raise self._mistake("parentheses that do not match, or an empty pipe")
        return commands

    def _command(self, words: Sequence[str | Expression], before: Expression | None) -> Expression:
        name, *arguments = words
        values = [self._operand(each) for each in arguments]
        if before is not None:
            values.append(before)
        if isinstance(name, str) and name in FUNCTIONS:
            function, called = FUNCTIONS[name], name
            return lambda scope: self._call(called, function, [each(scope) for each in values])
        if values and name == ".Label":  # the one method that docker's rows have
            method, called = self._operand(name), name
            return lambda scope: self._call(called, self._method(method(scope)), [v(scope) for v in values])
        if values or (isinstance(name, str) and not (name[0] in '".`$' or name.lstrip("-").isdigit())):
            raise self._mistake(f"no function {name!r}; there are {', '.join(sorted(FUNCTIONS))}")
        return self._operand(name)

    def _call(self, name: str, function: Callable[..., Value], values: list[Value]) -> Value:
        try:
            return function(*values)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, StopIteration):
            raise self._mistake(
                f"{name} cannot be applied to {', '.join(map(go, values)) or 'nothing'}"
            ) from None

    def _method(self, value: Value) -> Callable[..., Value]:
        if not callable(value):
            raise self._mistake("a field that takes no argument has one")
        return value

    def _operand(self, token: str | Expression) -> Expression:
        if not isinstance(token, str):
            return token
        if token[0] == '"':
            text = json.loads(token)
            return lambda scope: text
        if token[0] == "`":
            return lambda scope: token[1:-1]
        if token.lstrip("-").isdigit():
            return lambda scope: int(token)
        if token in ("true", "false"):
            return lambda scope: token == "true"
        start, *path = token.split(".")
        path = [part for part in path if part]
        if start.startswith("$"):
            if start not in self._variables:
                raise self._mistake(f"no variable {start}")
            return lambda scope: self._field(scope.variables.get(start), path)
        if token[0] == ".":
            return lambda scope: self._field(scope.dot, path)
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


def _render(parts: Iterable[_Part], scope: _Scope) -> str:
    return "".join(_render_one(part, scope) for part in parts)


def _render_one(part: _Part, scope: _Scope) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, _Block):
        return go(part(scope))
    subject = part.subject(scope)
    inner = _Scope(scope.dot, scope.variables | dict.fromkeys(part.names, subject))
    if part.word != "range":
        dot = subject if part.word == "with" and subject else scope.dot
        return _render(part.body if subject else part.otherwise, _Scope(dot, inner.variables))
    if not subject or not isinstance(subject, Mapping | Sequence):
        return _render(part.otherwise, scope)
    return "".join(_render(part.body, each) for each in _turns(part.names, subject, scope))


def _turns(
    names: Sequence[str], subject: Mapping[str, Value] | Sequence[Value], scope: _Scope
) -> Iterator[_Scope]:
    """A scope for each element: maps by their keys, in order."""
    pairs = sorted(subject.items()) if isinstance(subject, Mapping) else list(enumerate(subject))
    for key, value in pairs:
        given = (key, value) if len(names) > 1 else (value,)
        yield _Scope(value, scope.variables | dict(zip(names, given, strict=False)))

"""`--check` and `--call`: what is known of a Dockerfile without building it, as text or as BuildKit's JSON.

JSON has the shapes of BuildKit's subrequests (frontend/subrequests), so programs that read those read these.
"""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from builder import checking
from builder.cli.text import safe, table
from builder.errors import BuildError, UsageError
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.building import BuildRequest
    from builder.frontend.check import Report
    from builder.frontend.lint.rules import Finding
    from builder.frontend.outline import Outline, Parameter, Target
    from builder.source import SourceFile, SourceRange

METHODS = ("build", "check", "outline", "targets", "subrequests.describe")
_OTHER_NAMES = {"lint": "check", "": "build"}
_RULE = "-" * 20
_REQUESTS = (
    ("frontend.lint", "Lint a Dockerfile", (), ("result.json", "result.txt", "result.statuscode")),
    (
        "frontend.outline",
        "List all parameters current build target supports",
        ("target",),
        ("result.json", "result.txt"),
    ),
    ("frontend.targets", "List all targets current build supports", (), ("result.json", "result.txt")),
    ("frontend.subrequests.describe", "List available subrequest types", (), ("result.json", "result.txt")),
)


@dataclass(frozen=True, slots=True)
class Call:
    """What `--call` asks for. `ignore_status` makes findings no failure."""

    method: str = "build"
    json: bool = False
    ignore_status: bool = False

    @classmethod
    def parse(cls, text: str) -> Call:
        """`METHOD[,format=json|text][,ignorestatus=true]`. Raises UsageError."""
        method, *options = text.split(",")
        method = _OTHER_NAMES.get(method, method)
        if method not in METHODS:
            raise UsageError(f"--call={method}: there is {', '.join(METHODS)}")
        found = {"format": "text", "ignorestatus": "false"}
        for option in options:
            name, _, value = option.partition("=")
            if name not in found:
                raise UsageError(f"--call={text}: `{name}` is no option; there is format and ignorestatus")
            found[name] = value or "true"
        if found["format"] not in ("json", "text"):
            raise UsageError(f"--call={text}: the format is json or text")
        return cls(method, found["format"] == "json", found["ignorestatus"] in ("true", "1"))


def run(request: BuildRequest, call: Call) -> int:
    """Answer on standard output; the exit code, which is not 0 when a check finds something."""
    match call.method:
        case "check":
            return _check(request, call)
        case "outline":
            outline = checking.outline(request)
            _show(outline_json(outline) if call.json else outline_text(outline))
        case "targets":
            source, found = checking.targets(request)
            _show(targets_json(source, found) if call.json else targets_text(found))
        case _:
            _show(_describe_json() if call.json else _describe_text())
    return 0


def _show(answer: str | object) -> None:
    text = answer if isinstance(answer, str) else json.dumps(answer, indent=2) + "\n"
    sys.stdout.write(text)


def _check(request: BuildRequest, call: Call) -> int:
    report = checking.check(request)
    _show(report_json(report) if call.json else report_text(report))
    for name in report.unknown if not call.json else ():
        sys.stderr.write(
            f"note: the base {safe(name)} is not here: what needs it was not checked "
            "(UndefinedVar, InvalidBaseImagePlatform)\n"
        )
    if call.ignore_status:
        return 0
    if report.error is not None and not call.json:
        raise report.error
    if report.error is not None:
        return report.error.exit_code
    return 1 if report.findings else 0


def report_text(report: Report) -> str:
    """The findings with the lines they are about, and how many there are."""
    count = len(report.findings)
    if not count:
        return "" if report.error else "Check complete, no warnings found.\n"
    counted = "1 warning has been found!" if count == 1 else f"{count} warnings have been found!"
    return f"Check complete, {counted}\n" + "".join(map(_finding_text, report.findings))


def _finding_text(finding: Finding) -> str:
    head = f"\nWARNING: {finding.rule.name} - {finding.rule.url}\n{finding.message}\n{finding.at}\n"
    return safe(f"{head}{_RULE}\n{finding.at.excerpt()}\n{_RULE}\n")


def report_json(report: Report) -> dict[str, Any]:
    """BuildKit's `frontend.lint`."""
    sources = _Sources(report.source)
    warnings = [
        {
            "ruleName": each.rule.name,
            "description": each.rule.description,
            "url": each.rule.url,
            "detail": each.message,
            "location": sources.location(each.at),
        }
        for each in report.findings
    ]
    document: dict[str, Any] = {"warnings": warnings, "sources": []}
    if report.error is not None:
        document["buildError"] = _error_json(report.error, sources)
    document["sources"] = [
        {"filename": each.name, "language": "Dockerfile", "data": data(each)} for each in sources.files
    ]
    return document


def _error_json(error: BuildError, sources: _Sources) -> dict[str, Any]:
    where = sources.location(error.at) if error.at else {}
    return {"message": str(error), "location": where}


class _Sources:
    """The files that an answer speaks of, each once: the Dockerfile, then those it includes."""

    def __init__(self, first: SourceFile) -> None:
        self.files = [first]

    def location(self, at: SourceRange) -> dict[str, Any]:
        """A place; `sourceIndex` says in which file, when it is not the first."""
        names = [(each.name, each.text) for each in self.files]
        if (at.file.name, at.file.text) not in names:
            self.files.append(at.file)
            names.append((at.file.name, at.file.text))
        index = names.index((at.file.name, at.file.text))
        where: dict[str, Any] = {"sourceIndex": index} if index else {}
        return where | {"ranges": [{"start": {"line": at.first}, "end": {"line": at.last}}]}


def data(source: SourceFile) -> str:
    """The text of a source, in base64 as Go writes bytes."""
    return b64encode(source.text.encode("utf-8", "surrogateescape")).decode("ascii")


def outline_json(outline: Outline) -> dict[str, Any]:
    """BuildKit's `frontend.outline`; what is empty is left out."""
    sources = _Sources(outline.source)
    location = sources.location
    document = {
        "name": outline.name,
        "description": outline.description,
        "args": [
            _present(
                name=each.name, description=each.description, value=each.value, location=location(each.at)
            )
            for each in outline.args
        ],
        "secrets": [_needed_json(each, location(each.at)) for each in outline.secrets],
        "ssh": [_needed_json(each, location(each.at)) for each in outline.ssh],
        "cache": [{"ID": each.name, "location": location(each.at)} for each in outline.caches],
    }
    return _present(**document, sources=[data(each) for each in sources.files])


def _needed_json(parameter: Parameter, where: dict[str, Any]) -> dict[str, Any]:
    return _present(name=parameter.name, required=parameter.required, location=where)


def _present(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def outline_text(outline: Outline) -> str:
    """Tables, each only when it has a row."""
    parts = []
    if outline.name or outline.description:
        parts.append(f"TARGET:      {safe(outline.name) or '(default)'}\n")
        if outline.description:
            parts[-1] += f"DESCRIPTION: {safe(outline.description)}\n"
    args = [(each.name, each.value, each.description) for each in outline.args]
    parts += _section(("BUILD ARG", "VALUE", "DESCRIPTION"), args)
    for title, found in (("SECRET", outline.secrets), ("SSH", outline.ssh)):
        parts += _section(
            (title, "REQUIRED"), [(each.name, "true" if each.required else "") for each in found]
        )
    parts += _section(("CACHE",), [(each.name,) for each in outline.caches])
    return "\n".join(parts)


def _section(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rows = list(rows)
    return [table([heading, *rows])] if rows else []


def targets_json(source: SourceFile, found: Iterable[Target]) -> dict[str, Any]:
    """BuildKit's `frontend.targets`."""
    sources = _Sources(source)
    rows = [
        _present(
            name=each.name,
            default=each.default,
            description=each.description,
            base=each.base,
            platform=each.platform,
            location=sources.location(each.at),
        )
        for each in found
    ]
    return {"targets": rows, "sources": [data(each) for each in sources.files]}


def targets_text(found: Iterable[Target]) -> str:
    """A table; a stage without a name has its number, which `--target` takes too."""
    rows = [(_target_name(each), each.description) for each in found]
    return table([("TARGET", "DESCRIPTION"), *rows])


def _target_name(target: Target) -> str:
    if target.default:
        return f"{target.name} (default)".lstrip()
    return target.name or str(target.index)


def _describe_json() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "version": "1.0.0",
            "type": "rpc",
            "description": description,
            "opts": [{"name": each, "description": "Target build stage"} for each in options],
            "inputs": None,
            "metadata": [{"name": each, "description": ""} for each in metadata],
            "refs": None,
        }
        for name, description, options, metadata in _REQUESTS
    ]


def _describe_text() -> str:
    rows = [(name.removeprefix("frontend."), "1.0.0", description) for name, description, _, _ in _REQUESTS]
    return table([("NAME", "VERSION", "DESCRIPTION"), *rows])

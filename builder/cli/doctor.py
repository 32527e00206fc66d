"""`pybuild doctor`: what this machine allows, and what to type for more."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from builder.cli.isolating import ISOLATION
from builder.cli.session import Session

if TYPE_CHECKING:
    from builder.doctor import Report
    from builder.facts import Check
    from builder.isolation import Isolation


@click.command(
    "doctor",
    help="Look at what this machine allows: the isolation that steps get, what stands in the way of better, "
    "and the command that mends it. Changes nothing. The exit code is 1 where RUN cannot be had.",
)
@click.option("--security", is_flag=True, help="Show what protects the machine from a step, in every mode.")
@ISOLATION
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to show it.")
@click.pass_obj
def command(session: Session, security: bool, isolation: str | None, form: str) -> int:
    """Set by the decorator."""
    from builder.config import isolation as configured
    from builder.doctor import report

    found = report(isolation or configured(session.config) or "auto", session.root, security=security)
    sys.stdout.write(_json(found) if form == "json" else _text(found))
    return 0 if found.runs else 1


def _text(found: Report) -> str:
    chosen = found.chosen
    lines = [f"isolation: {chosen.rung.name} (rung {chosen.rung.number} of 5), snapshots: {chosen.storage}"]
    for heading, checks in found.sections.items():
        lines += ["", f"{heading}:", *(line for each in checks for line in _check(each))]
    for mode, each in found.modes.items():
        lines += ["", f"--isolation={mode}: {_mode(each)}", *_table(each)]
    return "\n".join(lines) + "\n"


def _check(check: Check) -> list[str]:
    lines = [f"  {'ok' if check.ok else 'no'}  {check.found}"]
    if check.mend and not check.ok:
        lines.append(f"      {check.mend}")
    return lines


def _mode(found: Isolation) -> str:
    return (
        "root, without namespaces" if found.chroot else f"{found.rung.name} (rung {found.rung.number} of 5)"
    )


def _table(found: Isolation) -> list[str]:
    from builder.doctor import downgrades, security

    rows = [f"  {name + ':':<16}{value}" for name, value in security(found)]
    return [*rows, *(f"  weaker: {line}" for line in downgrades(found))]


def _json(found: Report) -> str:
    from builder.doctor import downgrades, security

    chosen = found.chosen
    value: dict[str, Any] = {
        **_rung(chosen),
        "run": chosen.runs,
        "checks": {
            heading: [
                {"name": each.name, "ok": each.ok, "found": each.found, "mend": each.mend} for each in checks
            ]
            for heading, checks in found.sections.items()
        },
    }
    if found.modes:
        value["security"] = {
            mode: {**_rung(each), "step": dict(security(each)), "weaker": downgrades(each)}
            for mode, each in found.modes.items()
        }
    return json.dumps(value, indent=2) + "\n"


def _rung(found: Isolation) -> dict[str, Any]:
    return {"rung": found.rung.number, "isolation": found.rung.name, "snapshots": found.storage}

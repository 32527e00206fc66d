"""`pybuild doctor`: text for people, JSON for programs, and the exit code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builder import doctor
from builder.facts import Check
from builder.isolation import RUNGS, Isolation

Pybuild = Any


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the report will be; `asked` is what it was asked for."""
    seen: dict[str, Any] = {"isolation": Isolation(RUNGS[3], storage="copy")}

    def report(asked: str, root: str, *, security: bool = False) -> doctor.Report:
        seen["asked"] = asked, security
        checks = (Check("good", True, "all is well"), Check("bad", False, "the lid is shut", "sudo open lid"))
        modes = {"auto": seen["isolation"], "chroot": Isolation(RUNGS[4], "chroot")} if security else {}
        return doctor.Report(seen["isolation"], {"isolation": checks}, modes)

    monkeypatch.setattr(doctor, "report", report)
    return seen


def test_text(pybuild: Pybuild, found: dict[str, Any]) -> None:
    ran = pybuild("doctor")
    assert (ran.code, found["asked"]) == (0, ("auto", False))
    assert ran.out == (
        "isolation: user namespace with one id (rung 4 of 5), snapshots: copy\n\nisolation:\n"
        "  ok  all is well\n  no  the lid is shut\n      sudo open lid\n"
    )


def test_where_nothing_can_be_run(pybuild: Pybuild, found: dict[str, Any]) -> None:
    found["isolation"] = Isolation(RUNGS[4], storage="copy")
    ran = pybuild("doctor", "--isolation", "strict")
    assert (ran.code, found["asked"]) == (1, ("strict", False))
    assert ran.out.startswith("isolation: no user namespace (rung 5 of 5)")


def test_security(pybuild: Pybuild, found: dict[str, Any]) -> None:
    """SECURITY.md S97."""
    ran = pybuild("doctor", "--security")
    without = ran.out.partition("--isolation=chroot: root, without namespaces\n")[2]
    assert "  system calls:   an allow list (docs/security.md); unknown ones are ENOSYS\n" in without
    assert "  weaker: snapshots by copy" in ran.out and "  weaker: no namespaces: " in without


def test_json(pybuild: Pybuild, found: dict[str, Any]) -> None:
    value = json.loads(pybuild("doctor", "--security", "--format", "json").out)
    assert (value["rung"], value["snapshots"], value["run"]) == (4, "copy", True)
    assert value["checks"]["isolation"][1] == {
        "name": "bad",
        "ok": False,
        "found": "the lid is shut",
        "mend": "sudo open lid",
    }
    assert set(value["security"]) == {"auto", "chroot"} and value["security"]["chroot"]["weaker"]

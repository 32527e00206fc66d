"""What is said of a machine: checks with what mends them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder import doctor
from builder.facts import Check
from builder.isolation import RUNGS, Isolation
from builder.sandbox import userns


def test_every_failed_check_says_what_to_do(tmp_path: Path) -> None:
    found = doctor.report("auto", str(tmp_path / "store"))
    for heading, checks in found.sections.items():
        assert heading == "isolation" or checks
        for each in checks:
            assert each.name and each.found and not each.found.endswith("."), each
            assert each.ok or each.mend or heading in ("network", "more"), each


def test_a_store_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(tmp_path)))
    (check,) = doctor.report("auto", str(tmp_path / "store")).sections["store"]
    assert not check.ok and "--root" in check.mend


@pytest.mark.parametrize(
    ("there", "tun", "failed"),
    [((), True, ["uplink"]), (("slirp4netns",), False, ["tun"]), (("pasta",), True, ["network"])],
)
def test_what_an_ordinary_user_lacks_for_networks(
    monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], tun: bool, failed: list[str]
) -> None:
    monkeypatch.setattr(userns, "trusted", lambda name: f"/usr/bin/{name}" if name in there else "")
    monkeypatch.setattr(os, "access", lambda path, mode: tun)
    monkeypatch.setattr("builder.sandbox.probing.network_refused", lambda maps: "no way out")
    found = Isolation(RUNGS[3], maps=userns.single(1000, 1000))
    checks = doctor._network(found)
    assert [each.name for each in checks if not each.ok] == failed
    assert all(each.mend for each in checks if not each.ok)


def test_what_is_weaker_is_said() -> None:
    single = userns.single(1000, 1000)
    assert doctor.downgrades(Isolation(RUNGS[0])) == []
    assert doctor.downgrades(Isolation(RUNGS[4], checks=(Check("x", False, "y"),))) == ["no RUN"]
    (line,) = doctor.downgrades(Isolation(RUNGS[4], "chroot"))
    assert "no namespaces" in line
    slow, owners = doctor.downgrades(Isolation(RUNGS[3], storage="copy", maps=single))
    assert "slower" in slow and "owner" in owners
    assert doctor.downgrades(Isolation(RUNGS[0], notes=("/proc is the one outside",)))


def test_what_a_step_has_depends_on_the_rung() -> None:
    lent = userns.Maps(userns.rows(1000, [(100000, 65536)]), userns.rows(1000, [(100000, 65536)]), "helpers")
    table = {
        number: dict(doctor.security(Isolation(RUNGS[number - 1], maps=maps)))
        for number, maps in ((1, None), (2, lent), (4, userns.single(1000, 1000)))
    }
    assert "NAT of the kernel" in table[1]["network"] and "pasta" in table[2]["network"]
    assert "65536 others" in table[2]["users"] and "noted" in table[4]["users"]
    assert "user" not in table[1]["namespaces"] and table[2]["namespaces"].endswith("user")
    assert [name for name, _ in doctor.security(Isolation(RUNGS[4]))] == ["RUN"]

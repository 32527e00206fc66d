"""What is in the wheel: two packages at the top, schemas inside, and nothing of the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    target = tmp_path_factory.mktemp("wheel")
    made = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    (name,) = os.listdir(target)
    return zipfile.ZipFile(target / name)


def test_the_top_level_is_exactly_our_two_packages(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"builder", "oci"}


def test_s94_s98_pure_python_and_nothing_setuid(wheel: zipfile.ZipFile) -> None:
    """No compiled part, nothing setuid, no program but the entry point (SECURITY.md S94, S98)."""
    names = [info for info in wheel.infolist() if ".dist-info/" not in info.filename]
    assert {os.path.splitext(info.filename)[1] for info in names} <= {".py", ".json", ".typed", ""}
    assert [info.filename for info in names if not os.path.splitext(info.filename)[1]] == []
    assert [info.filename for info in wheel.infolist() if info.external_attr >> 16 & 0o7111] == []
    (meta,) = (name for name in wheel.namelist() if name.endswith(".dist-info/WHEEL"))
    assert b"Tag: py3-none-any" in wheel.read(meta)


def test_s98_no_host_is_named_but_the_registry_that_names_stand_for() -> None:
    """Nothing is asked of the network that nobody named: no telemetry, no update check."""
    import re

    found = set()
    for package in ("builder", "oci"):
        for directory, _, names in os.walk(os.path.join(ROOT, package)):
            for name in (each for each in names if each.endswith(".py")):
                with open(os.path.join(directory, name), encoding="utf-8") as file:
                    found |= set(re.findall(r"https?://([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)", file.read()))
    meant = {
        "index.docker.io",
        "github.com",
    }  # docker.io's key; a context's
    shown = {
        "docs.docker.com",
        "no-color.org",
        "example.org",
        "registry.example",
        "slsa.dev",
        "spdx.org",
        "in-toto.io",
    }
    assert found <= meant | shown, found - meant - shown


def test_every_module_and_every_schema_of_the_checkout_is_there(wheel: zipfile.ZipFile) -> None:
    ours = set()
    for package in ("builder", "oci"):
        for directory, _, names in os.walk(os.path.join(ROOT, package)):
            inside = os.path.relpath(directory, ROOT)
            ours |= {f"{inside}/{name}" for name in names if name.endswith((".py", ".json", "py.typed"))}
    assert ours <= set(wheel.namelist())


def test_the_command_and_the_owner_of_the_import_name(wheel: zipfile.ZipFile) -> None:
    (entry,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "pybuild = builder.cli.main:main" in wheel.read(entry).decode()
    assert b'__owner__ = "pybuild-oci"' in wheel.read("oci/__init__.py")


def test_pins_are_names_and_versions_only() -> None:
    with open(os.path.join(ROOT, "constraints.txt"), encoding="ascii") as file:
        for line in file.read().splitlines():
            name, _, version = line.partition("==")
            assert name.replace("-", "").isalnum() and version.replace(".", "").isalnum(), line

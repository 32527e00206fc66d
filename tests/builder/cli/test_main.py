"""The command line before any command: which command is meant, how errors end, what start-up costs."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import click
import pytest

from builder.cli import group, main, output
from builder.errors import (
    BuildCancelled,
    BuildError,
    CacheError,
    ContextError,
    DockerfileError,
    ExportError,
    NotFound,
    ResourceError,
    SandboxError,
    StepFailed,
    UsageError,
)
from builder.source import SourceFile, SourceRange
from builder.version import VERSION
from oci.errors import BlobNotFound, DigestMismatch, InvalidArchive, InvalidReference

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (["-t", "app", "."], ["build", "-t", "app", "."]),
        (["-D", "lint", "-f", "x", "."], ["-D", "build", "--check", "-f", "x", "."]),
        (["."], ["build", "."]),
        (["-"], ["build", "-"]),
        (["./images"], ["build", "./images"]),
        (["images"], ["images"]),
        (["build", "."], ["build", "."]),
        (["--root", "/r", "-D", "-t", "x", "."], ["--root", "/r", "-D", "build", "-t", "x", "."]),
        (["--root=/r", "images", "-q"], ["--root=/r", "images", "-q"]),
        (["--config", "images", "."], ["--config", "images", "build", "."]),
        (["-t", "images", "."], ["build", "-t", "images", "."]),
        (["run", "x", "build"], ["run", "x", "build"]),
        (["--help"], ["--help"]),
        ([], []),
        (["--root", "/r"], ["--root", "/r"]),
        (["push", "x"], ["push", "x"]),
        (["buildx", "build", "-t", "x", "."], ["build", "-t", "x", "."]),
        (["-D", "builder", "b", "."], ["-D", "build", "."]),
    ],
)
def test_the_default_command(written: list[str], meant: list[str]) -> None:
    assert main.with_default(written) == meant


def test_a_directory_with_a_later_commands_name_is_a_context(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.chdir(str(tmp_path))
    os.mkdir("plan")
    assert main.with_default(["plan"]) == ["build", "plan"]


def test_every_command_has_its_module() -> None:
    for name in main.COMMANDS:
        command = group.commands.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None and command.name == name and command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.hidden or parameter.help, (name, parameter.name)


def test_every_command_is_documented() -> None:
    with open(os.path.join(ROOT, "docs", "commands.md"), encoding="utf-8") as file:
        text = file.read()
    for name in main.COMMANDS:
        assert f"## pybuild {name}" in text, name
        command = group.commands.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert f"`{parameter.opts[0]}" in text or f", {parameter.opts[0]}" in text, (
                    name,
                    parameter.opts,
                )


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in main.COMMANDS)
    assert main.run([]) == 0
    assert capsys.readouterr().out.startswith("Usage: pybuild")


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    with open(os.path.join(ROOT, "pyproject.toml"), encoding="utf-8") as file:
        assert f'\nversion = "{VERSION}"\n' in file.read()
    for args in (["--version"], ["-D", "--version"]):
        assert main.run(args) == 0
        assert capsys.readouterr().out == f"pybuild {VERSION}\n"


def test_another_distributions_oci_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.foreign_oci() == ""
    monkeypatch.setitem(sys.modules, "oci", ModuleType("oci"))
    assert main.run(["images"]) == 70
    shown = capsys.readouterr().err
    assert "environment of its own" in shown and shown.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["search", "x"], "not there yet"),
        (["plan", "x"], "plans of builds"),
        (["image", "prune", "-a"], "'image prune' is not there yet"),
        (["system", "prune"], "pruning of the store"),
        (["builder", "prune"], "pruning of the store"),
        (["images", "--nope"], "No such option"),
        (["tag", "x"], "Missing argument"),
        (["--nope"], "No such option"),
    ],
)
def test_usage_errors(
    args: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)  # a directory called `builder` would be a context
    assert main.run(args) == 2
    ran = capsys.readouterr()
    assert said in ran.err and ran.err.startswith("error: ") and ran.out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StepFailed("x", status=3), 1),
        (SandboxError("x"), 1),
        (NotFound("x"), 1),
        (ExportError("x"), 1),
        (BuildError("x"), 1),
        (UsageError("x"), 2),
        (DockerfileError("x"), 2),
        (ContextError("x"), 2),
        (InvalidArchive("x"), 2),
        (InvalidReference("x"), 2),
        (DigestMismatch("x"), 2),
        (BlobNotFound("x"), 1),
        (ResourceError("x"), 5),
        (OSError(errno.ENOSPC, "No space left on device"), 5),
        (MemoryError(), 5),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1),
        (CacheError("x"), 70),
        (ZeroDivisionError("x"), 70),
        (BuildCancelled("x"), 130),
        (KeyboardInterrupt(), 130),
        (main.Terminated(signal.SIGTERM), 143),
        (BrokenPipeError(), 0),
    ],
)
def test_exit_codes(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """SECURITY.md R21."""
    assert output.report(error) == code
    shown = capsys.readouterr().err
    assert bool(shown) == (not isinstance(error, BrokenPipeError))
    assert "Traceback" not in shown


def test_an_error_shows_where_what_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    file = SourceFile("Dockerfile", "FROM a\nRUN x\nRUN false\x1b[2J\nCOPY a b")
    error = StepFailed(
        "RUN exited with 1",
        status=1,
        at=SourceRange(file, 3, 3),
        log=("no\x07 such", "file"),
        hint="look there",
    )
    output.report(error)
    assert capsys.readouterr().err == (
        "Dockerfile:3: RUN exited with 1\n"
        "   the last lines it printed:\n"
        "   | no\\x07 such\n"
        "   | file\n"
        "   1 |     FROM a\n"
        "   2 |     RUN x\n"
        "   3 | >>> RUN false\\x1b[2J\n"
        "   4 |     COPY a b\n"
        "hint: look there\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_an_interrupt_broke_is_no_mistake_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    """One in the middle of an import leaves half a module, and other errors with it."""

    def broken(self: object) -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        raise ImportError("cannot import name 'Images'")

    monkeypatch.setattr("builder.cli.session.Session.images", property(broken))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main.run(["images"]) == 128 + number
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "interrupted\n"


def test_an_unexpected_error_has_its_traceback_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("builder.cli.session.Session.images", property(lambda self: 1 / 0))
    assert main.run(["images"]) == 70
    shown = capsys.readouterr().err
    assert (
        shown.startswith("internal error: ZeroDivisionError") and "Traceback" not in shown and "-D" in shown
    )
    assert main.run(["-D", "images"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_a_configuration_that_is_named_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.toml"
    root = ["--root", str(tmp_path / "store")]
    assert main.run([*root, "--config", str(path), "images"]) == 1
    path.write_text("[registry")
    assert main.run([*root, "--config", str(path), "images"]) == 2
    assert "no TOML" in capsys.readouterr().err
    path.write_text('[registry."127.0.0.1:5000"]\nhttp = true\n')
    assert main.run([*root, "--config", str(path), "images"]) == 0


def test_a_reader_that_goes_away_is_no_error(tmp_path: object) -> None:
    command = f"{sys.executable} -m builder.cli.main --root {tmp_path}/store images"
    script = f"{command} >/dev/null && (sleep 0.5; {command}; echo code $? >&2) | true"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "code 0\n"


def test_sigterm_ends_with_its_code(tmp_path: object) -> None:
    code = (
        "import sys, os, signal\n"
        "from builder.cli import main, session\n"
        "session.Session.images = property(lambda self: os.kill(os.getpid(), signal.SIGTERM))\n"
        "sys.argv = ['pybuild', 'images']\n"
        "main.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143, "interrupted\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere(tmp_path: Path, closed: str) -> None:
    """The next file opened would get their numbers: here the store's, which is made."""
    line = f"{sys.executable} -m builder.cli.main --root {tmp_path}/store import - a:b {closed}"
    read = line if "<" in closed else f"head -c 10240 /dev/zero | {line}"
    done = subprocess.run(["bash", "-c", read], cwd=ROOT, capture_output=True)
    assert b"Traceback" not in done.stderr and b"internal" not in done.stderr
    if "<" not in closed:
        assert done.returncode == 0
    listed = subprocess.run(
        [sys.executable, "-m", "builder.cli.main", "--root", f"{tmp_path}/store", "images", "-q"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    assert listed.stderr == b"" and bool(listed.stdout) == ("<" not in closed)

"""Errors as people meet them: where, what, the lines, what to do; and the exit code. Printed only here."""

from __future__ import annotations

import errno
import os
import sys

import click

from builder import interrupts
from builder.cli.text import safe
from builder.errors import BuildCancelled, BuildError
from oci.errors import BlobNotFound, NotAnImage, OciError

RUN_FAILED = 125
"""Docker's exit code for a container that could not be made: the program's own codes are passed on."""

_ARTIFACT = "pybuild artifact pull writes its files, pybuild copy takes it anywhere"
_RESOURCES = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)


def report(error: BaseException, *, debug: bool = False) -> int:
    """Print an error to standard error; its exit code (docs/exit-codes.md)."""
    if exit_code(error) == 70:
        error = interrupts.asked() or error  # one in the middle of an import is told as a mistake of ours
    code = exit_code(error)
    if isinstance(error, BrokenPipeError):
        return code
    if debug:
        import traceback

        traceback.print_exception(error)
    _write(text_of(error))
    return code


def show(line: str) -> None:
    """Print a line that is no error to standard error."""
    _write(safe(line))


def usage(error: click.ClickException) -> int:
    """Print a command-line error as click words it, and which help to read."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        sys.stdout.write(error.format_message() + "\n")
        return 0
    context = getattr(error, "ctx", None)
    lines = [f"{_red('error')}: {safe(error.format_message())}"]
    if context is not None:
        lines.append(f"hint: {context.command_path} --help")
    _write("\n".join(lines))
    return RUN_FAILED if context is not None and context.info_name == "run" else error.exit_code


def exit_code(error: BaseException) -> int:
    """The code for an error."""
    match error:
        case BuildError() | KeyboardInterrupt():
            return int(getattr(error, "exit_code", 130))
        case BlobNotFound():
            return 1
        case OciError():
            # The registry's errors, when they come, carry a code of their own.
            return int(getattr(error, "exit_code", 2))
        case BrokenPipeError():
            return 0
        case MemoryError():
            return 5
        case OSError():
            return 5 if error.errno in _RESOURCES else 1
        case SystemExit():
            return error.code if isinstance(error.code, int) else 1
    return 70


def text_of(error: BaseException) -> str:
    """What is printed: the line, a failed step's last output, the excerpt, the hint."""
    match error:
        case BuildCancelled() | KeyboardInterrupt():
            return safe(str(error)) or "interrupted"
        case BuildError():
            return _build_error(error)
        case NotAnImage():
            return f"{_red('error')}: {safe(str(error))}\nhint: {_ARTIFACT}"
        case OciError():
            return f"{_red('error')}: {safe(str(error))}"
        case OSError() if error.strerror:
            name = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
            return f"{_red('error')}: {safe(name)}{error.strerror}{_permission(error)}"
        case MemoryError():
            return f"{_red('error')}: out of memory"
    return (
        f"{_red('internal error')}: {type(error).__name__}: {safe(str(error))}\n"
        "hint: this is a mistake in pybuild; -D before the command's name shows the traceback"
    )


def _build_error(error: BuildError) -> str:
    head = safe(str(error))
    lines = [f"{_bold(safe(str(error.at)))}: {head}" if error.at else f"{_red('error')}: {head}"]
    if error.log:
        lines += ["   the last lines it printed:", *(f"   | {safe(line)}" for line in error.log)]
    if error.at:
        lines += [f"   {line}" for line in safe(error.at.excerpt()).split("\n")]
    if error.hint:
        lines.append(f"hint: {safe(error.hint)}")
    return "\n".join(lines)


def _permission(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0:
        return "\nhint: this store belongs to somebody else: name yours with --root or PYBUILD_ROOT"
    return ""


def coloured() -> bool:
    """Whether standard error is a terminal that wants colours (https://no-color.org)."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _red(text: str) -> str:
    return f"\x1b[1;31m{text}\x1b[0m" if coloured() else text


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if coloured() else text


def _write(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody is there to be told

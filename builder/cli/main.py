"""The command `pybuild`: finds the command's module, runs it, and gives its end an exit code.

Start-up is part of the product. This module knows every command's name and one-line help, so that neither
`--help` nor any command imports another command's module.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType

COMMANDS = {
    "attach": "Join the streams of a running container",
    "artifact": "Push and pull files that are no images, and list them",
    "build": "Build an image from a Dockerfile (the default command)",
    "commit": "Make an image of what a container wrote",
    "container": "The commands about containers by their longer names; prune",
    "context": "Show what a build can copy, how large it is, and why",
    "cp": "Copy files into a container, and out of it",
    "create": "Make a container without starting it",
    "copy": "Copy images between registries, layouts, archives and the store",
    "diff": "List what a container changed in its image's files",
    "doctor": "Look at what this machine allows, and what to type for more",
    "exec": "Run one more program in a running container",
    "expand": "Print a Dockerfile with its INCLUDEs put in, for any builder",
    "export": "Write the files of a container or an image as one tar archive",
    "fsck": "Verify the store: blobs, names, unpacked layers; and mend it",
    "history": "Show what made an image, step by step",
    "image": "The commands about images by their longer names",
    "images": "List the images of the store",
    "import": "Make an image from a tar archive of a root file system",
    "inspect": "Show all there is to know of containers and images, as JSON",
    "kill": "Send a signal to containers",
    "load": "Load images from an archive (docker save, OCI)",
    "lock": "Write down what a Dockerfile's images and URLs mean, by digest",
    "login": "Log in to a registry",
    "logout": "Forget the credentials of a registry",
    "logs": "Show what a container printed",
    "manifest": "Show, make and push manifests and indexes",
    "pause": "Stop all processes of containers",
    "ps": "List containers",
    "port": "List the published ports of a container",
    "pull": "Pull images from registries into the store",
    "push": "Push images of the store to registries",
    "registry": "Serve the store as a registry, and tidy it",
    "rename": "Give a container another name",
    "restart": "Stop containers and start them again",
    "rm": "Remove containers",
    "rmi": "Remove images, or names of images",
    "run": "Run a program in a new container",
    "save": "Write images to an archive that others can load",
    "start": "Start containers that were created, or have ended",
    "stop": "End running containers",
    "tag": "Give an image another name",
    "tags": "List the tags of a repository in a registry",
    "top": "List the processes of a container",
    "unpause": "Let paused containers go on",
    "validate": "Check an image, a layout or an archive against the specification",
    "volume": "Make, list and remove volumes: directories that outlive containers",
    "wait": "Wait until containers have ended",
}
"""Every command and its help. Its module is `builder.cli.<name>` (`module_of`)."""

LATER = {
    "search": "a search of Docker Hub (pybuild tags lists a repository)",
    **dict.fromkeys(("bake", "compose"), "builds of several targets"),
    **dict.fromkeys(("du", "prune", "system", "builder"), "pruning of the store"),
    **dict.fromkeys(("explain", "plan"), "plans of builds"),
}
"""Commands that people will try and that wait for a later version: what they wait for."""

_VALUES = ("--root", "--config")
_FLAGS = ("-D", "--debug")
_KEYWORDS = frozenset({"import", "exec"})


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: ends what Ctrl-C ends, with its own exit code."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


def main() -> NoReturn:
    """The console script. Ends the process without tearing the interpreter down: all is flushed."""
    _open_streams()
    gc.disable()  # nothing that start-up makes is garbage; commands that work long turn it on
    code = run(sys.argv[1:])
    try:
        sys.stderr.flush()
    except OSError:
        pass
    os._exit(code)


def _open_streams() -> None:
    """Standard streams that the caller has closed lead nowhere: else the next file opened would get their
    numbers, and be written into."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdin = sys.stdin or open(0, encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115


def run(args: list[str]) -> int:
    """Run one command line; its exit code (docs/exit-codes.md)."""
    if problem := foreign_oci():
        print(problem, file=sys.stderr)  # noqa: T201
        return 70
    if args == ["--version"]:
        from builder.version import VERSION

        sys.stdout.write(f"pybuild {VERSION}\n")
        return _flushed(0)
    from builder import interrupts

    interrupts.forget()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, or the caller's
        signal.signal(signal.SIGINT, _interrupt)
    from builder.cli import group

    return _flushed(group.run(with_default(args)))


def foreign_oci() -> str:
    """A line to print if the import name `oci` is not ours; empty if it is."""
    import oci

    if getattr(oci, "__owner__", "") == "pybuild-oci":
        return ""
    return (
        "pybuild: another distribution owns the import name 'oci' here (Oracle's SDK?); "
        "install pybuild in an environment of its own, for example with: pipx install pybuild-oci"
    )


def leading(args: list[str]) -> int:
    """How many words stand before the command's."""
    position = 0
    while position < len(args):
        word = args[position]
        if word in _VALUES:
            position += 2
        elif word in _FLAGS or word.startswith(tuple(f"{option}=" for option in _VALUES)):
            position += 1
        else:
            break
    return position


def with_default(args: list[str]) -> list[str]:
    """`args` with the command's name in place: a first word that is no command's name belongs to `build`."""
    position = leading(args)
    rest = args[position:]
    if not rest or rest[0] in COMMANDS or rest[0] in ("--help", "-h", "--version"):
        return args
    if rest[0] == "lint" and not os.path.lexists("lint"):
        return [*args[:position], "build", "--check", *rest[1:]]
    if rest[0] in ("builder", "buildx") and rest[1:2] in (["build"], ["b"]):
        return [*args[:position], "build", *rest[2:]]
    if rest[0] in LATER and not os.path.lexists(rest[0]):
        return args
    return [*args[:position], "build", *rest]


def module_of(command: str) -> str:
    """The module that holds a command."""
    return f"builder.cli.{command}_" if command in _KEYWORDS else f"builder.cli.{command}"


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    from builder import interrupts

    interrupts.ask(terminated := Terminated(number))
    raise terminated


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    from builder import interrupts

    interrupts.ask(interrupt := KeyboardInterrupt())
    raise interrupt


def _flushed(code: int) -> int:
    """`code`, after standard output is written out. A reader that went away is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code


if __name__ == "__main__":
    main()

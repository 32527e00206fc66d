"""Every Dockerfile instruction as data: what was written, checked for form, nothing expanded yet.

`code` is the instruction as written on one logical line; it is what people see as a step's name.
"""

from __future__ import annotations

from dataclasses import field
from typing import TypeAlias

from builder.devices import Device
from builder.frontend.reader import Heredoc
from builder.source import SourceRange
from oci.data import dataclass

Pairs: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What all instructions share."""

    code: str
    at: SourceRange


@dataclass(frozen=True, slots=True)
class From(Written):
    """`FROM [--platform=p] base [AS name]`. `name` is in lower case."""

    base: str
    name: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Arg(Written):
    """`ARG name[=default] ...`: a default of None is no default."""

    args: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Env(Written):
    """`ENV key=value ...` or `ENV key value`."""

    pairs: Pairs


@dataclass(frozen=True, slots=True)
class Label(Written):
    """`LABEL key=value ...`."""

    pairs: Pairs


@dataclass(frozen=True, slots=True)
class Maintainer(Written):
    """`MAINTAINER name` (deprecated)."""

    name: str


@dataclass(frozen=True, slots=True)
class Expose(Written):
    """`EXPOSE port[-port][/protocol] ...`."""

    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Volume(Written):
    """`VOLUME path ...` or `VOLUME ["path"]`."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class User(Written):
    """`USER name[:group]`."""

    user: str


@dataclass(frozen=True, slots=True)
class Workdir(Written):
    """`WORKDIR path`."""

    path: str


@dataclass(frozen=True, slots=True)
class Shell(Written):
    """`SHELL ["program", "argument"]`."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StopSignal(Written):
    """`STOPSIGNAL SIGNAME|number`."""

    signal: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command line: the words of the JSON form, or one text for the shell."""

    argv: tuple[str, ...]
    shell: bool


@dataclass(frozen=True, slots=True)
class Cmd(Written):
    """`CMD`."""

    command: Command


@dataclass(frozen=True, slots=True)
class Entrypoint(Written):
    """`ENTRYPOINT`."""

    command: Command


@dataclass(frozen=True, slots=True)
class Healthcheck(Written):
    """`HEALTHCHECK NONE | [options] CMD ...`. Times are in nanoseconds, 0 is not given; `test` begins with
    its kind.
    """

    test: tuple[str, ...]
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Onbuild(Written):
    """`ONBUILD instruction`: the trigger's text, heredocs included."""

    trigger: str


@dataclass(frozen=True, slots=True)
class Mount:
    """`RUN --mount=...`: the options with full names, checked as far as they hold no variables. A later
    option of the same name wins.
    """

    options: Pairs

    @property
    def origin(self) -> str:
        """Where its files come from, as `COPY --from` would say it. Variables are not replaced in it."""
        return dict(self.options).get("from", "")


@dataclass(frozen=True, slots=True)
class Run(Written):
    """`RUN [flags] command`. `command.argv` of the shell form is one text; heredocs belong to the shell form
    only.
    """

    command: Command
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: str = ""
    security: str = ""
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True, slots=True)
class Transfer(Written):
    """What COPY and ADD share. `sources` are paths or URLs, `documents` the heredocs among the sources."""

    sources: tuple[str, ...]
    dest: str
    documents: tuple[Heredoc, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Copy(Transfer):
    """`COPY [flags] source... dest`. `origin` is `--from`; `if_exists`, ours, passes over what is missing."""

    origin: str = ""
    parents: bool = False
    if_exists: bool = False


@dataclass(frozen=True, slots=True)
class Add(Transfer):
    """`ADD [flags] source... dest`. `unpack` and `keep_git_dir` of None were not written."""

    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None


Instruction: TypeAlias = (
    From
    | Arg
    | Env
    | Label
    | Maintainer
    | Expose
    | Volume
    | User
    | Workdir
    | Shell
    | StopSignal
    | Cmd
    | Entrypoint
    | Healthcheck
    | Onbuild
    | Run
    | Copy
    | Add
)


@dataclass(frozen=True, slots=True)
class Stage:
    """One `FROM` and what follows it. `index` counts from 0."""

    index: int
    head: From
    body: tuple[Instruction, ...]

    @property
    def label(self) -> str:
        """What people call it: its name, or `stage-N`."""
        return self.head.name or f"stage-{self.index}"


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A parsed Dockerfile: the ARGs before the first FROM, and the stages."""

    escape: str
    args: tuple[Arg, ...]
    stages: tuple[Stage, ...]

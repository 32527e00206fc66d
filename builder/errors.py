"""What can go wrong with steps.

    BuildError                exit code
    ├── UsageError                2  options that contradict each other or name nothing
    ├── DockerfileError           2  the Dockerfile: file, lines, what was expected
    ├── StepFailed                1  a step's own command failed
    ├── SandboxError              1  the kernel or the image refused a step's surroundings
    ├── ContextError              2  the build context: missing, unreadable, changed under our hands
    ├── FetchFailed               3  a URL or a repository could not be fetched
    ├── RegistryFailed            3  a registry refused or was out of reach (4: it wants other credentials)
    ├── NotFound                  1  an image, stage or container that is not there
    ├── CacheError               70  the store's database is unusable
    ├── ExportError               1  an output could not be written
    ├── ResourceError             5  disk or memory ran out, or a limit on resources was met
    ├── TimedOut                  1  the build took longer than it may
    └── BuildCancelled          130  interrupted

Every error may carry a `SourceRange` (where it was written) and a `hint` (what to do). `builder.cli.output`
is the only place that prints one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.source import SourceRange


class BuildError(Exception):
    """Base of every error the builder raises on purpose.

    `str(error)` is one sentence without file or line; `at` says where, `hint` what to do, `log` the last
    lines a failed step printed. `enterable` says that it is about a step with a shell, in which people could
    look around.
    """

    exit_code = 1
    enterable = False

    def __init__(
        self, message: str, *, at: SourceRange | None = None, hint: str = "", log: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.at = at
        self.hint = hint
        self.log = log


class UsageError(BuildError):
    """Options or names on the command line that cannot be used."""

    exit_code = 2


class DockerfileError(BuildError):
    """Dockerfile text that cannot be read, or asks for what cannot be."""

    exit_code = 2


class ContextError(BuildError):
    """A build context that is missing, unreadable, or changed during the build."""

    exit_code = 2


class StepFailed(BuildError):
    """A step's command exited with another code than 0; `status` is that code (128+n for signal n)."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        at: SourceRange | None = None,
        hint: str = "",
        log: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, at=at, hint=hint, log=log)
        self.status = status


class SandboxError(BuildError):
    """A step's surroundings could not be made."""


class FetchFailed(BuildError):
    """A URL or a git repository that could not be fetched, or is not what its checksum says."""

    exit_code = 3


class RegistryFailed(BuildError):
    """A registry refused, could not be reached, or has no such thing: in its own words. `code` is 4 when it
    wants other credentials."""

    exit_code = 3

    def __init__(self, message: str, *, code: int = 3, at: SourceRange | None = None, hint: str = "") -> None:
        super().__init__(message, at=at, hint=hint)
        self.exit_code = code


class NotFound(BuildError):
    """A name that names nothing here."""


class CacheError(BuildError):
    """The local database cannot be used."""

    exit_code = 70


class ExportError(BuildError):
    """An output could not be written."""


class ResourceError(BuildError):
    """Disk or memory ran out, or a step met a limit on memory or processes."""

    exit_code = 5


class TimedOut(BuildError):
    """The build took longer than it may."""


class BuildCancelled(BuildError):
    """The build was interrupted."""

    exit_code = 130

"""The step graph: what a Dockerfile asks for, as content-addressed data.

The frontend makes it, the solver walks it; neither knows the other. Every op is a frozen value whose
`definition()` is plain data: equal definitions mean equal work. Nothing here opens a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal

from builder.mounts import Mount
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.devices import Device
    from builder.entitlements import Security
    from builder.giturl import GitUrl
    from builder.source import SourceRange
    from oci.image import Image
    from oci.model import ImageConfig, Platform

SEMANTICS = "1"
"""Version of what the ops mean. A change in meaning changes it, and with it every cache key (SECURITY.md
S70)."""

Network = Literal["default", "none", "host"]


@dataclass(frozen=True, slots=True)
class InlineFile:
    """A file written in the Dockerfile itself (a heredoc): `name` is its last path component."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class ContextSource:
    """Paths of a build context: the main one (`name` is empty) or a named directory.

    `exact` paths are no patterns, and a directory among them is copied with its own metadata.
    """

    paths: tuple[str, ...]
    name: str = ""
    exact: bool = False


@dataclass(frozen=True, slots=True)
class StepSource:
    """Paths of another step's result: always the *second* input of the Copy that holds it."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InlineSource:
    """Files written in the Dockerfile."""

    files: tuple[InlineFile, ...]


@dataclass(frozen=True, slots=True)
class HttpSource:
    """The file behind a URL. `name` is what it is called in a directory, empty when its URL does not say.

    `checksum` is the digest it must have (empty: any), `unpack` whether an archive is unpacked.
    """

    url: str
    name: str = ""
    checksum: str = ""
    unpack: bool = False


@dataclass(frozen=True, slots=True)
class GitSource:
    """A commit of a git repository: its files, with `.git` when `keep_git_dir`."""

    git: GitUrl
    keep_git_dir: bool = False


RemoteSource = HttpSource | GitSource
CopySource = ContextSource | StepSource | InlineSource | HttpSource | GitSource


@dataclass(frozen=True, slots=True)
class Scratch:
    """Nothing: the empty root of `FROM scratch`. No inputs."""

    def definition(self) -> dict[str, Any]:
        return {"op": "scratch"}


@dataclass(frozen=True, slots=True)
class Base:
    """A resolved image's root. No inputs. Its identity is its layers (`diff_ids`), not its name."""

    reference: str
    image: Image = field(compare=False, hash=False)

    def definition(self) -> dict[str, Any]:
        return {"op": "base", "layers": [str(each) for each in self.image.config.value.diff_ids]}


@dataclass(frozen=True, slots=True)
class Exec:
    """Run a program on top of the first input; the other inputs hold what `mounts` show.

    `env` is all it sees; `proxy_env` is seen too but is part of no key (FEATURES.md I04), and neither is
    `shell`, the stage's SHELL: `argv` says what runs. `files` are put at
    `/dev/pipes/<name>`, executable, for the time of the run. `user` is as written in USER and resolved in
    the image.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str = "/"
    user: str = ""
    network: Network = "default"
    files: tuple[InlineFile, ...] = ()
    proxy_env: tuple[tuple[str, str], ...] = ()
    extra_hosts: tuple[tuple[str, str], ...] = ()
    hostname: str = "buildkitsandbox"
    shm_size: int = 64 << 20
    ulimits: tuple[tuple[str, int, int], ...] = ()
    mounts: tuple[Mount, ...] = ()
    security: Security = "sandbox"
    security_opts: tuple[str, ...] = ()
    shell: tuple[str, ...] = ("/bin/sh", "-c")
    devices: tuple[Device, ...] = ()

    def definition(self) -> dict[str, Any]:
        more: dict[str, Any] = {"mounts": [each.definition() for each in self.mounts]} if self.mounts else {}
        if self.security != "sandbox":
            more["security"] = self.security
        if self.security_opts:
            more["security-opts"] = self.security_opts
        if self.devices:
            more["devices"] = [each.definition() for each in self.devices]
        return more | {
            "op": "exec",
            "argv": self.argv,
            "env": self.env,
            "cwd": self.cwd,
            "user": self.user,
            "network": self.network,
            "files": _files(self.files),
            "hosts": self.extra_hosts,
            "hostname": self.hostname,
            "shm": self.shm_size,
            "ulimits": self.ulimits,
        }


@dataclass(frozen=True, slots=True)
class Copy:
    """Put files of `sources` into the first input at `dest` (absolute, cleaned).

    `into_directory` says that `dest` was written with a trailing slash. `owner` and `mode` are as written
    after `--chown` and `--chmod`; owner names are resolved in the first input. `unpack` is ADD's meaning: a
    tar archive of a context or a step is unpacked. At most one source is a StepSource and its step is the
    second input.

    `link` reads nothing of the first input: the layer is the same whatever lies below. `parents` keeps the
    directories above a source; its paths are then `<root>/./<pattern>` or `<pattern>`. `exclude` are
    patterns of what stays behind. A path that is not there is no error when `optional`.
    """

    sources: tuple[CopySource, ...]
    dest: str
    into_directory: bool = False
    owner: str = ""
    mode: str = ""
    unpack: bool = False
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    optional: bool = False

    def definition(self) -> dict[str, Any]:
        more = {
            "link": self.link,
            "parents": self.parents,
            "exclude": self.exclude,
            "optional": self.optional,
        }
        return {name: value for name, value in more.items() if value} | {
            "op": "copy",
            "sources": [_source(source) for source in self.sources],
            "dest": self.dest,
            "into": self.into_directory,
            "owner": self.owner,
            "mode": self.mode,
            "unpack": self.unpack,
        }


@dataclass(frozen=True, slots=True)
class Mkdir:
    """Make the directory `path` (absolute) and its missing parents on the first input, owned by `user`
    (WORKDIR)."""

    path: str
    user: str = ""

    def definition(self) -> dict[str, Any]:
        return {"op": "mkdir", "path": self.path, "user": self.user}


Op = Scratch | Base | Exec | Copy | Mkdir


@dataclass(frozen=True, eq=False)
class Step:
    """One vertex. Equal digest means equal work: the same Step in two stages runs once.

    `name` is the line people see (`[build 2/4] RUN make`), `at` where it was written, `stage` the stage's
    name or index and `fresh` whether the cache must not be asked; none of these is part of the digest.
    """

    op: Op
    inputs: tuple[Step, ...] = ()
    at: SourceRange | None = None
    name: str = ""
    stage: str = ""
    fresh: bool = False
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        document = [SEMANTICS, self.op.definition(), [step.digest for step in self.inputs]]
        object.__setattr__(self, "digest", key_of(document))


def key_of(document: Any) -> str:
    """sha256 (hex) of plain data in one canonical JSON form."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def walk(*targets: Step) -> Iterator[Step]:
    """Every step that `targets` need, each once, inputs before the steps that read them."""
    seen: set[str] = set()
    stack: list[tuple[Step, bool]] = [(target, False) for target in reversed(targets)]
    while stack:
        step, ready = stack.pop()
        if ready:
            yield step
        elif step.digest not in seen:
            seen.add(step.digest)
            stack.append((step, True))
            stack.extend((each, False) for each in reversed(step.inputs))


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the new history. `step` made its layer; None is an instruction that only changes the
    config."""

    created_by: str
    step: Step | None = None
    comment: str = "buildkit.dockerfile.v0"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the frontend makes of a Dockerfile for one target and platform.

    `config` is the image's config without its rootfs and history: `base` gives the first layers and history
    lines (None after `FROM scratch`), `records` the rest. `contexts` names the contexts the graph reads,
    `onbuild` the triggers a base brought. `stage` is what people call the target's stage; `stages` has the
    last step of every stage that the graph holds, by name and by number; `skipped` are the stages that
    nothing here needs.
    """

    target: Step
    config: ImageConfig
    platform: Platform
    base: Image | None
    records: tuple[Record, ...]
    onbuild: tuple[str, ...] = ()
    stages: Mapping[str, Step] = field(default_factory=dict)
    stage: str = ""
    skipped: tuple[str, ...] = ()


def _files(files: tuple[InlineFile, ...]) -> list[tuple[str, str]]:
    return [(each.name, each.content.hex()) for each in files]


def _source(source: CopySource) -> dict[str, Any]:
    match source:
        case ContextSource(paths, name, exact):
            return {"context": name, "paths": paths} | ({"exact": True} if exact else {})
        case StepSource(paths):
            return {"step": 1, "paths": paths}
        case InlineSource(files):
            return {"inline": _files(files)}
        case HttpSource(url, name, checksum, unpack):
            return {"http": url, "name": name, "checksum": checksum, "unpack": unpack}
        case GitSource(git, keep):
            return {"git": git.definition(), "keep": keep}

"""One comparison: a Dockerfile, its context, and who says what the image must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from judges.bases import BUSYBOX
from judges.files import Entry, Expected


@dataclass(frozen=True, slots=True)
class Case:
    """A Dockerfile with its judge.

    `reference="docker"`: Debian's Docker with BuildKit builds it too, and tree, config, author, platform and
    history are compared. `reference="golden"`: `tree` (what changes against `base`, by absolute path, all of
    it), `config` (fields that differ from the base's; None is "absent") and `history` (the `created_by` of
    every instruction) are the judges. A golden entry in a docker case is checked as well, against both.
    `newer` are the history lines in which current BuildKit differs from Docker 20.10: Docker's to ours (with
    `platforms`, `{platform}` and `{arch}` in ours are what the image is for).
    `stubs` are mount points that Docker leaves in the tree and pybuild must not.
    `bases` are Dockerfiles built and tagged first, by name; `beside` are directories next to the context,
    which `args` names as `{name}`. `web` are files behind `{web}`, `repository` those of the branch `main`
    of the git repository `{repository}`, in Dockerfile, args and history. `context`
    is how the files reach the builder: as an archive on standard input or behind a URL, or in a repository,
    of which `fragment` says what; with "text" there are none, and standard input is the Dockerfile.
    With `platforms` and `targets` pybuild makes all of them in one build, and Docker builds each of them
    alone. `fails` is a pattern for stderr: the build must fail, with that said.
    """

    name: str
    dockerfile: str | bytes
    files: Mapping[str, Entry] = field(default_factory=dict)
    args: Sequence[str] = ()
    reference: Literal["docker", "golden"] = "docker"
    base: str = BUSYBOX
    tree: Mapping[str, Expected] | None = None
    config: Mapping[str, Any] | None = None
    history: Sequence[str] | None = None
    author: str | None = None
    newer: Mapping[str, str] = field(default_factory=dict)
    bases: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, Mapping[str, Entry]] = field(default_factory=dict)
    dockerfile_name: str = "Dockerfile"
    stubs: Sequence[str] = ()
    web: Mapping[str, Entry] = field(default_factory=dict)
    repository: Mapping[str, Entry] = field(default_factory=dict)
    context: Literal["directory", "text", "stdin", "url", "git"] = "directory"
    fragment: str = "#main"
    platforms: Sequence[str] = ()
    targets: Sequence[str] = ()
    fails: str = ""
    why: str = ""  # golden: why Docker 20.10 cannot be the judge

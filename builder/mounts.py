"""What `RUN --mount` adds to a step, as data of the step graph (FEATURES.md I34-I39).

Every mount is a frozen value whose `definition()` is plain data. Where files come from another step or a
context, `step` is the number of the input that holds them (1 is the first after the root). Values of
secrets, agents and the contents of caches are in no definition: only that they are asked for (SECURITY.md
S70).
"""

from __future__ import annotations

from typing import Any, Literal

from oci.data import dataclass

Sharing = Literal["shared", "private", "locked"]


@dataclass(frozen=True, slots=True)
class BindMount:
    """Files of the input `step`, at `target`. `source` is the path shown, `/` for all of them.

    What is written with `writable` is gone after the step. `own` says that the input was made for this mount
    alone: then its key stands for the files, and nothing has to be read to know them.
    """

    target: str
    step: int
    source: str = "/"
    writable: bool = False
    own: bool = False

    def definition(self) -> dict[str, Any]:
        return {
            "type": "bind",
            "target": self.target,
            "step": self.step,
            "source": self.source,
            "rw": self.writable,
        }


@dataclass(frozen=True, slots=True)
class CacheMount:
    """A directory that outlives the build. `id` names it in its `namespace`.

    A new one begins as a copy of the input `step` (0: empty), with `mode` and owner where they are given.
    `source` is the path in it that is shown. Those who ask for another beginning get another directory.
    """

    target: str
    id: str
    namespace: str = ""
    sharing: Sharing = "shared"
    read_only: bool = False
    step: int = 0
    source: str = "/"
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None

    def definition(self) -> dict[str, Any]:
        return {
            "type": "cache",
            "target": self.target,
            "id": [self.namespace, self.id],
            "sharing": self.sharing,
            "ro": self.read_only,
            "step": self.step,
            "source": self.source,
            "looks": [self.mode, self.uid, self.gid],
        }


@dataclass(frozen=True, slots=True)
class TmpfsMount:
    """An empty directory in memory; `size` in bytes, 0 for the kernel's own limit."""

    target: str
    size: int = 0
    read_only: bool = False

    def definition(self) -> dict[str, Any]:
        return {"type": "tmpfs", "target": self.target, "size": self.size, "ro": self.read_only}


@dataclass(frozen=True, slots=True)
class SecretMount:
    """The secret `id` as a file at `target` (empty: none) and as the variable `env` (empty: none).

    One that is not given is an error when it is `required`, else it is left out.
    """

    id: str
    target: str = ""
    env: str = ""
    required: bool = False
    mode: int = 0o400
    uid: int = 0
    gid: int = 0

    def definition(self) -> dict[str, Any]:
        looks = [self.mode, self.uid, self.gid]
        return {
            "type": "secret",
            "id": self.id,
            "target": self.target,
            "env": self.env,
            "required": self.required,
            "looks": looks,
        }


@dataclass(frozen=True, slots=True)
class SshMount:
    """The socket of the ssh agent `id` at `target`; it can list identities and sign, and nothing else."""

    id: str
    target: str
    required: bool = False
    mode: int = 0o600
    uid: int = 0
    gid: int = 0

    def definition(self) -> dict[str, Any]:
        looks = [self.mode, self.uid, self.gid]
        return {
            "type": "ssh",
            "id": self.id,
            "target": self.target,
            "required": self.required,
            "looks": looks,
        }


Mount = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount

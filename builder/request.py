"""What a build is asked for, and what came out of it: data, without a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, BinaryIO

from builder.finishing import Finish
from builder.registries import Access
from oci import media_types
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.export.base import OutputSpec
    from builder.graph import Network
    from builder.limiting import Limiting
    from builder.secrets import Agent, Secret
    from oci.digest import Digest
    from oci.model import Descriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """All that a build depends on, as `docker build` names it. Nothing else (no environment) is read.

    `targets` are the stages that become images, none for the last one. A tag may say whose it is,
    `STAGE=NAME`; a stage that is tagged so is a target too. With `every_stage` the steps of all stages run.
    `no_onbuild` refuses base images that bring ONBUILD instructions, `leave_onbuild` runs none of them: for
    who wants nothing but their files.
    `platforms` are what images are for: none is this machine, and several give one index of images.

    `context` is a directory, the URL of a git repository, of an archive or of a Dockerfile, or `-` for
    `stdin`, which holds an archive or a Dockerfile. `dockerfile` is a path or a URL, empty for `Dockerfile`
    in the context, `-` for `dockerfile_text`. `ignorefile` is used in place of `.dockerignore`. `contexts`
    are named ones: any of these, or `docker-image://NAME`, or `oci-layout://PATH`. `pull` asks registries for
    every base, whatever the store has; `access` says how they are reached (with its usual credential files).
    With `locked` the Dockerfile's lock says what is used (`builder.lock`).
    `clock` is the moment, in seconds since 1970, that layers, config and history carry. `jobs` 0 is one per
    core. `secrets` and `ssh` are lent to the steps that mount them and are part of no key. `enable` names
    extensions of the language (`frontend.extensions`). `limits` are what the steps may use, `timeout_s` is
    the time that all may take, in seconds (0: any). `finish` is what is still changed of the image when
    its steps are done.
    """

    context: str = "."
    dockerfile: str = ""
    dockerfile_text: bytes = b""
    stdin: BinaryIO | None = None
    ignorefile: str = ""
    tags: tuple[str, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    every_stage: bool = False
    no_cache: bool = False
    no_cache_filter: frozenset[str] = frozenset()
    no_onbuild: bool = False
    leave_onbuild: bool = False
    contexts: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()
    network: Network = "default"
    extra_hosts: tuple[tuple[str, str], ...] = ()
    allow: frozenset[str] = frozenset()
    enable: frozenset[str] = frozenset()
    secrets: tuple[Secret, ...] = ()
    ssh: tuple[Agent, ...] = ()
    shm_size: int = 64 << 20
    ulimits: tuple[tuple[str, int, int], ...] = ()
    security_opts: tuple[str, ...] = ()
    limits: Limiting | None = None
    timeout_s: float = 0.0
    clock: int | None = None
    jobs: int = 0
    keep_going: bool = False
    finish: Finish = field(default_factory=Finish)
    pull: bool = False
    locked: bool = False
    access: Access = field(default_factory=Access)
    root: str = ""


@dataclass(frozen=True, slots=True)
class Built:
    """What came out. `image_id` and `descriptor` are None when no image was asked for (`type=cacheonly`
    alone). `image_id` is the digest of the image's config, of several platforms that of their index.
    `descriptor` is what was pushed, which may be compressed otherwise than the image of the store.

    Of several targets this is the first one, and `targets` has them all by the name of their stage. `ref` is
    the build's own name, the same as that of its logs.
    """

    image_id: Digest | None
    descriptor: Descriptor | None
    names: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    targets: Mapping[str, Built] = field(default_factory=dict)
    ref: str = ""

    @property
    def is_index(self) -> bool:
        """Whether it is an index of images for several platforms."""
        return self.descriptor is not None and self.descriptor.media_type in media_types.INDEXES

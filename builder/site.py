"""What a build works with: store, registries, inputs, executor. Opened together, closed in reverse order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypedDict

from builder import entitlements, epoch, space
from builder.errors import UsageError
from builder.events import Emit
from builder.images import Images
from builder.inputs import Inputs
from builder.isolation import current
from builder.locked import LockedSources
from builder.registries import Registries
from builder.secrets import Agent, Secrets, checked_agents
from builder.solver.cache import Cache
from builder.solver.execute import Executor
from builder.solver.means import Means
from builder.state import Lease, StateDir, build_name, default_root
from oci.compress import codec
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.contexts.ahead import Ahead
    from builder.contexts.remote import Remotes
    from builder.request import BuildRequest
    from builder.sandbox.cgroup import Groups


@dataclass(frozen=True, slots=True)
class Site:
    """`name` is that of the build, and of its logs; `request` has the clock that the inputs tell."""

    state: StateDir
    lease: Lease
    images: Images
    registries: Registries
    remotes: Remotes
    inputs: Inputs
    executor: Executor
    name: str
    request: BuildRequest


class Lent(TypedDict):
    """What the user lends to steps and lets them have, checked."""

    secrets: Secrets
    agents: Mapping[str, Agent]
    allow: frozenset[str]


def lent(request: BuildRequest) -> Lent:
    """Raises UsageError, before anything is built."""
    if request.ulimits:
        from builder.ulimits import check_ulimits

        check_ulimits(request.ulimits)
    allow = entitlements.granted(request.allow, request.network)
    if lacking := entitlements.missing("default", "sandbox", allow, options=request.security_opts):
        text = f"--security-opt {entitlements.UNFILTERED} is not allowed"
        raise UsageError(text, hint=f"allow it with --allow {lacking}")
    return Lent(
        secrets=Secrets(request.secrets),
        agents=checked_agents(request.ssh),
        allow=allow,
    )


def _remotes(request: BuildRequest, images: Images, state: StateDir, lent: Lent, emit: Emit) -> Remotes:
    from builder import config
    from builder.contexts.remote import Remotes

    agent = lent["agents"].get("default")
    return Remotes(
        images.layout.blobs,
        state.content(),
        secret=lent["secrets"].value,
        agent=agent.paths[0] if agent and len(agent.paths) == 1 else "",
        config=lambda: config.registries(request.access.config),
        offline=request.access.offline,
        emit=emit,
    )


def _groups(request: BuildRequest, stack: ExitStack, state: StateDir, emit: Emit) -> Groups | None:
    """What limits the steps; and what a killed build left of such is removed."""
    usual = current().processes()
    if request.limits is None and not usual and not os.path.isdir(state.cgroups):
        return None
    from builder.limiting import limited

    return stack.enter_context(limited(request.limits, state.cgroups, emit, usual))


@contextmanager
def opened(
    request: BuildRequest,
    lending: Lent,
    emit: Emit,
    ahead: Ahead | None = None,
    *,
    keeps_failed: bool = False,
) -> Iterator[Site]:
    """All of it, for as long as the block runs. `ahead` may be listing the context already; `keeps_failed`
    lets a failed step be looked at. Raises BuildError and OciError.
    """
    name = build_name()
    with ExitStack() as stack:
        state = stack.enter_context(StateDir(request.root or default_root(), emit))
        stack.enter_context(space.told(state.root))
        lease = stack.enter_context(state.lease())
        images = Images(state)
        images.layout.blobs.clean()
        remotes = stack.enter_context(_remotes(request, images, state, lending, emit))
        registries = stack.enter_context(Registries(request.access, images, emit))
        inputs = stack.enter_context(Inputs(request, images, emit, remotes, registries, ahead))
        request = epoch.settled(request, inputs, emit)
        means = Means(
            state=state,
            blobs=images.layout.blobs,
            cache=Cache(state.steps()),
            trees=inputs.tree,
            remotes=LockedSources(remotes, inputs.locked) if request.locked else remotes,
            layers=registries,
            codec=codec("gzip", 1),
            clock=request.clock,
            emit=emit,
            groups=_groups(request, stack, state, emit),
            keeps_failed=keeps_failed,
            name=name,
            **lending,
        )
        executor = stack.enter_context(Executor(means))
        yield Site(state, lease, images, registries, remotes, inputs, executor, name, request)

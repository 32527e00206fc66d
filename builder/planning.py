"""What a request asks for, as plans: one for each goal and platform, their graphs sharing equal steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from builder.errors import UsageError
from builder.events import Emit, Event, Warning_
from builder.switches import MULTI, is_on
from oci import platforms
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.frontend.lower import PlanOptions
    from builder.goals import Goal
    from builder.graph import Plan, Step
    from builder.inputs import Inputs
    from builder.request import BuildRequest
    from oci.model import Platform


@dataclass(frozen=True, slots=True)
class Work:
    """What is done for one goal: a plan for each platform."""

    goal: Goal
    plans: tuple[Plan, ...]


def works(request: BuildRequest, goals: Sequence[Goal], inputs: Inputs, emit: Emit) -> tuple[Work, ...]:
    """The plans of `request`. Raises BuildError, OciError; a warning that several plans give is told once."""
    from builder.frontend.lower import plan

    told = _once(emit)
    wanted = targets(request.platforms)
    source = inputs.dockerfile()
    return tuple(
        Work(
            goal,
            tuple(
                plan(source, plan_options(request, inputs, told, each, goal.target), inputs.resolve)
                for each in wanted
            ),
        )
        for goal in goals
    )


def roots(request: BuildRequest, done: Iterable[Work]) -> tuple[Step, ...]:
    """The steps that lead to all that is wanted: those of the images first, in the order of their plans."""
    plans = [plan for work in done for plan in work.plans]
    more = [step for plan in plans for step in plan.stages.values()] if request.every_stage else []
    return (*(plan.target for plan in plans), *more)


def triggers(done: Iterable[Work]) -> tuple[str, ...]:
    """The ONBUILD instructions that bases bring, each once (SECURITY.md S71)."""
    return tuple(dict.fromkeys(text for work in done for plan in work.plans for text in plan.onbuild))


def skipped(done: Iterable[Work]) -> tuple[str, ...]:
    """The stages that no plan needs, in the order of the file."""
    plans = [plan for work in done for plan in work.plans]
    needless = set.intersection(*(set(plan.skipped) for plan in plans))
    return tuple(stage for stage in plans[0].skipped if stage in needless)


def targets(texts: Iterable[str]) -> tuple[Platform, ...]:
    """The platforms of a build, each once; this machine's for none. Raises InvalidPlatform."""
    return tuple(dict.fromkeys(platforms.parse(each) for each in texts if each)) or (platforms.host(),)


def is_index(request: BuildRequest) -> bool:
    """Whether the result is an index, even of one image. Raises UsageError, also for annotations of an index
    that there will not be; InvalidPlatform."""
    if is_on(request.build_args, MULTI) or len(targets(request.platforms)) > 1:
        return True
    for each in request.finish.annotations:
        if each.place in ("index", "index-descriptor"):
            raise UsageError(
                f"--annotation {each.place}:{each.key}: an image of one platform has no index",
                hint=f"use manifest:{each.key}, or make an index of one image with --build-arg {MULTI}=1",
            )
    return False


def plan_options(
    request: BuildRequest,
    inputs: Inputs,
    emit: Emit,
    platform: Platform | None = None,
    target: str | None = None,
) -> PlanOptions:
    """What of a request shapes the graph, for the first of its platforms and targets unless others are given.

    Raises UsageError for named contexts that are not there."""
    from builder.frontend.lower import PlanOptions

    wanted = targets(request.platforms)
    return PlanOptions(
        target=target if target is not None else next(iter(request.targets), ""),
        build_args=request.build_args,
        platform=platform or wanted[0],
        platform_is_default=not any(request.platforms),
        show_platform=len(wanted) > 1,
        every_stage=request.every_stage,
        build_platform=platforms.host(),
        labels=request.labels,
        contexts=inputs.named(),
        network=request.network,
        no_cache=request.no_cache,
        no_cache_filter=request.no_cache_filter,
        no_onbuild=request.no_onbuild,
        leave_onbuild=request.leave_onbuild,
        allow=request.allow,
        extra_hosts=request.extra_hosts,
        shm_size=request.shm_size,
        ulimits=request.ulimits,
        security_opts=request.security_opts,
        clock=request.clock,
        warn=emit,
        ignore=inputs.ignore,
        enable=request.enable,
        read_file=inputs.read_file,
    )


def _once(emit: Emit) -> Emit:
    """An `emit` that tells each warning once: plans of one Dockerfile have most of theirs in common."""
    told: set[Event] = set()

    def tell(event: Event) -> None:
        if isinstance(event, Warning_):
            if event in told:
                return
            told.add(event)
        emit(event)

    return tell

from __future__ import annotations

import threading
import time

import pytest

from builder import interrupts
from builder.graph import ContextSource, Copy, Exec, Scratch, Step
from builder.solver.solve import solve


def step(name: str, *inputs: Step) -> Step:
    return Step(Exec((name,), ()), inputs or (Step(Scratch()),), name=name)


def names(made: Step, inputs: tuple[str, ...]) -> str:
    return f"{made.name}({','.join(inputs)})"


def run(target: Step, perform=names, jobs=2, **more):  # type: ignore[no-untyped-def]
    return solve((target,), perform, jobs=jobs, cancel=more.pop("cancel", lambda: None), **more)[0]


def test_inputs_come_first_and_in_their_order() -> None:
    a = step("a")
    b = step("b", a)
    target = step("c", b, a)
    assert run(target) == "c(b(a(())),a(()))"


def test_equal_steps_run_once() -> None:
    count: list[str] = []
    lock = threading.Lock()

    def perform(made: Step, inputs: tuple[str, ...]) -> str:
        with lock:
            count.append(made.name)
        return made.name

    left, right = step("x", step("same")), step("y", step("same"))
    run(step("z", left, right), perform)
    assert sorted(count) == ["", "same", "x", "y", "z"]


def test_unneeded_steps_never_run() -> None:
    ran: list[str] = []
    base = step("base")
    step("other", base)
    run(step("target", base), lambda made, _: ran.append(made.name))
    assert "other" not in ran


def test_independent_steps_run_at_the_same_time() -> None:
    barrier = threading.Barrier(2, timeout=60)

    def perform(made: Step, inputs: tuple[str, ...]) -> str:
        if made.name in ("a", "b"):
            barrier.wait()
        return made.name

    assert run(step("c", step("a"), step("b")), perform) == "c"


def test_jobs_is_an_upper_bound() -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def perform(made: Step, inputs: tuple[str, ...]) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return made.name

    run(step("top", *(step(str(n)) for n in range(8))), perform, jobs=3)
    assert most <= 3


def test_the_first_failure_is_raised_once_and_cancels_the_rest() -> None:
    cancelled = threading.Event()
    ran: list[str] = []

    def perform(made: Step, inputs: tuple[str, ...]) -> str:
        ran.append(made.name)
        if made.name == "bad":
            raise ValueError("no")
        if made.name == "slow":
            assert cancelled.wait(60)
        return made.name

    after = step("after", step("slow"))
    with pytest.raises(ValueError, match="no"):
        run(step("top", step("bad"), after), perform, cancel=cancelled.set)
    assert "after" not in ran and "top" not in ran


def test_keep_going_lets_running_steps_end() -> None:
    called: list[bool] = []
    ended: list[str] = []
    slow_runs = threading.Event()

    def perform(made: Step, inputs: tuple[str, ...]) -> str:
        if made.name == "bad":
            assert slow_runs.wait(60)
            raise ValueError("no")
        if made.name == "slow":
            slow_runs.set()
            time.sleep(0.05)
        ended.append(made.name)
        return made.name

    with pytest.raises(ValueError):
        run(
            step("top", step("bad"), step("slow")),
            perform,
            cancel=lambda: called.append(True),
            keep_going=True,
        )
    assert "slow" in ended and not called


def test_an_interrupt_of_the_caller_cancels(monkeypatch: pytest.MonkeyPatch) -> None:
    from builder.solver import solve as module

    cancelled = threading.Event()

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(step("a"), lambda made, _: cancelled.wait(60), cancel=cancelled.set)
    assert cancelled.is_set()


def test_an_interrupt_that_the_interpreter_dropped_is_heard() -> None:
    """It does so when the signal comes while it runs a finaliser."""
    cancelled = threading.Event()

    def perform(made: Step, inputs: tuple[str, ...]) -> str:
        interrupts.ask(KeyboardInterrupt())
        assert cancelled.wait(60)
        return made.name

    try:
        with pytest.raises(KeyboardInterrupt):
            run(step("a"), perform, cancel=cancelled.set)
    finally:
        interrupts.forget()
    assert cancelled.is_set()


def test_the_digest_of_a_step_covers_op_and_inputs_but_not_its_place() -> None:
    one = step("a")
    assert one.digest == step("a").digest
    assert one.digest != step("b").digest
    assert step("x", one).digest != step("x", step("b")).digest
    copy = Copy((ContextSource(("a",)),), "/b")
    assert Step(copy, (one,), name="n", stage="s", fresh=True).digest == Step(copy, (one,)).digest

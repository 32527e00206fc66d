"""Which images a build shall make: a stage each, and the names it gets (D24, D29).

-t app:1                      the last stage, or the one --target
-t test=app:test              the stage `test`, beside what else is wanted
--target a,b                  both, unnamed unless -t a=... says otherwise
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from builder.errors import UsageError
from oci.data import dataclass
from oci.reference import Reference

if TYPE_CHECKING:
    from builder.export.base import OutputSpec


@dataclass(frozen=True, slots=True)
class Goal:
    """One image: its stage ("" is the last), and its names."""

    target: str
    names: tuple[Reference, ...] = ()


def goals(
    targets: Sequence[str], tags: Iterable[str], *, outputs: Sequence[OutputSpec] = ()
) -> tuple[Goal, ...]:
    """The images wanted, those of `targets` first. Raises UsageError where it is unclear which one is meant.

    The last stage is one of them unless others are asked for; a name without a stage asks for it.
    """
    plain, named = _tags(tags)
    chosen = {each.lower(): each for each in targets}
    if len(chosen) > 1 and plain:
        raise UsageError(
            f"-t {plain[0].familiar()} could be any of the targets {', '.join(targets)}",
            hint=f"say whose name it is: -t {targets[0]}={plain[0].familiar()}",
        )
    if not chosen and (plain or not named):
        chosen[""] = ""
    found = {target: list(plain) for target in chosen}
    for target, name in named:
        chosen.setdefault(target.lower(), target)
        found.setdefault(target.lower(), []).append(name)
    made = tuple(Goal(chosen[key], tuple(dict.fromkeys(names))) for key, names in found.items())
    _refuse_one_name_twice(made)
    if len(made) > 1:
        _refuse_outputs(made, outputs)
    return made


def _tags(texts: Iterable[str]) -> tuple[list[Reference], list[tuple[str, Reference]]]:
    """The names without a stage, and those with one."""
    plain, named = [], []
    for text in texts:
        stage, equals, name = text.rpartition("=")
        if equals and not stage:
            raise UsageError(f"-t {text}: there is no stage before the =", hint="-t STAGE=NAME[:TAG]")
        if equals:
            named.append((stage, _name(text, name)))
        else:
            plain.append(_name(text, text))
    return plain, named


def _name(text: str, name: str) -> Reference:
    found = Reference.parse(name)
    if found.digest is not None:
        raise UsageError(f"-t {text}: a digest is its content and cannot be given as a name")
    return found.with_default_tag()


def _refuse_one_name_twice(made: Iterable[Goal]) -> None:
    owners: dict[Reference, Goal] = {}
    for goal in made:
        for name in goal.names:
            other = owners.setdefault(name, goal)
            if other is not goal:
                stages = " and ".join(each.target or "the last stage" for each in (other, goal))
                raise UsageError(f"-t {name.familiar()} is to name two images: {stages}")


def _refuse_outputs(made: Sequence[Goal], outputs: Iterable[OutputSpec]) -> None:
    for spec in outputs:
        if "name" in spec.options:
            listed = ", ".join(goal.target or "the last stage" for goal in made)
            what = f"-o type={spec.type},name={spec.options['name']}"
            raise UsageError(
                f"{what} names one image, and there are several: {listed}",
                hint=f"-t {made[0].target or 'STAGE'}=NAME says whose name it is",
            )

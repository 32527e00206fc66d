"""Switches with a value, as Go's flags take them: `--rm=true`, `--no-cache=false`, `--pull=always`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import click

_TRUE = frozenset({"true", "t", "1"})
_FALSE = frozenset({"false", "f", "0"})
_WORDS: Mapping[str, Mapping[str, bool]] = {
    "--pull": {"always": True, "newer": True, "missing": False, "ifmissing": False}
}
"""What buildah's form of a switch means."""


def plain(command: click.Command, ctx: click.Context, args: Sequence[str]) -> list[str]:
    """`args` of `command` with each switch that has a value written without one.

    Values of other options, and what stands behind the end of the options, stay as they are. Raises
    click.BadOptionUsage for a value that is neither true nor false.
    """
    options = {name: each for each in command.get_params(ctx) if isinstance(each, click.Option)
               for name in (*each.opts, *each.secondary_opts)}  # fmt: skip
    anywhere = command.context_settings.get("allow_interspersed_args", command.allow_interspersed_args)
    found: list[str] = []
    rest = iter(args)
    for arg in rest:
        name, equals, value = arg.partition("=")
        option = options.get(name)
        if arg == "--" or (not anywhere and not arg.startswith("-")):
            return [*found, arg, *rest]
        if equals and option is not None and option.is_flag:
            found += _switch(option, name, value, ctx)
            continue
        found.append(arg)
        if _wants_next(options, arg):
            found += next_of(rest)
    return found


def next_of(rest: Iterable[str]) -> list[str]:
    """The next argument, if there is one."""
    for each in rest:
        return [each]
    return []


def _switch(option: click.Option, name: str, value: str, ctx: click.Context) -> list[str]:
    known = {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False), **_WORDS.get(name, {})}
    if value.lower() not in known:
        hint = "; --offline asks no registry" if (name, value) == ("--pull", "never") else ""
        raise click.BadOptionUsage(name, f"{name}={value} is neither true nor false{hint}", ctx)
    if known[value.lower()] is (name in option.opts):
        return [option.opts[0]]
    return option.secondary_opts[:1]


def _wants_next(options: Mapping[str, click.Option], arg: str) -> bool:
    """Whether the argument behind `arg` is its value."""
    if arg.startswith("--"):
        return arg in options and not options[arg].is_flag
    if not arg.startswith("-"):
        return False
    for position, letter in enumerate(arg[1:], 2):
        option = options.get(f"-{letter}")
        if option is None:
            return False
        if not option.is_flag:
            return position == len(arg)
    return False

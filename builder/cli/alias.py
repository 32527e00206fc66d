"""Groups of commands that have names of their own too: `pybuild container ls` is `pybuild ps`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence

import click


class Aliases(click.Group):
    """A command's module is imported when it is run. `known` has, by their names here, the plain commands
    and arguments that belong to them here, `later` what those wait for that are not there yet.
    """

    def __init__(
        self,
        name: str,
        about: str,
        known: Mapping[str, Sequence[str]],
        later: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(name, help=about, no_args_is_help=True)
        self.known = known
        self.later = later or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self.known, *self.commands})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.known:
            return super().get_command(ctx, name)
        from builder.cli import main

        command: click.Command = importlib.import_module(main.module_of(self.known[name][0])).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in self.later:
            text = f"'{self.name} {args[0]}' is not there yet: it comes with {self.later[args[0]]}"
            raise click.UsageError(text, ctx)
        from builder.cli import switches

        name, command, rest = super().resolve_command(ctx, args)
        if command is None or name is None or name not in self.known:
            return name, command, rest
        return name, command, [*self.known[name][1:], *switches.plain(command, ctx, rest)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        lines = {name: f"pybuild {' '.join(words)}" for name, words in self.known.items()}
        lines |= {name: each.get_short_help_str(70) for name, each in self.commands.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(lines.items()))


def same(*names: str) -> dict[str, tuple[str, ...]]:
    """Commands that have the same name here."""
    return {name: (name,) for name in names}

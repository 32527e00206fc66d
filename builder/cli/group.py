"""The group of commands as click sees it: names without modules, and one place where every error ends."""

from __future__ import annotations

import importlib
import sys

import click

from builder.cli import main, output
from builder.cli.session import Session

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Commands(click.Group):
    """Imports a command's module when the command is run, and none to list them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(main.COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in main.COMMANDS:
            return None
        command: click.Command = importlib.import_module(main.module_of(name)).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in main.LATER:
            raise click.UsageError(f"{args[0]!r} is not there yet: it comes with {main.LATER[args[0]]}")
        from builder.cli import switches

        name, command, rest = super().resolve_command(ctx, args)
        return name, command, switches.plain(command, ctx, rest) if command else rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(main.COMMANDS.items()))


@click.group(
    cls=Commands,
    context_settings=_SETTINGS,
    no_args_is_help=True,
    options_metavar="[--root DIR] [--config FILE] [-D]",
    subcommand_metavar="[COMMAND] ...",
    help="Build OCI images from Dockerfiles, without a daemon, and run them.\n\n"
    "`pybuild -t app .` is `pybuild build -t app .`; `pybuild COMMAND --help` explains a command.",
)
@click.option("--root", metavar="DIR", help="The store (default: $PYBUILD_ROOT, then the system's).")
@click.option("--config", metavar="FILE", help="A configuration file in TOML (default: $PYBUILD_CONFIG).")
@click.option("-D", "--debug", is_flag=True, help="Show tracebacks.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=lambda c, p, v: _version(c, v)
)
@click.pass_context
def commands(ctx: click.Context, root: str | None, config: str | None, debug: bool) -> None:
    """Set by the decorator."""
    ctx.obj = ctx.with_resource(Session(root=root, config=config, debug=debug))


def run(args: list[str]) -> int:
    """Run a command line; its exit code. Every error that people can meet is printed here, and only here."""
    debug = not {"-D", "--debug"}.isdisjoint(args[: main.leading(args)])
    try:
        # Not `commands.main`: it has its own ways with Ctrl-C and broken pipes.
        with commands.make_context("pybuild", args) as context:
            code = commands.invoke(context)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        return output.usage(error)
    except BaseException as error:
        return output.report(error, debug=debug)
    return code if isinstance(code, int) else 0


def _version(ctx: click.Context, wanted: bool) -> None:
    if wanted:
        from builder.version import VERSION

        sys.stdout.write(f"pybuild {VERSION}\n")
        ctx.exit()

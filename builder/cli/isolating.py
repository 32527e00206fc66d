"""`--isolation`, of every command that runs programs, and the step onto the rung it names."""

from __future__ import annotations

import click

from builder.cli.session import Session

_OTHER_NAMES = {"default": "auto", "oci": "auto"}
"""What docker and buildah call the best there is."""


class _Mode(click.Choice[str]):
    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(_OTHER_NAMES.get(value, value), param, ctx)


ISOLATION = click.option(
    "--isolation",
    type=_Mode(["auto", "strict", "rootless", "chroot"]),
    help="What programs run in: the best there is (auto), nothing weaker than a whole sandbox (strict), a "
    "user namespace also as root (rootless), or only a changed root (chroot, as root).",
)


def isolated(session: Session, asked: str | None) -> None:
    """Move this process to where programs can be run, before it has threads. `asked` comes before the
    configuration. Raises SandboxError when what was asked for cannot be had.
    """
    from builder.config import isolation
    from builder.isolation import enter

    enter(asked or isolation(session.config) or "auto", session.root)

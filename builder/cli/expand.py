"""`pybuild expand`: a Dockerfile as other builders read it (D01)."""

from __future__ import annotations

import sys

import click

from builder.cli import reading, values
from builder.cli.session import Session


@click.command(
    "expand",
    help="Print the Dockerfile in PATH (or URL, or -) as one plain file that any builder reads: INCLUDE and "
    "ENV --from-file put in, shell-strict written out.",
)
@click.argument("context", metavar="PATH | URL | -", default=".")
@reading.DOCKERFILE
@reading.IGNOREFILE
@click.option(
    "--build-arg", "build_args", multiple=True, metavar="NAME[=VALUE]", help="Set an ARG that a path needs."
)
@click.option(
    "--platform", default="", metavar="OS/ARCH", help="What TARGETPLATFORM is (default: this machine)."
)
@reading.ENABLE
@click.option("--shell-strict", is_flag=True, help="End a RUN heredoc at its first failure.")
@click.pass_obj  # fmt: skip
def command(
    session: Session,
    context: str,
    dockerfile: str,
    ignorefile: str,
    build_args: tuple[str, ...],
    platform: str,
    enable: tuple[str, ...],
    shell_strict: bool,
) -> None:
    """Set by the decorator."""
    from builder.building import BuildRequest
    from builder.checking import expanded

    request = BuildRequest(
        context=context,
        dockerfile=dockerfile,
        dockerfile_text=sys.stdin.buffer.read() if dockerfile == "-" else b"",
        stdin=sys.stdin.buffer if context == "-" else None,
        ignorefile=ignorefile,
        build_args=values.variables("--build-arg", build_args),
        platforms=(platform,),
        enable=values.extensions(enable, shell_strict),
    )
    text = expanded(request)
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))

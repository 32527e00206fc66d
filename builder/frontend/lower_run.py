"""RUN: the argument vector, the environment, and what becomes of heredocs (P11, I07, I40)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from builder import entitlements
from builder.frontend import instructions as ins
from builder.frontend import scope
from builder.frontend.broken import broken
from builder.frontend.extensions import SHELL_STRICT
from builder.frontend.lower_config import command_line, shell_of
from builder.frontend.lower_mount import mounts
from builder.frontend.reader import heredoc_of
from builder.frontend.stage import StageBuild
from builder.frontend.strict import strict
from builder.frontend.words import WordError
from builder.graph import Exec, InlineFile, Network, Step

PIPES = "/dev/pipes/"
"""Where the executor puts `Exec.files`."""

_SPACE_AFTER = re.compile(r"^(\d*<<)[ \t]+")


def run(stage: StageBuild, line: ins.Run, origins: Sequence[Step | str] = ()) -> None:
    """`origins` are what its mounts read: a step, or the name of a context (empty is the main one)."""
    network = _network(stage, line)
    security: entitlements.Security = "insecure" if line.security == "insecure" else "sandbox"
    _entitled(stage, line, network, security)
    argv, files = _command(stage, line)
    if not argv:
        raise broken("RUN needs a command", at=line.at)
    history = " ".join((*stage.variables.for_history(), *argv))
    stage.spend(stage.variables.weight)
    options = stage.shared.options
    shown, inputs = mounts(stage, line, origins)
    op = Exec(
        argv=argv,
        env=_environment(stage),
        cwd=stage.config.working_dir or "/",
        user=stage.config.user,
        network=network,
        files=files,
        proxy_env=stage.shared.proxy_env,
        extra_hosts=options.extra_hosts,
        hostname=options.hostname,
        shm_size=options.shm_size,
        ulimits=options.ulimits,
        security_opts=options.security_opts,
        mounts=shown,
        security=security,
        shell=shell_of(stage),
        devices=line.devices,
    )
    step = stage.add(op, _shown(stage, line), line.at, *inputs)
    stage.say(f"RUN {history} # buildkit", step)


def _entitled(stage: StageBuild, line: ins.Run, network: str, security: str) -> None:
    options = stage.shared.options
    lacking = entitlements.missing(
        network, security, entitlements.granted(options.allow, options.network), line.devices
    )
    if lacking:
        flags = {entitlements.HOST_NETWORK: "--network=host", entitlements.INSECURE: "--security=insecure"}
        flag = flags.get(lacking, f"--{lacking}")
        raise broken(f"RUN {flag} is not allowed", at=line.at, hint=f"allow it with --allow {lacking}")


def _environment(stage: StageBuild) -> tuple[tuple[str, str], ...]:
    env = stage.variables.items()
    if stage.shared.options.clock is None or scope.CLOCK_ARG in stage.env:
        return env
    return (*env, (scope.CLOCK_ARG, scope.CLOCK_SEEN))


def _network(stage: StageBuild, line: ins.Run) -> Network:
    if line.network == "none":
        return "none"
    return "host" if line.network == "host" else stage.shared.options.network


def _command(stage: StageBuild, line: ins.Run) -> tuple[tuple[str, ...], tuple[InlineFile, ...]]:
    """The argument vector, and the script it runs where that is a file of its own."""
    if not line.heredocs:
        return command_line(stage, line.command), ()
    text = line.command.argv[0]
    if not is_alone(text):
        bodies = "".join(f"\n{each.content}{each.name}" for each in line.heredocs)
        return _in_shell(stage, text + bodies), ()
    script, body = line.heredocs[0], line.heredocs[0].text
    if SHELL_STRICT in stage.shared.options.enable:
        body = strict(body, stage.config.shell or ())
    if not body.startswith("#!"):
        return _in_shell(stage, body), ()
    return _in_shell(stage, PIPES + script.name), (_file(script.name, body, line),)


def _in_shell(stage: StageBuild, text: str) -> tuple[str, ...]:
    return command_line(stage, ins.Command((text,), shell=True))


def is_alone(text: str) -> bool:
    """Whether a heredoc is all there is: `RUN <<EOF`."""
    try:
        return heredoc_of(_SPACE_AFTER.sub(r"\1", text)) is not None
    except WordError:
        return False


def _file(name: str, body: str, line: ins.Run) -> InlineFile:
    if "/" in name or name in (".", ".."):
        raise broken(f"the heredoc's name `{name}` cannot be a file's name", at=line.at)
    return InlineFile(name, body.encode("utf-8", "surrogateescape"))


def _shown(stage: StageBuild, line: ins.Run) -> str:
    lexer = stage.shared.lexer.variant(raw_quotes=True, keep_unset=True)
    text = line.code
    if line.heredocs and is_alone(line.command.argv[0]):
        first, *rest = line.heredocs[0].content.strip().split("\n", 1)
        text = f"{text} ({first.rstrip()}{'...' if rest else ''})"
    try:
        text = lexer.expand(text, stage.env)
    except WordError:
        pass
    keyword, space, rest_of_it = text.partition(" ")
    return f"{keyword.upper()}{space}{rest_of_it}"

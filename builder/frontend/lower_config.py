"""The instructions that only change the config, ARG, and WORKDIR, which also makes a directory."""

from __future__ import annotations

import posixpath
import re

from builder.frontend import durations, scope
from builder.frontend import instructions as ins
from builder.frontend.broken import broken
from builder.frontend.quoting import quoted
from builder.frontend.stage import StageBuild
from builder.frontend.suggest import hint
from builder.graph import Mkdir
from builder.source import SourceRange
from oci.model import Healthcheck

MAX_ID = (1 << 31) - 1
"""The largest user or group id (SECURITY.md S31)."""

MAX_PATH = 4095
"""PATH_MAX without its NUL."""

_SIGNAL_NAMES = (
    "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS "
    "TERM TRAP TSTP TTIN TTOU UNUSED URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX"
)
_SIGNALS = frozenset(_SIGNAL_NAMES.split()) | {
    *(f"RTMIN+{each}" for each in range(1, 16)),
    *(f"RTMAX-{each}" for each in range(1, 15)),
}
_PROTOCOLS = ("tcp", "udp", "sctp")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def arg(stage: StageBuild, line: ins.Arg) -> None:
    """Declare build arguments: the given value, else the default, else the global one of the same name."""
    given = stage.shared.given
    shown = []
    for name, default in line.args:
        if name in given:
            value: str | None = given[name]
        elif default is not None:
            value = stage.expand(default, line.at)
        else:
            value = stage.shared.global_args.get(name)
        stage.variables.declare(name, value)
        shown.append(name if value is None else f"{name}={value}")
    stage.say("ARG " + " ".join(shown))


def env(stage: StageBuild, line: ins.Env) -> None:
    """Set variables. All values are expanded with what was set before this line."""
    pairs = _expanded(stage, line.pairs, line.at)
    for name, value in pairs:
        stage.variables.set(name, value)
        stage.config.env[name] = value
    stage.say("ENV " + " ".join(f"{name}={value}" for name, value in pairs))


def label(stage: StageBuild, line: ins.Label) -> None:
    pairs = _expanded(stage, line.pairs, line.at)
    stage.config.labels.update(pairs)
    stage.say("LABEL " + " ".join(f"{name}={value}" for name, value in pairs))


def _expanded(stage: StageBuild, pairs: ins.Pairs, at: SourceRange) -> list[tuple[str, str]]:
    return [(stage.expand(name, at), stage.expand(value, at)) for name, value in pairs]


def maintainer(stage: StageBuild, line: ins.Maintainer) -> None:
    stage.author = line.name
    stage.say(f"MAINTAINER {line.name}")


def expose(stage: StageBuild, line: ins.Expose) -> None:
    words = [word for port in line.ports for word in stage.split(port, line.at)]
    ports = [port for word in words for port in _ports(word, line.at)]
    stage.config.ports.update(ports)
    stage.say(f"EXPOSE [{' '.join(ports)}]")


def _ports(word: str, at: SourceRange) -> list[str]:
    """`8000-8002/udp` as single ports. A host's address or port before a colon is checked and dropped."""
    number, _, protocol = word.rpartition(":")[2].partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise broken(
            f"EXPOSE {word}: `{protocol}` is no protocol",
            at=at,
            hint=hint(protocol, _PROTOCOLS, "it is tcp, udp or sctp"),
        )
    match = _PORTS.fullmatch(number)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not first <= last <= 65535:
        raise broken(
            f"EXPOSE {word}: `{number}` is no port",
            at=at,
            hint="a port is a number up to 65535 or a range, like 8080, 53/udp or 8000-8010",
        )
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def volume(stage: StageBuild, line: ins.Volume) -> None:
    paths = [stage.expand(path, line.at) for path in line.paths]
    if not all(paths):
        raise broken("VOLUME with an empty path", at=line.at, hint="is a variable in it unset?")
    stage.config.volumes.update(paths)
    stage.say(f"VOLUME [{' '.join(paths)}]")


def user(stage: StageBuild, line: ins.User) -> None:
    name = stage.expand(line.user, line.at)
    for part in name.split(":"):
        if part.lstrip("-").isdecimal() and not 0 <= int(part[:20]) <= MAX_ID:
            raise broken(f"USER {name}: ids go from 0 to {MAX_ID}", at=line.at)
    stage.config.user = name
    stage.say(f"USER {name}")


def workdir(stage: StageBuild, line: ins.Workdir) -> None:
    """Change the directory of later instructions, and make it: as the user of USER, who owns it then."""
    path = rooted(stage.config.working_dir, stage.expand(line.path, line.at))
    if len(path) > MAX_PATH:
        raise broken(f"WORKDIR {path}: longer than the {MAX_PATH} characters of a path", at=line.at)
    stage.config.working_dir = path
    if path == "/":
        stage.say("WORKDIR /")
        return
    step = stage.add(Mkdir(path, stage.config.user), stage.shown(line.code), line.at)
    stage.say(f"WORKDIR {path}", step)


def rooted(directory: str, path: str) -> str:
    """`path` seen from `directory`, absolute and cleaned; `..` cannot leave the root."""
    joined = posixpath.normpath(posixpath.join("/", directory or "/", path))
    return "/" + joined.lstrip("/")


def shell(stage: StageBuild, line: ins.Shell) -> None:
    stage.config.shell = line.argv
    stage.say(f"SHELL [{' '.join(line.argv)}]")


def stop_signal(stage: StageBuild, line: ins.StopSignal) -> None:
    signal = stage.expand(line.signal, line.at)
    name = signal.upper().removeprefix("SIG")
    number = re.fullmatch(r"[0-9]{1,3}", signal)
    if name not in _SIGNALS and not (number and 0 < int(signal) <= 64):
        raise broken(
            f"STOPSIGNAL {signal}: no such signal",
            at=line.at,
            hint=hint(
                signal, [f"SIG{each}" for each in _SIGNALS], "a name like SIGTERM, or a number from 1 to 64"
            ),
        )
    stage.config.stop_signal = signal
    stage.say(f"STOPSIGNAL {signal}")


def command_line(stage: StageBuild, command: ins.Command) -> tuple[str, ...]:
    """The argument vector: the JSON form's words, or the text handed to the shell."""
    if not command.shell:
        return command.argv
    return (*shell_of(stage), command.argv[0])


def shell_of(stage: StageBuild) -> tuple[str, ...]:
    """What the shell form of commands is handed to: SHELL."""
    return stage.config.shell or ("/bin/sh", "-c")


def cmd(stage: StageBuild, line: ins.Cmd) -> None:
    stage.config.cmd = command_line(stage, line.command)
    stage.config.args_escaped = True
    stage.cmd_set = True
    stage.say(f"CMD {quoted(stage.config.cmd)}")


def entrypoint(stage: StageBuild, line: ins.Entrypoint) -> None:
    """A CMD that came with the base was meant for the base's ENTRYPOINT: it goes."""
    argv = command_line(stage, line.command)
    stage.config.entrypoint = argv or None
    if not stage.cmd_set:
        stage.config.cmd = None
    stage.say(f"ENTRYPOINT {quoted(argv)}")


def healthcheck(stage: StageBuild, line: ins.Healthcheck) -> None:
    health = Healthcheck(
        tuple(scope.clean(word) for word in line.test),
        line.interval_ns,
        line.timeout_ns,
        line.start_period_ns,
        line.start_interval_ns,
        line.retries,
    )
    stage.config.healthcheck = health
    times = {
        "Interval": health.interval_ns,
        "Timeout": health.timeout_ns,
        "StartPeriod": health.start_period_ns,
        "StartInterval": health.start_interval_ns,
    }
    shown = " ".join(f"{name}:{durations.format_(value)}" for name, value in times.items())
    stage.say(f"HEALTHCHECK {{Test:[{' '.join(health.test)}] {shown} Retries:{health.retries}}}")


def onbuild(stage: StageBuild, line: ins.Onbuild) -> None:
    """Keep a trigger for whoever builds on this; no line of history, as in Docker."""
    stage.config.on_build.append(line.trigger)


def lower(stage: StageBuild, line: ins.Instruction) -> None:
    """Carry out one of the instructions of this module."""
    match line:
        case ins.Arg():
            arg(stage, line)
        case ins.Env():
            env(stage, line)
        case ins.Label():
            label(stage, line)
        case ins.Maintainer():
            maintainer(stage, line)
        case ins.Expose():
            expose(stage, line)
        case ins.Volume():
            volume(stage, line)
        case ins.User():
            user(stage, line)
        case ins.Workdir():
            workdir(stage, line)
        case ins.Shell():
            shell(stage, line)
        case ins.StopSignal():
            stop_signal(stage, line)
        case ins.Cmd():
            cmd(stage, line)
        case ins.Entrypoint():
            entrypoint(stage, line)
        case ins.Healthcheck():
            healthcheck(stage, line)
        case ins.Onbuild():
            onbuild(stage, line)
        case _:
            raise TypeError(f"{type(line).__name__} is lowered elsewhere")

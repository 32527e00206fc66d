"""`pybuild build`, the default command: flags in, one BuildRequest down, its events out."""

from __future__ import annotations

import gc
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from builder.cli import entering, finish, foreign, lending, limits, outputs, reading, remote, values
from builder.cli.isolating import ISOLATION, isolated
from builder.cli.progress import MODES, watching
from builder.cli.results import Results
from builder.cli.session import Session
from builder.errors import BuildError, ContextError, UsageError

if TYPE_CHECKING:
    from builder.building import BuildRequest, Built
    from builder.contexts.ahead import Ahead


@click.command(
    "build",
    help="Build an image from the Dockerfile in PATH, in the git repository or archive behind URL, or from "
    "standard input (-: an archive, or only a Dockerfile).",
)
@click.argument("context", metavar="PATH | URL | -", required=False)
@click.option(
    "-f",
    "--file",
    "dockerfile",
    metavar="FILE",
    help="The Dockerfile (default: PATH/Dockerfile; - is stdin): a path or a URL.",
)
@reading.IGNOREFILE
@click.option(
    "-t",
    "--tag",
    "tags",
    multiple=True,
    metavar="[STAGE=]NAME[:TAG]",
    help="Name the image, or that of another stage; repeatable.",
)
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    metavar="OUTPUT",
    help="type=image|registry|oci|docker|tar|local|cacheonly[,...], a directory, or - (a tar); repeatable.",
)
@click.option(
    "--build-arg",
    "build_args",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Set an ARG; without a value, from the environment.",
)
@click.option(
    "--build-arg-file",
    "build_arg_files",
    multiple=True,
    metavar="FILE",
    help="Set ARGs from a file, a NAME=VALUE per line; --build-arg comes before it.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="STAGE,...",
    help="The stages that become images (default: the last); repeatable.",
)
@click.option("--all-stages", "every_stage", is_flag=True, help="Run the steps of all stages, needed or not.")
@click.option("--no-cache", is_flag=True, help="Run every step, whatever ran before.")
@click.option("--no-cache-filter", multiple=True, metavar="STAGE", help="Run every step of these stages.")
@click.option(
    "--no-onbuild", is_flag=True, help="Refuse base images that bring instructions of their own (ONBUILD)."
)
@click.option(
    "--build-context",
    "contexts",
    multiple=True,
    metavar="NAME[::PLATFORM]=SOURCE",
    help="More contexts: a directory, git or http URL, oci-layout://DIR[:TAG] or docker-image://NAME.",
)
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Label the image; repeatable.")
@click.option(
    "--platform",
    multiple=True,
    metavar="OS/ARCH,...",
    help="What the image runs on (default: this machine); of several an index is made.",
)
@click.option(
    "--network",
    type=click.Choice(["default", "bridge", "none", "host"]),
    default="default",
    help="What RUN may reach.",
)
@click.option(
    "--add-host", "hosts", multiple=True, metavar="HOST:IP", help="One more line in RUN's /etc/hosts."
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="id=NAME[,src=FILE|,env=VARIABLE][,cache-key=hash]",
    help="Lend a secret to the steps that mount it; repeatable.",
)
@click.option(
    "--ssh",
    multiple=True,
    metavar="NAME[=SOCKET|=KEY[,KEY]]",
    help="Lend an ssh agent (default: that of SSH_AUTH_SOCK) or keys to steps.",
)
@click.option(
    "--allow",
    multiple=True,
    metavar="WHAT",
    help="Let the Dockerfile have network.host, security.insecure, device or device=NAME.",
)
@reading.ENABLE
@click.option(
    "--shell-strict", is_flag=True, help="End a RUN heredoc at its first failure: --enable shell-strict."
)
@ISOLATION
@click.option("--shm-size", metavar="SIZE", default="64m", help="Size of RUN's /dev/shm.")
@click.option(
    "--security-opt",
    "security_opts",
    multiple=True,
    metavar="OPTION",
    help="For steps: no-new-privileges, seccomp=unconfined (needs --allow security.insecure).",
)
@click.option(
    "--ulimit", "ulimits", multiple=True, metavar="NAME=SOFT[:HARD]", help="Limits of RUN's processes."
)
@limits.options(build=True)
@click.option(
    "--timestamp",
    "--source-date-epoch",
    "clock",
    metavar="SECONDS|commit|context",
    help="The moment the image carries; the build is then reproducible.",
)
@click.option(
    "--jobs", type=click.IntRange(0), default=0, metavar="N", help="Steps at once (default: the cores)."
)
@click.option("--keep-going", is_flag=True, help="Let running steps end when one fails.")
@click.option(
    "--on-failure",
    type=click.Choice(["shell"]),
    metavar="shell",
    help="Enter a RUN step that failed: a shell in it, on the terminal.",
)
@click.option("--squash", is_flag=True, help="Make one layer of all new ones; the cache keeps them.")
@click.option(
    "--annotation",
    "annotations",
    multiple=True,
    metavar="[TYPE:]KEY=VALUE",
    help="Annotate the image's manifest, or (manifest-descriptor:) what points to it; repeatable.",
)
@click.option(
    "--unset",
    multiple=True,
    metavar="WHAT,...",
    help="Take settings of the base back: env.NAME, label.NAME, volume.PATH, expose.PORT, cmd, entrypoint, "
    "user, workdir, healthcheck, stopsignal, shell, onbuild.",
)
@click.option("--unsetenv", multiple=True, metavar="NAME", help="--unset env.NAME.")
@click.option("--unsetlabel", multiple=True, metavar="NAME", help="--unset label.NAME.")
@click.option(
    "--env",
    "envs",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Set a variable of the image, and not of its steps.",
)
@click.option("--iidfile", metavar="FILE", help="Write the image id to a file.")
@click.option("--metadata-file", metavar="FILE", help="Write digests and names to a JSON file.")
@click.option("--check", is_flag=True, help="Check the Dockerfile (docs/checks) and build nothing.")
@click.option(
    "--call",
    default="build",
    metavar="METHOD[,format=json]",
    help="Instead of building: check, outline, targets or subrequests.describe.",
)
@click.option("--progress", type=click.Choice(MODES), default="auto", help="How to show what happens.")
@click.option("-q", "--quiet", is_flag=True, help="Show nothing; print the image id.")
@click.option("--pull", is_flag=True, help="Ask registries for bases anew, whatever the store has.")
@click.option("--locked", is_flag=True, help="Use exactly what the Dockerfile's lock says (pybuild lock).")
@click.option("--push", is_flag=True, help="Push the image: -o type=registry.")
@remote.OFFLINE
@remote.AUTHFILE
@click.option(
    "--creds",
    multiple=True,
    metavar="[HOST=]USER[:PASSWORD]",
    help="In place of those of a login, for HOST (default: the registries in the names the image gets).",
)
@remote.CERT_DIR
@remote.TLS_VERIFY
@click.option(
    "--retry", type=click.IntRange(0), metavar="N", help="How often a registry is asked again (default: 4)."
)
@click.option("--retry-delay", metavar="DURATION", help="The first wait before that (default: 1s).")
@click.option(
    "--format",
    "form",
    type=click.Choice(["oci", "docker"]),
    help="Media types of what -o and --push write (default: oci).",
)
@click.option("--load", is_flag=True, help="Accepted: images always go to the local store.")
@click.option("--print", "asked", hidden=True)
@click.option("--skip-unused-stages", type=click.BOOL, default=True, hidden=True)
@click.pass_obj  # fmt: skip
def command(session: Session, /, **flags: Any) -> int:
    """Set by the decorator."""
    entering.needs_terminal(flags["on_failure"])
    asked = flags["asked"] or flags["call"]
    asked = "check" if asked == "build" and flags["check"] else asked
    if asked != "build":
        from builder.cli.check import Call, run

        if (call := Call.parse(asked)).method != "build":
            return run(_request(session, flags), call)
    limits.enter_scope(flags)
    from builder.contexts.ahead import begin

    isolated(session, flags["isolation"])
    with begin(flags["context"], flags["dockerfile"], flags["ignorefile"]) as ahead:
        request = _request(session, flags)
        results = Results(request, flags)
        results.write(_built(request, flags, ahead, results))
    return 0


def _built(request: BuildRequest, flags: dict[str, Any], ahead: Ahead | None, results: Results) -> Built:
    enter = flags["on_failure"]
    with watching("quiet" if flags["quiet"] else flags["progress"]) as emit:
        from builder.building import build

        # Builds make many objects that stay, and few cycles: look for garbage rarely.
        gc.set_threshold(100_000)
        gc.enable()
        try:
            return build(request, results.hearing(emit), ahead, on_failure=entering.entering(enter, emit))
        except BuildError as error:
            if not enter and not request.keep_going:
                entering.suggest(error)
            raise


def _request(session: Session, flags: dict[str, Any]) -> BuildRequest:
    from builder.building import BuildRequest

    context, dockerfile, content = _sources(flags["context"], flags["dockerfile"])
    build_args: dict[str, str] = {}
    for path in flags["build_arg_files"]:
        build_args |= values.argument_file(path)
    build_args |= values.variables("--build-arg", flags["build_args"])
    platforms = values.words(flags["platform"]) or values.words(
        [os.environ.get("DOCKER_DEFAULT_PLATFORM", "")]
    )
    return BuildRequest(
        context=context,
        dockerfile=dockerfile,
        dockerfile_text=content,
        stdin=sys.stdin.buffer if context == "-" else None,
        ignorefile=flags["ignorefile"],
        tags=flags["tags"],
        outputs=outputs.wanted(flags),
        build_args=build_args,
        targets=values.words(flags["targets"]),
        every_stage=flags["every_stage"] or not flags["skip_unused_stages"],
        no_cache=flags["no_cache"],
        no_cache_filter=frozenset(values.words(flags["no_cache_filter"])),
        no_onbuild=flags["no_onbuild"],
        contexts=values.contexts(flags["contexts"]),
        labels={
            **values.git_labels(context, dockerfile),
            **values.pairs("--label", flags["labels"], empty=True),
        },
        platforms=platforms,
        network="default" if flags["network"] == "bridge" else flags["network"],
        extra_hosts=values.hosts(flags["hosts"]),
        allow=frozenset(each for one in flags["allow"] for each in one.split(",")),
        enable=values.extensions(flags["enable"], flags["shell_strict"]),
        secrets=tuple(lending.secret(each) for each in flags["secrets"]),
        ssh=tuple(lending.agent(each) for each in flags["ssh"]),
        shm_size=values.size("--shm-size", flags["shm_size"]),
        ulimits=values.ulimits(flags["ulimits"]),
        security_opts=values.security_opts(flags["security_opts"]),
        limits=limits.build(flags),
        timeout_s=limits.duration("--timeout", flags["timeout"]),
        clock=values.clock(flags["clock"], build_args, context),
        jobs=flags["jobs"],
        keep_going=flags["keep_going"],
        finish=finish.wanted(flags),
        pull=_pull(flags),
        locked=flags["locked"],
        access=remote.access(
            session,
            authfile=flags["authfile"],
            cert_dir=flags["cert_dir"],
            tls_verify=flags["tls_verify"],
            offline=flags["offline"],
            credentials=_credentials(flags),
            retries=flags["retry"],
            retry_delay_s=limits.duration("--retry-delay", flags["retry_delay"]),
        ),
        root=session.root,
    )


_HOST = re.compile(r"(?:localhost|\[[0-9a-fA-F:.]+\]|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)(?::[0-9]{1,5})?")


def _credentials(flags: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """`--creds` by host. One without a host is for the registries that the user has named, never for those
    that a Dockerfile names."""
    from builder.export.base import OutputSpec

    found: list[tuple[str, str]] = []
    for text in flags["creds"]:
        host, equals, rest = text.partition("=")
        if equals and _HOST.fullmatch(host):
            found.append((remote.host_of(host), rest))
            continue
        given = (OutputSpec.parse(each).options.get("name", "") for each in flags["outputs"])
        names = [
            *(each.rpartition("=")[2] for each in flags["tags"]),
            *(name for each in given for name in each.split(",") if name),
        ]
        hosts = {remote.reference(name).domain for name in names}
        if not hosts:
            raise UsageError(
                "--creds: for which registry? The image gets no name", hint="--creds HOST=USER:PASSWORD"
            )
        found += [(each, text) for each in sorted(hosts)]
    return tuple(found)


def _pull(flags: dict[str, Any]) -> bool:
    if flags["pull"] and flags["offline"]:
        raise UsageError("--pull asks registries, and --offline nobody: they cannot both be")
    return bool(flags["pull"])


def _sources(context: str | None, dockerfile: str | None) -> tuple[str, str, bytes]:
    """The context, the Dockerfile's path and, from standard input, its text."""
    if context is None:
        raise UsageError(
            "build needs a context: the directory that COPY reads", hint="pybuild build [OPTIONS] PATH"
        )
    if context == "-" and dockerfile == "-":
        raise UsageError("context and Dockerfile cannot both come from standard input")
    if context != "-" and not os.path.isdir(context):
        from builder.contexts.sources import is_remote

        if not is_remote(context):
            raise ContextError(f"the context {context!r} is no directory", hint=_meant(context))
    if dockerfile == "-":
        return context, "-", sys.stdin.buffer.read()
    return context, dockerfile or "", b""


def _meant(word: str) -> str:
    from difflib import get_close_matches

    from builder.cli.main import COMMANDS

    close = get_close_matches(word, COMMANDS, 1, 0.7)
    return f"did you mean pybuild {close[0]}?" if close else "pybuild [build] [OPTIONS] PATH; pybuild --help"


foreign.known(command)

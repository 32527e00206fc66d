"""`pybuild registry`: serve the store as a registry, and forget what nobody needs of it."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

import click

from builder.cli.session import Session
from builder.errors import UsageError

if TYPE_CHECKING:
    from oci.registry.server.proxy import Upstream

_ROOT = click.option("--root", metavar="DIR", help="The store to serve (default: the one of all commands).")
_FILES = 8192
_LOOPBACK = ("127.", "localhost", "[::1]")


@click.group("registry", help="A registry of your own, on the images of the store.", no_args_is_help=True)
def command() -> None:
    """Set by the decorator."""


@command.command("serve", help="Serve the store as a registry until interrupted.")
@click.option(
    "--addr",
    default="127.0.0.1:5000",
    metavar="HOST:PORT",
    show_default=True,
    help="Where to listen; port 0 takes a free one.",
)
@click.option(
    "--hostname",
    default="",
    metavar="NAME[:PORT]",
    help="The registry's name in the names of pushed images (default: HOST:PORT).",
)
@_ROOT
@click.option("--htpasswd", default="", metavar="FILE", help="Users and passwords; all may do everything.")
@click.option("--tls-cert", default="", metavar="FILE", help="Certificate chain, PEM; with --tls-key.")
@click.option("--tls-key", default="", metavar="FILE", help="The certificate's private key, PEM.")
@click.option("--read-only", is_flag=True, help="Take no pushes and delete nothing.")
@click.option("--proxy", metavar="URL", help="Fetch what is not here from this registry, and keep it.")
@click.option("--no-access-log", is_flag=True, help="Write no line of JSON for every request.")
@click.pass_obj  # fmt: skip
def serve(
    session: Session,
    addr: str,
    hostname: str,
    root: str | None,
    htpasswd: str,
    tls_cert: str,
    tls_key: str,
    read_only: bool,
    proxy: str | None,
    no_access_log: bool,
) -> int:
    """Set by the decorator."""
    from builder.cli.upstream import Places
    from oci.layout import Layout
    from oci.registry.server import Options, RegistryServer

    host, port = _address(addr)
    with _session(session, root) as own:
        # Not the layout of `images`: it remembers verified blobs in the database, with a connection for each
        # thread that asks, and every client of a server is a thread.
        layout = Layout.open(own.images.layout.root)
        options = Options(
            host=host,
            port=port,
            hostname=hostname,
            htpasswd=htpasswd,
            tls_cert=tls_cert,
            tls_key=tls_key,
            read_only=read_only,
            upstream=_upstream(own, proxy) if proxy else None,
            log=None if no_access_log else _log,
            origins=Places(own, layout),
            guard=own.state.lease,
        )
        with RegistryServer(layout, options) as server:
            _greet(server.url, addr, htpasswd, tls_cert)
            gc.enable()
            _raise_file_limit()
            try:
                server.serve()
            except KeyboardInterrupt:
                sys.stderr.write("stopping: running requests may finish\n")
    return 0


@command.command("gc", help="Delete what no tag, manifest or build needs. Safe while a server runs.")
@_ROOT
@click.option("--untagged", is_flag=True, help="Manifests that no tag leads to go as well.")
@click.option(
    "--older-than",
    "hours",
    type=click.FloatRange(min=0),
    default=24.0,
    metavar="HOURS",
    show_default=True,
    help="Keep what was pushed more recently.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.pass_obj  # fmt: skip
def collect(session: Session, root: str | None, untagged: bool, hours: float, dry_run: bool) -> None:
    """Set by the decorator."""
    from oci.registry.server.gc import trim
    from oci.registry.server.links import Links
    from oci.registry.server.sessions import expire

    with _session(session, root) as own:
        layout = own.images.layout
        links = Links(layout.root)
        try:
            gone = trim(layout, links, untagged=untagged, age=hours * 3600, dry_run=dry_run)
        finally:
            links.close()
        for kind, found in (("manifest", gone.manifests), ("blob", gone.blobs)):
            for repository, digest in found:
                sys.stdout.write(f"{kind} {repository}@{digest}\n")
        if not dry_run:
            layout.blobs.clean()
            expire(layout.root)
            sys.stderr.write(f"freed {own.images.collect()} bytes\n")


def _session(session: Session, root: str | None) -> Session:
    return Session(root=root, config=session.config, debug=session.debug) if root else session


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise UsageError(f"--addr {text!r} is no HOST:PORT", hint="e.g. 127.0.0.1:5000 or [::1]:5000")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _greet(url: str, addr: str, htpasswd: str, tls_cert: str) -> None:
    sys.stderr.write(f"serving {url}\n")
    if addr.startswith(_LOOPBACK):
        return
    if not htpasswd:
        sys.stderr.write(
            "warning: everybody who reaches this address may push, pull and delete; see --htpasswd\n"
        )
    elif not tls_cert:
        sys.stderr.write("warning: without --tls-cert passwords cross the network in the clear\n")


def _raise_file_limit() -> None:
    """Every connection and every upload holds files: take what the system lets us have."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _log(line: bytes) -> None:
    try:
        os.write(2, line)
    except OSError:
        pass  # nobody reads it any more


def _upstream(session: Session, url: str) -> Upstream:
    from builder.cli.upstream import Registry

    return Registry(session, url)

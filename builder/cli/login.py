"""`pybuild login`: try credentials at a registry, and keep them where docker keeps them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from builder.cli import remote
from builder.cli.session import Session
from builder.errors import UsageError

if TYPE_CHECKING:
    from oci.registry.auth import Credential, CredentialStore


@click.command(
    "login",
    help="Log in to the registry HOST (default: Docker Hub). Credentials that it accepts are kept in "
    "docker's file, or by the credential helper named there.",
)
@click.argument("host", required=False, default="", metavar="[HOST[:PORT]]")
@click.option("-u", "--username", default="", metavar="NAME", help="Who (default: ask).")
@click.option("-p", "--password", default="", metavar="SECRET", help="Seen by others: --password-stdin.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@remote.AUTHFILE
@remote.CERT_DIR
@remote.TLS_VERIFY
@click.pass_obj  # fmt: skip
def command(
    session: Session,
    host: str,
    username: str,
    password: str,
    password_stdin: bool,
    authfile: str,
    cert_dir: str,
    tls_verify: bool | None,
) -> None:
    """Set by the decorator."""
    from builder.errors import RegistryFailed
    from builder.registries import connect, told
    from oci.reference import Reference
    from oci.registry.auth import CredentialStore

    if password_stdin and (password or not username):
        raise UsageError("--password-stdin goes with --username, and without --password")
    if password:
        remote.warn("a password on the command line can be read by others: use --password-stdin")
    where = remote.host_of(host)
    name = Reference(where, "some/image")
    store = CredentialStore.default(authfile)
    access = remote.access(session, authfile=authfile, cert_dir=cert_dir, tls_verify=tls_verify)
    try:
        with told(name), connect(access, remote.warn) as client:
            found = _given(store, where, username, password, password_stdin)
            client.authenticate(where, found)
            path = store.put(where, found)
    except RegistryFailed as error:
        error.hint = "nothing was kept" if error.exit_code == 4 else ""  # to log in is what was tried
        raise
    if path:
        remote.warn(
            f"the password is in {path}, and whoever reads that file has it; a credential helper "
            "(credsStore, credHelpers) keeps it better"
        )
    sys.stdout.write("Login Succeeded\n")


def _given(store: CredentialStore, host: str, username: str, password: str, from_stdin: bool) -> Credential:
    """What was given; else what is kept, to be tried again; else what people type."""
    from oci.registry.auth import Credential

    if from_stdin:
        password = sys.stdin.buffer.read(1 << 16).decode("utf-8", "surrogateescape")
        return Credential(username, _whole(password.removesuffix("\n").removesuffix("\r")))
    if not username and not password and (kept := store.get(host)):
        sys.stderr.write(f"trying the credentials that are kept for {host}\n")
        return kept
    if not (username and password) and not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask on", hint="--username NAME --password-stdin < FILE")
    username = username or click.prompt("Username", err=True)
    return Credential(username, password or click.prompt("Password", hide_input=True, err=True))


def _whole(password: str) -> str:
    if not password:
        raise UsageError("standard input holds no password")
    return password

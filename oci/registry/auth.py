"""Who we are to a registry: `~/.docker/config.json`, podman's auth.json, and credential helpers.

A password is found under its registry's own name and no other (S86); the names of Docker Hub are one fixed
list. Helpers are programs `docker-credential-NAME` found on PATH, spoken to as docker-credential-helpers'
README says: the verb as argument, the host on standard input, JSON on standard output.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field
from typing import Any

from oci.data import dataclass
from oci.errors import Unauthorized
from oci.registry.redact import redact
from oci.strict_json import MAX_DOCUMENT

HUB_KEY = "https://index.docker.io/v1/"
"""The key under which everybody keeps Docker Hub's password."""

TOKEN_USER = "<token>"
"""The user name by which a helper says that its secret is an identity token."""

_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_TIMEOUT_S = 10.0
_NOT_FOUND = "credentials not found"


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and password, or an identity token (OAuth2's refresh token). Never shown by `repr`."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


class CredentialStore:
    """Credential files, the first of which is written to, and the helpers they name. `given` are credentials
    by host that go before all files."""

    def __init__(
        self,
        files: tuple[str, ...],
        *,
        helper_timeout: float = _TIMEOUT_S,
        given: Mapping[str, Credential] | None = None,
    ) -> None:
        self.files = files
        self._timeout = helper_timeout
        self._given = given or {}

    @classmethod
    def default(
        cls,
        authfile: str = "",
        environ: Mapping[str, str] = os.environ,
        given: Mapping[str, Credential] | None = None,
    ) -> CredentialStore:
        """`--authfile` or REGISTRY_AUTH_FILE alone; else Docker's file (DOCKER_CONFIG), then podman's two."""
        if named := authfile or environ.get("REGISTRY_AUTH_FILE", ""):
            return cls((os.path.abspath(named),), given=given)
        home = environ.get("HOME") or os.path.expanduser("~")
        docker = environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker")
        config = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
        runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.geteuid()}"
        podman = [os.path.join(base, "containers", "auth.json") for base in (runtime, config)]
        return cls((os.path.join(docker, "config.json"), *podman), given=given)

    def get(self, host: str, repository: str = "") -> Credential | None:
        """The credential for a registry, None if there is none. `repository` lets podman's narrower keys
        match.

        Raises Unauthorized for files that cannot be read and helpers that fail.
        """
        if host in self._given:
            return self._given[host]
        for path in self.files:
            document = _read(path)
            if found := self._of_file(document, path, host, repository):
                return found
        return None

    def put(self, host: str, credential: Credential) -> str:
        """Keep a credential; the path of the file it is in as plain text, "" if a helper took it."""
        path = self.files[0]
        document = _read(path)
        if helper := _helper_of(document, host):
            name, secret = credential.username, credential.password
            if credential.identity_token:
                name, secret = TOKEN_USER, credential.identity_token
            request = {"ServerURL": key_of(host), "Username": name, "Secret": secret}
            self._call(helper, "store", json.dumps(request))
            return ""
        auths = document.setdefault("auths", {})
        for key in [key for key in auths if _names(key, host)]:
            del auths[key]
        auths[key_of(host)] = _entry(credential)
        _write(path, document)
        return path

    def erase(self, host: str) -> bool:
        """Forget a registry's credential, wherever it is; whether there was one."""
        erased = False
        for path in self.files:
            document = _read(path)
            if helper := _helper_of(document, host):
                erased |= self._ask(helper, host) is not None
                self._call(helper, "erase", key_of(host))
            auths = document.get("auths") or {}
            keys = [key for key in auths if _names(key, host)]
            for key in keys:
                del auths[key]
            if keys:
                _write(path, document)
            erased |= bool(keys)
        return erased

    def _of_file(self, document: dict[str, Any], path: str, host: str, repository: str) -> Credential | None:
        helper = _helper_of(document, host)
        if helper and (found := self._ask(helper, host)):
            return found
        auths = document.get("auths") or {}
        for key in _keys(auths, host, repository):
            if found := _credential(auths[key], f"{path}: auths[{key!r}]"):
                return found
        return None

    def _ask(self, helper: str, host: str) -> Credential | None:
        answer = self._call(helper, "get", key_of(host))
        if answer is None:
            return None
        try:
            value = json.loads(answer)
            name, secret = value["Username"], value["Secret"]
        except (ValueError, KeyError, TypeError, RecursionError):
            name = secret = None
        if not isinstance(name, str) or not isinstance(secret, str):
            raise Unauthorized(
                f"docker-credential-{helper} get: its answer for {host} is no JSON with Username and Secret"
            )
        if not secret:
            return None
        return Credential(identity_token=secret) if name == TOKEN_USER else Credential(name, secret)

    def _call(self, helper: str, verb: str, request: str) -> bytes | None:
        """A helper's answer; None if it knows no such credential."""
        import subprocess

        program = _find(helper)
        process = subprocess.Popen(
            [program, verb],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it may say anything there, secrets too (S68)
            start_new_session=True,
        )
        try:
            answer, _ = process.communicate(request.encode(), timeout=self._timeout)
        except subprocess.TimeoutExpired:
            raise Unauthorized(
                f"docker-credential-{helper} {verb} did not answer within {self._timeout:g} s"
            ) from None
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        if process.returncode == 0:
            return answer[:MAX_DOCUMENT]
        if _NOT_FOUND in answer.decode("utf-8", "replace"):
            return None
        said = redact(answer.decode("utf-8", "replace"), 200)
        raise Unauthorized(
            f"docker-credential-{helper} {verb} failed (status {process.returncode})"
            + (f": {said}" if said else "")
        )


def key_of(host: str) -> str:
    """The key a registry's credential is kept under."""
    return HUB_KEY if host in _HUB else host


def _names(key: str, host: str) -> bool:
    """Whether a key of `auths` is this whole registry: `host`, `https://host`, `https://host/v1/`."""
    bare = key.partition("://")[2] if "://" in key else key
    name, _, path = bare.partition("/")
    if path.strip("/") not in ("", "v1", "v2"):
        return False
    return name == host or (name in _HUB and host in _HUB)


def _keys(auths: Mapping[str, Any], host: str, repository: str) -> list[str]:
    """The keys that hold for a repository, the narrowest first (containers-auth.json(5))."""
    whole = [key for key in auths if _names(key, host)]
    parts = repository.split("/") if repository else []
    hosts = sorted(_HUB) if host in _HUB else [host]
    narrow = [f"{name}/{'/'.join(parts[:count])}" for count in range(len(parts), 0, -1) for name in hosts]
    return [*(key for key in narrow if key in auths), *whole]


def _helper_of(document: dict[str, Any], host: str) -> str:
    """The helper in charge of a registry, "" if none is."""
    helpers = document.get("credHelpers")
    if isinstance(helpers, dict):
        for key, name in helpers.items():
            if isinstance(name, str) and name and _names(key, host):
                return name
    store = document.get("credsStore")
    return store if isinstance(store, str) else ""


def _find(helper: str) -> str:
    """The helper's program: on PATH, in an absolute directory, so never in the current one (S68)."""
    if not _HELPER.fullmatch(helper):
        raise Unauthorized(f"{redact(repr(helper), 80)} is no name of a credential helper")
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(directory, f"docker-credential-{helper}")
        if os.path.isabs(directory) and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise Unauthorized(
        f"the credential helper docker-credential-{helper} is not on PATH; install it, or take it out "
        "of the configuration"
    )


def _credential(entry: Any, where: str) -> Credential | None:
    """What an entry of `auths` says. An empty entry is how Docker says that a helper has it."""
    if not isinstance(entry, dict):
        raise Unauthorized(f"{where}: expected an object")
    texts = {key: value for key, value in entry.items() if isinstance(value, str)}
    if token := texts.get("identitytoken"):
        return Credential(identity_token=token)
    if token := texts.get("registrytoken"):
        return Credential(registry_token=token)
    if auth := texts.get("auth"):
        name, colon, password = _decoded(auth, where).partition(":")
        if not colon:
            raise Unauthorized(f"{where}.auth: expected the base64 of user:password")
        return Credential(name, password.rstrip("\0"))
    if texts.get("username") and "password" in texts:
        return Credential(texts["username"], texts["password"])
    return None


def _decoded(auth: str, where: str) -> str:
    try:
        return base64.b64decode(auth, validate=True).decode()
    except (binascii.Error, ValueError):
        raise Unauthorized(f"{where}.auth: not base64 of UTF-8 text; log in again") from None


def _entry(credential: Credential) -> dict[str, str]:
    if credential.identity_token:
        return {"auth": "", "identitytoken": credential.identity_token}
    return {"auth": base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()}


def _read(path: str) -> dict[str, Any]:
    """A credential file; {} if it is not there. What is wrong with it is said without showing it."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_DOCUMENT)
        value = json.loads(content) if content.strip() else {}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise Unauthorized(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise Unauthorized(f"{path}: not valid JSON; mend it or remove it and log in again") from None
    if not isinstance(value, dict) or not isinstance(value.get("auths") or {}, dict):
        raise Unauthorized(f"{path}: expected an object with `auths`")
    value["auths"] = value.get("auths") or {}
    return value


def _write(path: str, document: dict[str, Any]) -> None:
    """Replace a credential file in one step, readable by its owner alone (S67). Links are followed once."""
    import tempfile

    path = os.path.realpath(path)
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    fd, temporary = tempfile.mkstemp(prefix=".config.json", dir=os.path.dirname(path))  # 0600
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(json.dumps(document, indent="\t").encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise

"""The configuration: one TOML file, the first that is there.

    --config FILE, else PYBUILD_CONFIG               must be there
    $XDG_CONFIG_HOME/pybuild/config.toml             (~/.config without the variable)
    /etc/pybuild/config.toml

`[registry."HOST"]` has BuildKit's shape: `oci.registry.config` reads it. `isolation = "MODE"`, at the top, is
what `--isolation` is when it is not given.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from builder.errors import UsageError

if TYPE_CHECKING:
    from oci.registry.config import RegistryConfig

VARIABLE = "PYBUILD_CONFIG"
SYSTEM = "/etc/pybuild/config.toml"

_PARTS = frozenset({"registry", "isolation"})


def find(named: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """The configuration file's path, "" when there is none. `named` is the one of `--config`."""
    if chosen := named or environ.get(VARIABLE, ""):
        return chosen
    return next((path for path in (_of_the_user(environ), SYSTEM) if os.path.isfile(path)), "")


def check(path: str) -> None:
    """Raise UsageError for a file that is no TOML, OSError for one that is not there."""
    if path:
        _read(path)


def registries(path: str) -> RegistryConfig:
    """The registry part of the file at `path`; of "", what holds without any.

    Raises UsageError naming file and key.
    """
    from oci.errors import InvalidDocument
    from oci.registry.config import RegistryConfig

    if not path:
        return RegistryConfig()
    table = _read(path)
    for part in table:
        if part not in _PARTS:
            raise UsageError(
                f"the configuration {path!r} has an unknown part {part!r}",
                hint='it has: isolation, and [registry."HOST"] with mirrors, http, insecure, ca, keypair',
            )
    try:
        return RegistryConfig.of(table, path)
    except InvalidDocument as error:
        raise UsageError(f"the configuration is wrong: {error}") from None


def isolation(path: str) -> str:
    """The mode that the file at `path` asks for, "" for none. Raises UsageError."""
    value = _read(path).get("isolation", "") if path else ""
    if not isinstance(value, str):
        raise UsageError(
            f"the configuration {path!r} has isolation = {value!r}", hint='write it as isolation = "auto"'
        )
    return value


def with_certificates(found: RegistryConfig, directory: str) -> RegistryConfig:
    """The same with the certificates of a directory for every registry that is asked (`--cert-dir`).

    Raises UsageError for a directory that cannot be read.
    """
    from oci.errors import InvalidDocument

    try:
        return found.with_directory(directory)
    except InvalidDocument as error:
        raise UsageError(str(error)) from None


def _of_the_user(environ: Mapping[str, str]) -> str:
    home = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(home):  # the XDG specification: a relative path is to be ignored
        home = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    return os.path.join(home, "pybuild", "config.toml")


def _read(path: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the configuration {path!r} is no TOML: {error}") from None

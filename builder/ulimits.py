"""Limits of a step's processes that this machine cannot give are an error before the build, not in a step."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable

from builder.errors import UsageError

_UNLIMITED = -1
_CAP_SYS_RESOURCE = 24


def check_ulimits(limits: Iterable[tuple[str, int, int]]) -> None:
    """Raise UsageError for a (name, soft, hard) above what we may give; -1 is no limit.

    Only with CAP_SYS_RESOURCE may a hard limit be raised, and that of open files never above fs.nr_open
    (setrlimit(2)).
    """
    for name, _, hard in limits:
        most = _most(name)
        if most != _UNLIMITED and (hard == _UNLIMITED or hard > most):
            wanted = "no limit" if hard == _UNLIMITED else str(hard)
            raise UsageError(
                f"--ulimit {name}: {wanted} is above the hard limit, {most}",
                hint=f"ask for {most} at most{_more()}",
            )


def _most(name: str) -> int:
    if not _may_raise():
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        return resource.getrlimit(number)[1] if number is not None else _UNLIMITED
    if name != "nofile":
        return _UNLIMITED
    with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
        return int(file.read())


def _more() -> str:
    """Who may ask for more."""
    if _may_raise():
        return ""
    return ", or build with the capability SYS_RESOURCE" if os.geteuid() == 0 else ", or build as root"


def _may_raise() -> bool:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        effective = next((line.split()[1] for line in file if line.startswith("CapEff")), "0")
    return bool(int(effective, 16) >> _CAP_SYS_RESOURCE & 1)

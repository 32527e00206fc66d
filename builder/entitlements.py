"""Who may have more than a plain step: the one place that decides (SECURITY.md S35).

The frontend asks here to point at the line that wants too much; what starts processes asks again, so that no
other way to a process (the Python API, a graph from elsewhere) leads around it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from builder.devices import Device, is_name
from builder.errors import UsageError

Security = Literal["sandbox", "insecure"]

HOST_NETWORK, INSECURE, DEVICE = "network.host", "security.insecure", "device"
NO_NEW_PRIVILEGES, UNFILTERED = "no-new-privileges", "seccomp=unconfined"
"""Of `--security-opt`, those that have an effect."""

DELETE = "buildx.local.delete"
KNOWN = (HOST_NETWORK, INSECURE, DEVICE, DELETE)


def granted(allow: Iterable[str], network: str) -> frozenset[str]:
    """What a build may have: `--allow`, and the host's network when the user chose that for the build.

    Raises UsageError for an entitlement that does not exist.
    """
    found = frozenset(allow)
    for name in sorted(found - {*KNOWN}):
        if not name.startswith(f"{DEVICE}=") or not is_name(name.removeprefix(f"{DEVICE}=")):
            raise _unknown(name)
    return found | {HOST_NETWORK} if network == "host" else found


def missing(
    network: str,
    security: str,
    allowed: frozenset[str],
    devices: Iterable[Device] = (),
    options: Iterable[str] = (),
) -> str:
    """The entitlement that a step lacks for its network, security mode, devices and security options; "" when
    it may run.
    """
    if network == "host" and HOST_NETWORK not in allowed:
        return HOST_NETWORK
    if (security != "sandbox" or UNFILTERED in options) and INSECURE not in allowed:
        return INSECURE
    for each in devices:
        if not allowed & {
            DEVICE,
            f"{DEVICE}={each.name}",
            f"{DEVICE}={each.kind}",
            f"{DEVICE}={each.kind}=*",
        }:
            return f"{DEVICE}={each.name}"
    return ""


def _unknown(name: str) -> UsageError:
    from difflib import get_close_matches

    near = get_close_matches(name, KNOWN, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(KNOWN)}"
    return UsageError(f"--allow {name!r} is no entitlement", hint=hint)

"""Who may have more than a plain step: the one place that decides (SECURITY.md S35).

The frontend asks here to point at the line that wants too much; what starts processes asks again, so that no
other way to a process (the Python API, a graph from elsewhere) leads around it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from builder.errors import UsageError

Security = Literal["sandbox", "insecure"]

HOST_NETWORK, INSECURE = "network.host", "security.insecure"
_WITHOUT_EFFECT = "buildx.local.delete"
KNOWN = (HOST_NETWORK, INSECURE, _WITHOUT_EFFECT)


def granted(allow: Iterable[str], network: str) -> frozenset[str]:
    """What a build may have: `--allow`, and the host's network when the user chose that for the build.

    Raises UsageError for an entitlement that does not exist.
    """
    found = frozenset(allow)
    for name in sorted(found - {*KNOWN}):
        raise _unknown(name)
    return found | {HOST_NETWORK} if network == "host" else found


def missing(network: str, security: str, allowed: frozenset[str]) -> str:
    """The entitlement that a step lacks for its network and security mode; "" when it may run."""
    if network == "host" and HOST_NETWORK not in allowed:
        return HOST_NETWORK
    if security != "sandbox" and INSECURE not in allowed:
        return INSECURE
    return ""


def _unknown(name: str) -> UsageError:
    if name.partition("=")[0] == "device":
        return UsageError(f"--allow {name}: devices for steps are not there yet")
    from difflib import get_close_matches

    near = get_close_matches(name, KNOWN, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(KNOWN)}"
    return UsageError(f"--allow {name!r} is no entitlement", hint=hint)

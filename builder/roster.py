"""The roster of a store's containers: their files as plain documents, for those who list them, or must not
take away what they use. It decodes nothing and starts nothing (`builder.container` does).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from contextlib import suppress
from typing import Any

from oci.data import dataclass
from oci.digest import Digest
from oci.errors import OciError
from oci.model import Descriptor

_ID = re.compile(r"[0-9a-f]{64}\Z")
_ALIVE = ("running", "paused")
_KILLED = 137


@dataclass(frozen=True, slots=True)
class Listed:
    """A container: what it was made as and how it is, as its files say (`builder.container.model`). What has
    its default may be missing in both.
    """

    config: dict[str, Any]
    state: dict[str, Any]

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return str(self.config["id"])

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.config["name"])

    @property
    def created(self) -> str:
        """RFC 3339, in nanoseconds."""
        return str(self.config["created"])

    @property
    def status(self) -> str:
        """created, running, paused, exited or dead."""
        return str(self.state.get("status", "created"))

    @property
    def alive(self) -> bool:
        """Whether it has processes."""
        return self.status in _ALIVE

    @property
    def request(self) -> dict[str, Any]:
        """What `run` was asked for."""
        return dict(self.config.get("request") or {})

    @property
    def manifest(self) -> Descriptor:
        """The image that it was made from. Raises OciError for what is no digest."""
        config = self.config
        return Descriptor(
            config["manifest_type"], Digest.parse(config["manifest"]), int(config["manifest_size"])
        )


def listed(root: str) -> list[Listed]:
    """The containers of the store with the root directory `root`, the newest first; damaged ones are left
    out.
    """
    folder = os.path.join(root, "containers")
    try:
        names = [name for name in os.listdir(folder) if _ID.match(name)]
    except FileNotFoundError:
        return []
    found = [each for name in names if (each := _read(os.path.join(folder, name)))]
    return sorted(found, key=lambda each: each.created, reverse=True)


def held(root: str) -> list[Descriptor]:
    """The manifests of the images that containers were made from: their blobs stay."""
    found = []
    for each in listed(root):
        with suppress(OciError, ValueError):
            found.append(each.manifest)
    return found


def _read(place: str) -> Listed | None:
    try:
        config, state = (_document(os.path.join(place, name)) for name in ("config.json", "state.json"))
        found = Listed(config, state)
        if not all(isinstance(config[key], str) for key in ("id", "name", "created", "manifest")):
            return None
        if found.alive and not is_watched(place):
            state = _document(os.path.join(place, "state.json"))  # it may have ended just now
            if state.get("status") in _ALIVE:
                state = _killed(place, state)
            return Listed(config, state)
        return found
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _document(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    if not isinstance(found, dict):
        raise ValueError(path)
    return found


def is_watched(place: str) -> bool:
    """Whether a process looks after the container: it holds the lock as long as it lives."""
    try:
        fd = os.open(os.path.join(place, "alive"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def _killed(place: str, state: dict[str, Any]) -> dict[str, Any]:
    """The state of a container that was killed together with who looked after it."""
    changed = os.stat(os.path.join(place, "state.json")).st_mtime
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(changed))
    return state | {"status": "exited", "exit_code": _KILLED, "pid": 0, "ports": [], "finished": moment}

"""Devices that a step asks for, by their names in the Container Device Interface (FEATURES.md I42).

https://github.com/cncf-tags/container-device-interface: `vendor.com/class=name`.
"""

from __future__ import annotations

import re
from typing import Any

from oci.data import dataclass

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
_NAME = re.compile(rf"{_LABEL}/{_LABEL}(?:=(?:\*|[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?))?|{_LABEL}")


@dataclass(frozen=True, slots=True)
class Device:
    """What `RUN --device` names: one device (`vendor/class=name`), all of a kind (`vendor/class=*`), the
    first of a kind (`vendor/class`), or those of a class that their files tell (`class`). One that is not
    there is an error when it is `required`, else it is left out.
    """

    name: str
    required: bool = False

    @property
    def kind(self) -> str:
        """`vendor/class`, or the class alone."""
        return self.name.partition("=")[0]

    def definition(self) -> dict[str, Any]:
        return {"name": self.name, "required": self.required}


def is_name(text: str) -> bool:
    """Whether a device can be called so."""
    return len(text) <= 512 and _NAME.fullmatch(text) is not None

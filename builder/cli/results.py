"""What a build leaves for programs: `--iidfile`, `--metadata-file`, ids on standard output (O13, O14)."""

from __future__ import annotations

import json
import os
import re
import sys
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from builder.errors import UsageError
from builder.events import Emit, Event, Warning_

if TYPE_CHECKING:
    from builder.building import Built
    from builder.request import BuildRequest

_WARNINGS = "BUILDX_METADATA_WARNINGS"
_TRUE = ("1", "t", "true")
_PLACE = re.compile(r"(.*?):(\d+)(?:-(\d+))?")


class Results:
    """Where the results of one build go. Made before it: what cannot be written is found out then, and no
    older result can be taken for this one's. Raises UsageError.
    """

    def __init__(self, request: BuildRequest, flags: dict[str, Any]) -> None:
        self._iidfile: str | None = flags["iidfile"]
        self._metadata: str | None = flags["metadata_file"]
        self._quiet: bool = flags["quiet"]
        self._outputs = request.outputs
        self._warnings: list[Warning_] | None = None
        if self._iidfile:
            _refuse_several(request)
        for path in (self._iidfile, self._metadata):
            _writable(path)
        if self._metadata and os.environ.get(_WARNINGS, "").lower() in _TRUE:
            self._warnings = []

    def hearing(self, emit: Emit) -> Emit:
        """`emit`, and an ear for what goes into the metadata."""
        kept = self._warnings
        if kept is None:
            return emit

        def hear(event: Event) -> None:
            if isinstance(event, Warning_):
                kept.append(event)
            emit(event)

        return hear

    def write(self, built: Built) -> None:
        """Write all of it."""
        if self._iidfile and built.image_id:
            _write(self._iidfile, str(built.image_id))
        if self._metadata:
            document = metadata(built)
            if not built.targets:
                document["pybuild.isolation"] = _isolation()
            if self._warnings is not None:
                document["buildx.build.warnings"] = [_warning(each) for each in self._warnings]
            _write(self._metadata, json.dumps(document, indent=2) + "\n")
        if any(each.is_stdout for each in self._outputs):
            return
        for each in built.targets.values() or (built,):
            unnamed = not each.names and not self._outputs
            if each.image_id and (self._quiet or unnamed):
                sys.stdout.write(f"{each.image_id}\n")


def metadata(built: Built) -> dict[str, object]:
    """What `--metadata-file` holds, under the names that buildx has; of several targets that of each, by its
    stage."""
    from oci.model import descriptor_value

    if built.targets:
        return {stage: metadata(each) for stage, each in built.targets.items()}
    found: dict[str, object] = {}
    if built.ref:
        found["buildx.build.ref"] = built.ref
    if built.descriptor and built.image_id:
        if not built.is_index:
            found["containerimage.config.digest"] = str(built.image_id)
        found["containerimage.descriptor"] = descriptor_value(built.descriptor)
        found["containerimage.digest"] = str(built.descriptor.digest)
    if built.names:
        found["image.name"] = ",".join(built.names)
    return found


def _isolation() -> dict[str, object]:
    """What the steps ran in (SECURITY.md S97)."""
    from builder.doctor import downgrades
    from builder.isolation import current

    here = current()
    found = {"rung": here.rung.number, "name": here.rung.name, "snapshots": here.storage}
    return {**found, "weaker": downgrades(here)}


def _warning(event: Warning_) -> dict[str, object]:
    """A warning in the shape of BuildKit's (client.VertexWarning): its texts are bytes, in base64."""
    match = _PLACE.fullmatch(event.at)
    found: dict[str, object] = {"level": 1, "short": _bytes(f"{event.code}: {event.message}")}
    if match:
        first, last = int(match[2]), int(match[3] or match[2])
        found["short"] = _bytes(f"{event.code}: {event.message} (line {first})")
        found["sourceInfo"] = {"filename": match[1]}
        found["range"] = [{"start": {"line": first}, "end": {"line": last}}]
    if event.excerpt:
        found["detail"] = [_bytes(line) for line in event.excerpt.split("\n")]
    return found


def _bytes(text: str) -> str:
    return b64encode(text.encode("utf-8", "surrogateescape")).decode("ascii")


def _refuse_several(request: BuildRequest) -> None:
    from builder.goals import goals

    if len(goals(request.targets, request.tags)) > 1:
        raise UsageError(
            "--iidfile holds the id of one image, and several are asked for",
            hint="--metadata-file has them all",
        )


def _writable(path: str | None) -> None:
    if path is None:
        return
    parent = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(parent):
        raise UsageError(f"the directory {parent!r} does not exist")
    if os.path.isfile(path):
        os.unlink(path)


def _write(path: str, content: str) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(content)
    os.replace(temporary, path)

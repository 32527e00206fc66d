"""Volumes of ordinary users: filled with owners that are lent or noted, and removed again."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.root

FILL = """
import os
from builder import isolation
from builder.container.volumes import Volume, Volumes, mounts
from builder.errors import UsageError
from builder.snapshot.view import index_of, View
from builder.sandbox.owners import noted
from oci.tar import Entry, Kind
isolation.enter("auto", {root!r})
read, write = os.pipe()
os.write(write, b"kept")
entries = [Entry(b"db", Kind.DIRECTORY, 0o750, 7, 8), Entry(b"db/file", Kind.FILE, 0o640, 1000, 1001, 4)]
volumes = Volumes({root!r})
(ready,) = volumes.prepared([Volume("volume", "data", "/db")], View([index_of(entries, lambda _: read)]))
top = volumes.inspect("data").path
for path in (top, top + "/file"):
    info, owner = os.stat(path), noted(os.fsencode(path))
    print((info.st_uid, info.st_gid) if owner.plain else (owner.uid, owner.gid), oct(info.st_mode & 0o7777))
try:
    mounts([Volume("bind", {secret!r}, "/x")], volumes)
except UsageError as error:
    print(error)
volumes.remove("data")
print(volumes.names(), os.listdir(volumes.folder))
"""


@pytest.mark.parametrize("who", ["lent", "bare"])
def test_filled_and_removed(request: pytest.FixtureRequest, who: str) -> None:
    """What the user may not see is not there to be mounted (SECURITY.md S92)."""
    user: Any = request.getfixturevalue(who)
    root = user.home / "volumes"
    user.run("mkdir", "-p", str(root))
    secret = user.home.parent / "closed" / "secret"
    secret.parent.mkdir(0o700, exist_ok=True)
    secret.write_text("root's")
    assert user.python(FILL.format(root=str(root), secret=str(secret))).splitlines() == [
        "(7, 8) 0o750",
        "(1000, 1001) 0o640",
        f"bind source path does not exist: {secret}",
        "[] ['.lock']",
    ]

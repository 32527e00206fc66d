"""`pybuild image ...`: docker's other names of the commands about images."""

from __future__ import annotations

from builder.cli.alias import Aliases, same

_KNOWN = {
    **same("build", "history", "import", "load", "pull", "push", "save", "tag"),
    "inspect": ("inspect", "--type", "image"),
    **dict.fromkeys(("ls", "list"), ("images",)),
    **dict.fromkeys(("rm", "remove"), ("rmi",)),
}

_LATER = {"prune": "pruning of the store"}

command = Aliases("image", "The commands about images, by docker's longer names.", _KNOWN, _LATER)

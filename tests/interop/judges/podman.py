"""What is left after podman."""

from __future__ import annotations

import contextlib
import glob
import os


def forget_podman() -> None:
    """Remove the empty cgroups that podman leaves behind."""
    for parent in glob.glob("/sys/fs/cgroup/*/libpod_parent") + glob.glob("/sys/fs/cgroup/libpod_parent"):
        for directory, _, _ in os.walk(parent, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)

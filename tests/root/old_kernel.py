"""Run a program as if the kernel were older: `python old_kernel.py YEAR PROGRAM...`.

A filter answers the calls that came later with ENOSYS, to the program and to all it starts.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

LATER = {
    # number, name and version of calls that are the same on all machines
    "5.1": range(428, 470),  # open_tree, move_mount, fsopen ... and everything since
    "5.8": range(436, 470),  # close_range (5.9), mount_setattr (5.12) ...
    "5.11": range(442, 470),  # mount_setattr (5.12) ...
}
_KEPT = (434, 424)  # pidfd_open (5.3) and pidfd_send_signal: without them there is no launcher


def program(numbers: range) -> bytes:
    code = [(0x20, 0, 0, 0)]
    for number in numbers:
        if number not in _KEPT:
            code += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050026)]
    code.append((0x06, 0, 0, 0x7FFF0000))
    return b"".join(struct.pack("=HBBI", *each) for each in code)


def load(numbers: range) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    text = ctypes.create_string_buffer(program(numbers))
    what = struct.pack("=H6xQ", len(program(numbers)) // 8, ctypes.addressof(text))
    seccomp = 317 if os.uname().machine == "x86_64" else 277
    if libc.syscall(seccomp, 1, 0, what):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    load(LATER[sys.argv[1]])
    os.execv(sys.argv[2], sys.argv[2:])

"""`RUN --mount`: its options, to the mounts of a step."""

from __future__ import annotations

import fuzz_dockerfile

SEEDS = (
    b"type=bind,from=s,source=/a,target=/b,rw",
    b"type=cache,id=a,target=/c,sharing=locked,mode=0755,uid=1,gid=2,from=s",
    b"type=tmpfs,target=/t,size=1g",
    b"type=secret,id=a,env=B,required=true,mode=0400",
    b"type=ssh,id=default,required,target=/s",
)
WORDS = tuple(
    b"""type= bind cache tmpfs secret ssh target= source= src= dst= from= readonly rw required= sharing=
    shared private locked mode= uid= gid= size= id= env= , ,, = ../ $A ${A}""".split()
)


def target(data: bytes) -> None:
    """Two mounts of one step, divided by a zero."""
    first, zero, second = data.replace(b"\n", b" ").partition(b"\0")
    flags = b"--mount=" + first + (b" --mount=" + second if zero else b"")
    fuzz_dockerfile.target(b"#\nARG A=/x\nFROM a AS s\nWORKDIR /w\nRUN " + flags + b" true\n")

"""INCLUDE, ENV --from-file and shell-strict: files that take in files, and the plain text of them all, which
builds the same.
"""

from __future__ import annotations

import fuzz_dockerfile

from builder.errors import BuildError, ContextError
from builder.frontend.lower import PlanOptions, plan
from builder.frontend.plain import plain
from builder.frontend.reader import decode
from builder.source import SourceRange
from oci.image import Image
from oci.model import ImageConfig, Platform, RunConfig

AMD64 = Platform("linux", "amd64")
IMAGE = Image.of(ImageConfig(AMD64, RunConfig(env=("PATH=/bin",))))
HEAD = b"# pybuild=include,env-file,shell-strict\n"
SEEDS = (
    b"FROM base\nINCLUDE 1\nENV --from-file=2\nRUN x\n\0LABEL a=1 \\\n  b=2\nINCLUDE 3\n\0A=$x\n\0RUN y",
    b"ARG D=1\nINCLUDE $D\nRUN z\n\0FROM base AS s\nRUN <<-E\n\t#!/bin/sh\n\tq\n\tE",
    b"FROM base\nINCLUDE 1\n\0INCLUDE 2\n\0INCLUDE 1\n",
    b'FROM base AS x\nINCLUDE 1\nFROM x\nRUN <<EOF\nb\nEOF\n\0SHELL ["bash", "-c"]\nRUN <<A\n#!/bin/sh\nc\nA',
    b"FROM base\r\nINCLUDE ${N:-1}\r\n\0# escape=`\r\nRUN a `\r\n b\r\n",
)
WORDS = (
    *fuzz_dockerfile.WORDS,
    *b"INCLUDE|--from-file=|ENV|1|2|3|$D|${D}|A=b|export|#!/bin/sh|<<E|<<-E|\nE\n|\0|\\\n|\r\n".split(b"|"),
)


def target(data: bytes) -> None:
    """The files, divided by zeros; the first is the Dockerfile, the others are called 1, 2 and so on."""
    files = {str(number): each for number, each in enumerate(data.split(b"\0"))}

    def read_file(path: str) -> tuple[str, bytes]:
        if path not in files:
            raise ContextError("there is no such file in the context")
        return path, files[path]

    def resolve(reference: str, platform: Platform, at: SourceRange) -> Image:
        return IMAGE

    options = PlanOptions(AMD64, AMD64, build_args={"N": "2"}, read_file=read_file)
    try:
        source = decode(HEAD + files["0"], "Dockerfile")
        made = plan(source, options, resolve)
    except BuildError as error:
        assert str(error)
        assert error.at is None or error.at.excerpt()
        return
    text = plain(source, options)
    again = plan(decode(text.encode("utf-8", "surrogateescape"), "Dockerfile"), options, resolve)
    assert made.target.digest == again.target.digest, text
    assert made.config == again.config, text

"""Where Dockerfiles and contexts are, and what is said when a name is not quite right."""

# ruff: noqa: E501  (Dockerfiles are not wrapped)
from __future__ import annotations

from equality.case import Case
from judges.bases import architecture
from judges.files import Dir

_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}
_SUBDIRECTORY = "FROM busybox-test\nCOPY f d/g /all/\nRUN ! test -e /all/h\n"
_THERE = {"s/f": "f", "s/d/g": "g", "h": "h", "s/Dockerfile": _SUBDIRECTORY}

CASES = (
    Case("context-text", "FROM busybox-test\nRUN echo made > /made\nLABEL from=stdin\n", context="text"),
    Case(
        "context-git-subdirectory",
        _SUBDIRECTORY,
        files=_THERE,
        context="git",
        fragment="#main:s",
        reference="golden",
        why="Docker 20.10 says: subdir not supported yet",
        tree={"/all": Dir(), "/all/f": "f", "/all/g": "g"},
    ),
    Case(
        "context-git-query",
        _SUBDIRECTORY,
        files=_THERE,
        context="git",
        fragment="?ref=main&subdir=s",
        reference="golden",
        why="the query form is of 2025",
        tree={"/all": Dir(), "/all/f": "f", "/all/g": "g"},
    ),
    Case(
        "fails-context-git-query",
        "FROM busybox-test\n",
        context="git",
        fragment="?branches=main",
        reference="golden",
        why="the query form is of 2025",
        fails=r"branches",
    ),
    Case(
        "arg-keep-git-dir",
        "FROM busybox-test\nCOPY . /all\nRUN test -e /all/.git/HEAD && rm -r /all\n",
        context="git",
        args=("--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"),
        reference="golden",
        why="in Dockerfile 1.3",
        tree={},
    ),
    Case(
        "arg-source-date-epoch",
        "FROM busybox-test\nARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /then\n",
        args=("--build-arg", "SOURCE_DATE_EPOCH=1700000000"),
        reference="golden",
        why="it means something since BuildKit 0.11",
        tree={"/then": "1700000000\n"},
    ),
    Case(
        "containerfile",
        "FROM busybox-test\nCOPY f /\n",
        files={"f": "f"},
        dockerfile_name="Containerfile",
        reference="golden",
        why="Docker does not know the name",
        tree={"/f": "f"},
    ),
    Case(
        "run-add-host",
        "FROM busybox-test\nRUN awk '$2 ~ /box/ { print $1, $2 }' /etc/hosts > /hosts\n",
        args=("--add-host=box:10.1.2.3", "--add-host=box6:fd00::1"),
        tree={"/hosts": "10.1.2.3 box\nfd00::1 box6\n"},
    ),
    Case(
        "from-platform-by-another-name",
        f"FROM --platform=linux/{_ALIASES.get(architecture(), architecture())} busybox-test\nARG TARGETPLATFORM\nRUN echo $TARGETPLATFORM > /p\n",
        newer={"ARG TARGETPLATFORM": f"ARG TARGETPLATFORM=linux/{architecture()}"},
    ),
    Case(
        "fails-shows-the-lines",
        "FROM busybox-test\nRUN true && \\\n  false\nRUN true\n",
        fails=r"Dockerfile:2: RUN exited with 1\n   1 \|     FROM busybox-test\n   2 \| >>> RUN true && .\n   3 \| >>>   false\n   4 \|     RUN true",
    ),
    Case(
        "fails-suggests-a-mount-option",
        "FROM busybox-test\nRUN --mount=type=cache,target=/c,sharin=locked true\n",
        fails=r"Dockerfile:2: [\s\S]*sharin[\s\S]*did you mean sharing",
    ),
    Case(
        "fails-suggests-a-stage",
        "FROM busybox-test AS build\nFROM busybox-test\nCOPY --from=biuld /etc/motd /\n",
        args=("--network=none",),
        reference="golden",
        why="Docker asks a registry for an image of that name",
        fails=r"Dockerfile:3: [\s\S]*did you mean the stage build",
    ),
    Case(
        "fails-suggests-an-argument",
        "ARG BASE=busybox-test\nFROM $BSAE\n",
        fails=r"did you mean BASE\?[\s\S]*Dockerfile:2",
    ),
)

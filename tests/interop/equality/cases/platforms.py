"""Several platforms and several stages in one build: each image is held against Docker's own build of it.

Docker is asked once for each platform and stage, pybuild once for all: its images are those of one index.
"""

# ruff: noqa: E501  (Dockerfiles are not wrapped)
from __future__ import annotations

from equality.case import Case
from judges.files import Archive, File

_ALL = ("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x")
_TWO = ("linux/arm64", "linux/amd64")

_ARG = {"ARG TARGETARCH": "ARG TARGETARCH={arch}", "ARG TARGETPLATFORM": "ARG TARGETPLATFORM={platform}"}
"""What 20.10 and today write into history of a platform's arguments."""

CASES = (
    Case(
        "platforms-cross-build",
        "FROM --platform=$BUILDPLATFORM busybox-test AS build\nRUN touch /common\nARG TARGETOS TARGETARCH\n"
        "RUN echo built on $(uname -s) for $TARGETOS/$TARGETARCH > /out\n"
        'FROM scratch\nCOPY --from=build /common /out /app/\nENTRYPOINT ["/app/out"]\n',
        platforms=_ALL,
    ),
    Case(
        "platforms-all-arguments",
        "FROM --platform=$BUILDPLATFORM busybox-test AS build\n"
        "ARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT BUILDPLATFORM BUILDARCH\n"
        "RUN echo $TARGETPLATFORM,$TARGETOS,$TARGETARCH,$TARGETVARIANT,$BUILDPLATFORM,$BUILDARCH > /seen\n"
        "FROM scratch\nCOPY --from=build /seen /\n",
        platforms=_ALL,
    ),
    Case(
        "platforms-file-for-each",
        "FROM scratch\nARG TARGETARCH\nCOPY bin-$TARGETARCH /bin/program\nCOPY --chown=3:4 all /etc/all\n",
        files={"bin-arm64": File("arm", 0o755), "bin-amd64": File("amd", 0o700), "all": "x"},
        newer=_ARG | {"COPY all /etc/all # buildkit": "COPY --chown=3:4 all /etc/all # buildkit"},
        platforms=_TWO,
    ),
    Case(
        "platforms-stage-for-each",
        "FROM scratch AS one-arm64\nCOPY a /arm\nENV A=arm\nFROM scratch AS one-amd64\nCOPY a /amd\nUSER 7\n"
        "FROM one-$TARGETARCH\nCOPY a /last\n",
        files={"a": "1"},
        platforms=_TWO,
    ),
    Case(
        "platforms-in-config",
        "FROM scratch\nARG TARGETPLATFORM\nARG TARGETARCH=none\nLABEL for=$TARGETPLATFORM arch=$TARGETARCH\n"
        'ENV P=$TARGETPLATFORM\nWORKDIR /opt/$TARGETARCH\nCMD ["/run"]\nVOLUME /data/$TARGETARCH\n',
        newer=_ARG,
        platforms=_TWO,
    ),
    Case(
        "platforms-one-stage-of-a-fixed-one",
        "FROM --platform=linux/s390x scratch AS fixed\nARG TARGETARCH\nCOPY a /fixed-$TARGETARCH\n"
        "FROM scratch\nCOPY --from=fixed / /\n",
        files={"a": "1"},
        platforms=_TWO,
    ),
    Case(
        "platforms-argument-given",
        "ARG TARGETARCH\nFROM scratch AS s-mine\nCOPY a /mine\nFROM s-$TARGETARCH\nARG TARGETARCH\nCOPY a /$TARGETARCH\n",
        files={"a": "1"},
        args=("--build-arg", "TARGETARCH=mine"),
        newer={"ARG TARGETARCH": "ARG TARGETARCH=mine"},
        platforms=_TWO,
    ),
    Case(
        "platforms-archive-for-each",
        "FROM scratch\nARG TARGETARCH\nADD root-$TARGETARCH.tar /\nONBUILD COPY x /x\n",
        files={
            "root-arm64.tar": Archive({"a/arm": "1"}),
            "root-amd64.tar": Archive({"a/amd": "2", "b": File("3", 0o600, (5, 6))}),
        },
        newer=_ARG,
        platforms=_TWO,
    ),
    Case(
        "targets-side-by-side",
        'FROM busybox-test AS common\nRUN echo c > /c\nENV C=1\nFROM common AS web\nRUN cat /c > /w\nCMD ["web"]\n'
        "FROM common AS worker\nCOPY --from=web /w /k\nUSER 1000\nFROM busybox-test\nRUN echo last\n",
        targets=("web", "worker", "common"),
    ),
    Case(
        "targets-in-any-case",
        "FROM busybox-test AS first\nCOPY a /0\nFROM busybox-test AS Named\nCOPY a /1\nFROM scratch AS LAST\nCOPY --from=0 /0 /2\n",
        files={"a": "1"},
        targets=("first", "named", "Last"),
    ),
    Case(
        "targets-know-their-name",
        "FROM busybox-test AS a\nARG X=1\nRUN echo $X > /x\nFROM a AS b\nARG X\nRUN echo $X > /y\nLABEL b=$X\n",
        args=("--build-arg", "X=2"),
        newer={"ARG X=1": "ARG X=2", "ARG X": "ARG X=2"},
        targets=("a", "b"),
    ),
    Case(
        "targets-for-several-platforms",
        "FROM scratch AS one\nARG TARGETARCH\nCOPY a /one-$TARGETARCH\nFROM scratch AS two\nCOPY --from=one / /\nCOPY a /two\n",
        files={"a": "1"},
        newer=_ARG,
        targets=("one", "two"),
        platforms=_TWO,
    ),
)

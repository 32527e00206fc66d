"""What Docker refuses, and so do we, each with the line and the cause."""

# ruff: noqa: E501  (Dockerfiles and what history says of them are not wrapped)
from __future__ import annotations

from equality.case import Case

CASES = (
    Case("fails-onbuild-in-onbuild", "FROM busybox-test\nONBUILD ONBUILD RUN true\n", fails=r"Dockerfile:2: ONBUILD cannot be an ONBUILD trigger"),
    Case("fails-onbuild-from", "FROM busybox-test\nONBUILD FROM busybox-test\n", fails=r"Dockerfile:2: FROM cannot be an ONBUILD trigger"),
    Case("fails-run-exit-255", "FROM busybox-test\nRUN exit 255\n", fails=r"Dockerfile:2: RUN exited with 255"),
    Case("fails-copy-empty", "FROM busybox-test\nENV A=1\nCOPY\n", fails=r"Dockerfile:3: COPY needs a source and a destination"),
    Case("fails-copy-without-destination", "FROM busybox-test\nCOPY a\n", files={"a": ""}, fails=r"Dockerfile:2: COPY needs a destination"),
    Case("fails-env-without-value", "FROM busybox-test\nENV A\n", fails=r"Dockerfile:2: ENV `A` has no value"),
    Case("fails-env-mixed-forms", "FROM busybox-test\nENV A=1 B\n", fails=r"Dockerfile:2: ENV: `B` has no `=`"),
    Case("fails-label-without-name", "FROM busybox-test\nLABEL =x\n", fails=r"Dockerfile:2: [\s\S]*has no name"),
    Case("fails-expose-nonsense", "FROM busybox-test\nEXPOSE many\n", fails=r"Dockerfile:2: EXPOSE many: `many` is no port"),
    Case("fails-healthcheck-nonsense", "FROM busybox-test\nHEALTHCHECK SOMETIMES true\n", fails=r"Dockerfile:2: HEALTHCHECK `SOMETIMES` is neither CMD nor NONE"),
    Case("fails-healthcheck-interval", "FROM busybox-test\nHEALTHCHECK --interval=soon CMD true\n", fails=r"Dockerfile:2: --interval=soon is no duration"),
    Case("fails-escape-directive", "# escape=x\nFROM busybox-test\n", fails=r"Dockerfile:1: `x` cannot be the escape character"),
    Case("fails-directive-twice", "# escape=`\n# escape=`\nFROM busybox-test\n", fails=r"Dockerfile:2: the directive `escape` is given twice"),
    Case("fails-instruction-before-from", "RUN true\nFROM busybox-test\n", fails=r"Dockerfile:1: RUN stands before the first FROM"),
    Case("fails-from-with-too-many-words", "FROM busybox-test AS\n", fails=r"Dockerfile:1: FROM needs an image"),
    Case("fails-unclosed-brace", "FROM busybox-test\nENV A=${B\n", fails=r"Dockerfile:2: [\s\S]*never closed"),
    Case("fails-mount-unknown-type", "FROM busybox-test\nRUN --mount=type=bnid,target=/x true\n", fails=r"Dockerfile:2: --mount has no type `bnid`[\s\S]*did you mean bind"),
    Case("fails-flag-twice", "FROM busybox-test\nCOPY --chown=1 --chown=2 a /a\n", files={"a": ""}, fails=r"Dockerfile:2: --chown is given twice"),
    Case("fails-copy-from-a-stage-number", "FROM busybox-test\nCOPY --from=7 /etc/passwd /p\n", fails=r"Dockerfile:2: [\s\S]*there is no stage 7"),
    Case("fails-add-archive-over-a-file", "FROM busybox-test\nRUN echo x > /f\nCOPY a /f/b\n", files={"a": ""}, fails=r"Dockerfile:3: [\s\S]*/f is no directory"),
    Case("arg-after-env-of-the-same-name", "FROM busybox-test\nENV V=env\nARG V=arg\nRUN echo run $V > /1\nENV W=$V\n"),
    Case("arg-bare-after-env-of-the-same-name", "FROM busybox-test\nENV V=env\nARG V\nRUN echo run $V > /1\nENV W=$V\n", args=("--build-arg", "V=given"), newer={"ARG V": "ARG V=given"}),
    Case("volume-keeps-later-writes", "FROM busybox-test\nRUN mkdir /data\nVOLUME /data\nRUN echo kept > /data/f\n"),
    Case("run-sees-the-users-home", "FROM busybox-test\nUSER app\nRUN echo $HOME > /tmp/home; id -u >> /tmp/home\nUSER 4711\nRUN echo $HOME > /tmp/other\n"),
)  # fmt: skip

"""FROM in its forms, scratch, stages, --target, and COPY --from."""

# ruff: noqa: E501  (Dockerfiles and what history says of them are not wrapped)
from __future__ import annotations

from equality.case import Case
from judges.bases import CONFIGURED, PATH, TOOLS, busybox_tree, oci_layout
from judges.files import Dir, File, Link

_SEEN = 'echo "$KEPT $FIRST $PWD $(id -un)" > /tmp/seen'
_BUSYBOX = busybox_tree()["bin/busybox"]
assert isinstance(_BUSYBOX, File)

CASES = (
    Case(
        "from-tag",
        "FROM busybox-test:latest\n",
        config={},
        tree={},
        history=(),
    ),
    Case(
        "from-no-tag-any-case",
        "from busybox-test as Only\nRun echo hi > /hi\n",
        tree={"/hi": "hi\n"},
        history=("RUN /bin/sh -c echo hi > /hi # buildkit",),
    ),
    Case(
        "from-full-name",
        "FROM docker.io/library/busybox-test:latest\nENV A=b\n",
    ),
    Case(
        "from-platform",
        "FROM --platform=$BUILDPLATFORM busybox-test AS here\nFROM --platform=linux/amd64 here\nRUN uname -s > /s\n",
    ),
    Case(
        "from-scratch",
        'FROM scratch\nCOPY a /a\nCOPY d /d/\nENV X=1\nCMD ["/a"]\n',
        files={"a": File("a", 0o755), "d/b": "b", "d/e/f": "f"},
        base="scratch",
    ),
    Case(
        "from-scratch-only-config",
        'FROM scratch\nLABEL a=b\nCMD ["/none"]\nEXPOSE 80\n',
        base="scratch",
        tree={},
        config={
            "Env": [PATH],
            "WorkingDir": "/",
            "Labels": {"a": "b"},
            "Cmd": ["/none"],
            "ExposedPorts": {"80/tcp": {}},
            "ArgsEscaped": True,
        },
        history=("LABEL a=b", 'CMD ["/none"]', "EXPOSE [80/tcp]"),
        reference="golden",
        why="20.10 builds it, but `docker save` refuses an image without layers",
    ),
    Case(
        "from-scratch-then-run",
        """\
FROM scratch
COPY --from=busybox-test /bin/busybox /bin/busybox
RUN ["/bin/busybox", "mkdir", "/made"]
RUN ["/bin/busybox", "sh", "-c", "echo $PATH:$HOME > /made/env"]
""",
        base="scratch",
        stubs=("/dev", "/etc", "/proc", "/sys"),
    ),
    Case(
        "from-arg-in-name-and-tag",
        """\
ARG NAME=busybox
ARG TAG
ARG WHOLE=${NAME}-test:${TAG:-latest}
FROM ${WHOLE} AS based
FROM ${NAME}-test:$TAG
COPY --from=based /etc/motd /again
RUN echo "name=$NAME tag=$TAG whole=$WHOLE" > /seen
ARG NAME
ARG TAG=inner
RUN echo "name=$NAME tag=$TAG whole=$WHOLE" >> /seen
""",
        args=("--build-arg", "TAG=latest"),
        newer={"ARG NAME": "ARG NAME=busybox", "ARG TAG=inner": "ARG TAG=latest"},
    ),
    Case(
        "stages-by-name-and-index",
        """\
FROM busybox-test AS first
RUN mkdir /out && echo one > /out/one
FROM first AS second
RUN echo two > /out/two
FROM scratch AS third
COPY --from=second /out/two /two
FROM busybox-test
COPY --from=0 /out /from-index
COPY --from=second /out/ /from-name/
COPY --from=third / /from-scratch/
COPY --from=first /out/one /renamed
""",
    ),
    Case(
        "stages-names-any-case",
        "FROM busybox-test AS Builder\nRUN echo 1 > /1\nFROM busybox-test\nCOPY --from=bUILDER /1 /one\n",
    ),
    Case(
        "stages-inherit-config-and-args",
        """\
FROM busybox-test AS one
ARG KEPT=inherited
ENV FIRST=1
LABEL from=one
WORKDIR /work
USER app
EXPOSE 1234
VOLUME /vol
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/echo"]
CMD ["x"]
FROM one AS two
RUN echo "$KEPT $FIRST $PWD $(id -un)" > /tmp/seen
FROM two
LABEL from=three
""",
        newer={
            "EXPOSE map[1234/tcp:{}]": "EXPOSE [1234/tcp]",
            f"RUN /bin/sh -c {_SEEN} # buildkit": f"RUN |1 KEPT=inherited /bin/sh -c {_SEEN} # buildkit",
        },
    ),
    Case(
        "stages-unneeded-never-run",
        """\
FROM busybox-test AS broken
RUN exit 7
FROM busybox-test AS wanted
RUN echo ok > /ok
FROM broken
RUN echo never
""",
        args=("--target", "wanted"),
        tree={"/ok": "ok\n"},
    ),
    Case(
        "stages-same-name-as-image",
        """\
FROM busybox-test AS config-test
RUN echo mine > /mine
FROM config-test
COPY --from=config-test /mine /copied
""",
        tree={"/mine": "mine\n", "/copied": "mine\n"},
        config={},
    ),
    Case(
        "copy-from-image",
        f"FROM busybox-test\nCOPY --from={TOOLS} /bin/setcap /bin/\nCOPY --from=tools-test /opt /opt2\n",
    ),
    Case(
        "copy-from-keeps-owners-and-special-modes",
        """\
FROM busybox-test AS made
RUN mkdir /t && echo x > /t/x && chown 1000:33 /t/x && chmod 6750 /t/x && mkdir -m 1777 /t/sticky
RUN ln -s x /t/l && ln /t/x /t/same && chown -h 33:33 /t/l && chown 500:500 /t/sticky
FROM busybox-test
COPY --from=made /t /t
COPY --from=made /t/x /t/l /links/
COPY --from=made --chown=app /t /chowned
""",
        newer={"COPY /t /chowned # buildkit": "COPY --chown=app /t /chowned # buildkit"},
    ),
    Case(
        "from-configured-base-inherits",
        "FROM config-test\nRUN id -u > id; id -g >> id; pwd >> id; env | grep -E '^(FROM_BASE|LANG|HOME)=' | sort >> id\n",
        base=CONFIGURED,
        config={},
        author="base author",
    ),
    Case(
        "from-configured-base-overrides",
        """\
FROM config-test
USER root
WORKDIR /
ENV LANG=C.UTF-8 MORE=1
LABEL keep=mine new=1
EXPOSE 9090
VOLUME ["/more"]
STOPSIGNAL 9
SHELL ["/bin/sh", "-c"]
HEALTHCHECK NONE
ENTRYPOINT ["/bin/cat"]
""",
        base=CONFIGURED,
        newer={
            "EXPOSE map[9090/tcp:{}]": "EXPOSE [9090/tcp]",
            'HEALTHCHECK &{["NONE"] "0s" "0s" "0s" \'\\x00\'}': "HEALTHCHECK "
            "{Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
        },
    ),
    Case(
        "context-named-directory",
        """\
FROM busybox-test
COPY --from=lib / /lib/
COPY --from=lib sub/only.txt /only
COPY own /own
""",
        files={"own": "own\n"},
        beside={"more": {"lib.txt": "l\n", "sub/only.txt": File("o\n", 0o600), "link": Link("lib.txt")}},
        args=("--build-context", "lib={more}"),
        reference="golden",
        why="named contexts are Dockerfile 1.4",
        tree={
            "/lib": Dir(),
            "/lib/lib.txt": "l\n",
            "/lib/link": Link("lib.txt"),
            "/lib/sub": Dir(),
            "/lib/sub/only.txt": File("o\n", 0o600),
            "/only": File("o\n", 0o600),
            "/own": "own\n",
        },
        history=(
            "COPY / /lib/ # buildkit",
            "COPY sub/only.txt /only # buildkit",
            "COPY own /own # buildkit",
        ),
    ),
    Case(
        "context-named-layout",
        "FROM base AS mine\nRUN echo built > /built\nFROM mine\nCOPY --from=base /layout.txt /again\n",
        beside={
            "layout": oci_layout(
                {
                    "bin": Dir(),
                    "bin/busybox": _BUSYBOX,
                    "bin/sh": Link("busybox"),
                    "layout.txt": "l\n",
                },
                {"Env": ["L=1"], "User": "0"},
            )
        },
        args=("--build-context", "base=oci-layout://{layout}"),
        reference="golden",
        why="named contexts are Dockerfile 1.4",
        base="scratch",
        tree={
            "/bin": Dir(),
            "/bin/busybox": _BUSYBOX,
            "/bin/sh": Link("busybox"),
            "/layout.txt": "l\n",
            "/built": "built\n",
            "/again": "l\n",
        },
        config={"Env": ["L=1", PATH], "User": "0", "Cmd": None},
        history=(
            "busybox and friends",
            "RUN /bin/sh -c echo built > /built # buildkit",
            "COPY /layout.txt /again # buildkit",
        ),
    ),
    Case(
        "context-named-replaces-stage",
        "FROM nowhere/none:1 AS stage\nRUN exit 9\nFROM busybox-test\nCOPY --from=stage here.txt /\n",
        beside={"other": {"here.txt": "instead\n"}},
        args=("--build-context", "stage={other}"),
        reference="golden",
        why="named contexts are Dockerfile 1.4",
        tree={"/here.txt": "instead\n"},
        config={},
        history=("COPY here.txt / # buildkit",),
    ),
    Case(
        "fails-unknown-stage",
        "FROM busybox-test\nCOPY --from=nosuchstage /a /a\n",
        fails=r"Dockerfile:2[\s\S]*nosuchstage",
    ),
    Case(
        "fails-unknown-target",
        "FROM busybox-test AS final\n",
        args=("--target", "finale"),
        fails=r"finale[\s\S]*final",
    ),
    Case(
        "fails-copy-from-a-later-stage",
        "FROM busybox-test AS early\nCOPY --from=later /etc/motd /m\nFROM busybox-test AS later\n",
        args=("--target", "early"),
        reference="golden",
        why="20.10 builds the later stage first; today a stage has to be defined before it is copied from",
        fails=r"Dockerfile:2[\s\S]*later",
    ),
    Case(
        "fails-stages-in-a-circle",
        "FROM busybox-test AS early\nCOPY --from=later /etc/motd /m\nFROM early AS later\n",
        fails=r"Dockerfile:[123][\s\S]*early",
    ),
    Case(
        "fails-copy-from-a-variable",
        "ARG S=busybox-test\nFROM busybox-test\nARG S\nCOPY --from=$S /etc/motd /m\n",
        fails=r"Dockerfile:4[\s\S]*--from",
    ),
    Case(
        "fails-from-an-empty-name",
        "ARG NAME\nFROM $NAME\n",
        fails=r"Dockerfile:2[\s\S]*NAME",
    ),
)

"""Instructions that set the config: LABEL MAINTAINER EXPOSE CMD ENTRYPOINT VOLUME USER WORKDIR SHELL ... ONBUILD."""

# ruff: noqa: E501  (Dockerfiles and what history says of them are not wrapped)
from __future__ import annotations

from equality.case import Case
from judges.bases import CONFIGURED
from judges.files import Dir, File

_HEALTH = "HEALTHCHECK {{Test:[{test}] Interval:{times[0]} Timeout:{times[1]} StartPeriod:{times[2]} StartInterval:{times[3]} Retries:{tries}}}"


def _health(test: str, *times: str, tries: int = 0) -> str:
    return _HEALTH.format(test=test, times=times, tries=tries)


# Who a step is, without repeating the primary group: 20.10 does not list it among the supplementary ones.
_IDS = {"ids": "id -u; id -un; id -g; id -G | tr ' ' '\\n' | sort -nu | xargs\n"}

CASES = (
    Case(
        "label-forms",
        r"""FROM busybox-test
LABEL a=1 b="two words" "quoted key"="v" c=\
continued
LABEL d 'legacy value'
LABEL a=last multi="line one\
 line two" e= f="with \"quotes\"" g='$PATH' h=$PATH
LABEL org.opencontainers.image.title="x" com.example/slash=y
""",
    ),
    Case(
        "label-on-the-command-line",
        "FROM busybox-test\nLABEL a=file b=file\n",
        args=("--label", "a=line", "--label", "z=1"),
    ),
    Case(
        "maintainer",
        "FROM busybox-test\nMAINTAINER Some One <one@example.org>\nMAINTAINER  The Last <last@example.org>\n",
        author="The Last <last@example.org>",
    ),
    Case(
        "expose-forms",
        "FROM busybox-test\nEXPOSE 80 443/tcp 53/udp 9999/SCTP\nEXPOSE 7000-7003 6000-6001/udp\nEXPOSE 80\n",
        newer={
            "EXPOSE map[443/tcp:{} 53/udp:{} 80/tcp:{} 9999/sctp:{}]": "EXPOSE [443/tcp 53/udp 80/tcp 9999/sctp]",
            "EXPOSE map[6000/udp:{} 6001/udp:{} 7000/tcp:{} 7001/tcp:{} 7002/tcp:{} 7003/tcp:{}]": "EXPOSE "
            "[6000/udp 6001/udp 7000/tcp 7001/tcp 7002/tcp 7003/tcp]",
            "EXPOSE map[80/tcp:{}]": "EXPOSE [80/tcp]",
        },
    ),
    Case(
        "cmd-forms",
        """\
FROM busybox-test AS shell
CMD echo hello   "two  blanks" > /x && true
FROM shell AS exec
CMD ["echo", "a b", "say \\"hi\\"", "tab\\t", "unicode \\u00e9"]
FROM exec
CMD ['not', 'json']
""",
    ),
    Case(
        "cmd-exec-with-escapes",
        'FROM busybox-test\nCMD ["echo", "a b", "say \\"hi\\"", "tab\\t", "\\u00e9"]\n',
    ),
    Case(
        "cmd-empty",
        "FROM config-test\nCMD []\n",
        base=CONFIGURED,
    ),
    Case(
        "entrypoint-resets-inherited-cmd",
        'FROM config-test\nENTRYPOINT ["/bin/cat"]\n',
        base=CONFIGURED,
        config={"Entrypoint": ["/bin/cat"], "Cmd": None},
    ),
    Case(
        "entrypoint-keeps-own-cmd",
        'FROM config-test\nCMD ["own"]\nENTRYPOINT exec top -b\n',
        base=CONFIGURED,
        config={"Entrypoint": ["/bin/ash", "-ec", "exec top -b"], "Cmd": ["own"], "ArgsEscaped": True},
    ),
    Case(
        "entrypoint-empty-and-stage-reset",
        """\
FROM busybox-test AS a
CMD ["set", "here"]
FROM a
ENTRYPOINT []
""",
    ),
    Case(
        "volume-forms",
        """\
FROM busybox-test
VOLUME /one /two
VOLUME ["/three", "/with blank"]
VOLUME /one
RUN mkdir -p /one && echo kept > /one/kept
COPY f /three/
""",
        files={"f": "f\n"},
    ),
    Case(
        "user-names-and-groups",
        """\
FROM busybox-test
COPY ids /ids
USER app
RUN sh /ids > /tmp/1; echo $HOME >> /tmp/1; touch /tmp/mine
USER app:web
RUN sh /ids > /tmp/2; echo $HOME >> /tmp/2
USER web
RUN sh /ids > /tmp/3; echo $HOME >> /tmp/3
USER plain
RUN sh /ids > /tmp/4; touch /tmp/plain
USER root
RUN sh /ids > /tmp/5
""",
        files=_IDS,
    ),
    Case(
        "user-numbers",
        """\
FROM busybox-test
COPY ids /ids
USER 1000
RUN sh /ids > /tmp/1; echo $HOME >> /tmp/1
USER 1000:29
RUN sh /ids > /tmp/2
USER 4242
RUN sh /ids > /tmp/3; echo "[$HOME]" >> /tmp/3
USER 4242:4343
RUN sh /ids > /tmp/4
USER app:2000
RUN sh /ids > /tmp/5
USER 33:app
RUN sh /ids > /tmp/6
USER 0:0
RUN sh /ids > /tmp/7
""",
        files=_IDS,
    ),
    Case(
        "user-primary-group-is-a-supplementary-one",
        """\
FROM busybox-test
USER app
RUN grep Groups /proc/self/status > /tmp/app
USER app:33
RUN grep Groups /proc/self/status > /tmp/app-web
USER 0
RUN grep Groups /proc/self/status > /tmp/root
""",
        reference="golden",
        why="20.10 leaves the primary group out of the supplementary ones (CVE-2023-25173)",
        tree={
            "/tmp/app": File("Groups:\t29 33 1000 2000 \n", owner=(1000, 1000)),
            "/tmp/app-web": File("Groups:\t33 \n", owner=(1000, 33)),
            "/tmp/root": "Groups:\t0 \n",
        },
    ),
    Case(
        "user-large-ids",
        """\
FROM busybox-test
COPY ids /ids
USER 3000000:4000000
RUN sh /ids > /tmp/id && mkdir /tmp/d
USER 0
RUN chown 2147483646:2147483646 /tmp/id
""",
        files=_IDS,
    ),
    Case(
        "fails-user-unknown",
        "FROM busybox-test\nUSER nobody-here\nRUN id\n",
        fails=r"Dockerfile:[23][\s\S]*nobody-here",
    ),
    Case(
        "workdir-relative-and-nested",
        """\
FROM busybox-test
WORKDIR a
WORKDIR b/c
RUN pwd > where
WORKDIR "/with blank"
RUN pwd > where
WORKDIR ..
RUN pwd > where
WORKDIR /opt/dir
WORKDIR /
""",
    ),
    Case(
        "workdir-is-cleaned",
        "FROM busybox-test\nWORKDIR /x/../y//z/\nRUN pwd > where\n",
        reference="golden",
        why="20.10 makes /x on the way and keeps the path as written in the history",
        tree={"/y": Dir(), "/y/z": Dir(), "/y/z/where": "/y/z\n"},
        config={"WorkingDir": "/y/z"},
        history=("WORKDIR /y/z", "RUN /bin/sh -c pwd > where # buildkit"),
    ),
    Case(
        "workdir-owner-follows-user",
        """\
FROM busybox-test
USER app
WORKDIR /made/by/app
RUN pwd > /tmp/where && touch mine
USER 1500:33
WORKDIR /made/by/numbers
USER root
WORKDIR /made/by/root
WORKDIR /home/app/sub
""",
    ),
    Case(
        "workdir-through-symlink",
        "FROM busybox-test\nWORKDIR /opt/dirlink/new\nRUN pwd > where\nCOPY f .\nCOPY f sub/g\n",
        files={"f": "f\n"},
    ),
    Case(
        "shell-changes-what-follows",
        """\
FROM busybox-test
RUN echo $0 > /0
SHELL ["/bin/ash", "-e", "-c"]
RUN echo $- > /1; false || true
CMD run me
ENTRYPOINT start
SHELL ["/bin/busybox", "sh", "-xc"]
RUN echo x > /2
HEALTHCHECK CMD probe
""",
        newer={
            'HEALTHCHECK &{["CMD-SHELL" "probe"] "0s" "0s" "0s" \'\\x00\'}': _health(
                "CMD-SHELL probe", "0s", "0s", "0s", "0s"
            )
        },
    ),
    Case(
        "fails-shell-not-json",
        "FROM busybox-test\nSHELL /bin/sh -c\n",
        fails=r"Dockerfile:2[\s\S]*JSON",
    ),
    Case(
        "stopsignal-forms",
        "FROM busybox-test AS a\nSTOPSIGNAL SIGTERM\nFROM a\nSTOPSIGNAL 15\nSTOPSIGNAL sigusr1\nSTOPSIGNAL RTMIN+3\n",
    ),
    Case(
        "healthcheck-options",
        """\
FROM busybox-test
HEALTHCHECK --interval=5s --timeout=3s --start-period=1m30s --retries=2 CMD wget -q localhost || exit 1
HEALTHCHECK --interval=500ms CMD ["probe", "a b"]
""",
        newer={
            'HEALTHCHECK &{["CMD-SHELL" "wget -q localhost || exit 1"] "5s" "3s" "1m30s" \'\\x02\'}': _health(
                "CMD-SHELL wget -q localhost || exit 1", "5s", "3s", "1m30s", "0s", tries=2
            ),
            'HEALTHCHECK &{["CMD" "probe" "a b"] "500ms" "0s" "0s" \'\\x00\'}': _health(
                "CMD probe a b", "500ms", "0s", "0s", "0s"
            ),
        },
    ),
    Case(
        "healthcheck-start-interval",
        "FROM busybox-test\nHEALTHCHECK --start-period=10s --start-interval=2s CMD true\n",
        reference="golden",
        why="--start-interval is Dockerfile 1.6",
        tree={},
        config={
            "Healthcheck": {
                "Test": ["CMD-SHELL", "true"],
                "StartPeriod": 10000000000,
                "StartInterval": 2000000000,
            }
        },
        history=(_health("CMD-SHELL true", "0s", "0s", "10s", "2s"),),
    ),
    Case(
        "healthcheck-none",
        "FROM config-test\nHEALTHCHECK NONE\n",
        base=CONFIGURED,
        config={"Healthcheck": {"Test": ["NONE"]}},
        newer={
            'HEALTHCHECK &{["NONE"] "0s" "0s" "0s" \'\\x00\'}': _health("NONE", "0s", "0s", "0s", "0s"),
        },
    ),
    Case(
        "onbuild-recorded",
        """\
FROM busybox-test
ONBUILD RUN echo $HOME > /home.txt
ONBUILD COPY ["a b", "/x/"]
ONBUILD   ENV  A=$B
onbuild CMD ["x"]
RUN echo now > /now
""",
    ),
    Case(
        "onbuild-fires-once",
        """\
FROM onbuild-base AS child
RUN echo "own $WHO $COUNT" >> /log
FROM child
RUN echo "grandchild $WHO" >> /log
""",
        bases={
            "onbuild-base": """\
FROM busybox-test
ENV WHO=base
ONBUILD ARG COUNT=7
ONBUILD ENV WHO=trigger
ONBUILD RUN echo "trigger $WHO $COUNT" >> /log
ONBUILD COPY payload /srv/
ONBUILD WORKDIR /srv
ONBUILD USER 0:33
ONBUILD LABEL fired=yes
"""
        },
        files={"payload": "p\n"},
        newer={
            'RUN /bin/sh -c echo "grandchild $WHO" >> /log # buildkit': "RUN |1 COUNT=7 /bin/sh -c "
            'echo "grandchild $WHO" >> /log # buildkit'
        },
    ),
    Case(
        "onbuild-copy-from-stage",
        "FROM busybox-test AS assets\nRUN echo asset > /asset\nFROM onbuild-copies\nRUN cat /taken > /again\n",
        bases={"onbuild-copies": "FROM busybox-test\nONBUILD COPY --from=assets /asset /taken\n"},
        reference="golden",
        why="ONBUILD COPY --from is Dockerfile 1.11",
        tree={"/taken": "asset\n", "/again": "asset\n"},
        config={},
        history=("COPY /asset /taken # buildkit", "RUN /bin/sh -c cat /taken > /again # buildkit"),
    ),
    Case(
        "onbuild-in-a-stage-of-the-same-file",
        """\
FROM busybox-test AS parent
ONBUILD RUN echo fired > /fired
RUN echo parent > /parent
FROM parent
RUN ls /fired > /after
""",
    ),
    Case(
        "history-of-everything",
        """\
FROM busybox-test
ARG A=1
ENV E="x y"
RUN ["/bin/sh", "-c", "echo exec > /exec"]
RUN   echo   blanks   >   /blanks
RUN echo a \\
    && echo b > /b
COPY --chown=app --chmod=600 f /f
ADD f f2 /d/
WORKDIR /w
USER app
SHELL ["/bin/sh", "-ec"]
STOPSIGNAL SIGKILL
CMD ["a", "b c"]
ENTRYPOINT x y
VOLUME ["/v", "/w w"]
""",
        files={"f": "f\n", "f2": "g\n"},
        newer={"COPY f /f # buildkit": "COPY --chown=app --chmod=600 f /f # buildkit"},
    ),
)

"""ENV, ARG, scopes, predefined and platform arguments, and every `${}` operator."""

# ruff: noqa: E501  (Dockerfiles and what history says of them are not wrapped)
from __future__ import annotations

from equality.case import Case
from judges.bases import PATH, architecture

CASES = (
    Case(
        "env-forms",
        r"""FROM busybox-test
ENV legacy the  rest of   the line # is the value
ENV one=1 two="with blanks" three=a\ b four='single $one' five=
ENV quoted="say \"hi\"" mixed=a"b c"'d e' back=a\\b
ENV empty="" eq=a=b=c dollar=\$one
RUN env | grep -Ev '^(PATH|HOME|PWD|SHLVL|HOSTNAME)=' | sort > /env
""",
    ),
    Case(
        "env-value-frozen-for-the-line",
        """\
FROM busybox-test
ENV abc=hello
ENV abc=bye def=$abc
ENV ghi=$abc
RUN echo $abc $def $ghi > /seen
""",
        config={"Env": [PATH, "abc=bye", "def=hello", "ghi=bye"]},
    ),
    Case(
        "env-replaced-keeps-its-place",
        "FROM busybox-test\nENV A=1 B=2 C=3\nENV B=changed\nENV PATH=/opt:$PATH\nRUN echo $PATH > /path\n",
    ),
    Case(
        "env-across-continuations",
        """\
FROM busybox-test
ENV A=1 \\
    # a comment inside
    B="two \\
words" \\

    C=3
""",
    ),
    Case(
        "expand-operators-of-2020",
        """\
FROM busybox-test
ENV set=value empty=
ENV a=$set b=${set} c=${set:-w} d=${nope:-w} e=${empty:-w}
ENV f=${set:+w} g=${nope:+w} h=${empty:+w}x i=${nope:-${set}} j="${nope:-a b}"
ENV k=\\$set l=\\${set} m='$set' n="${set}" o=$set-$set p=$nope. q=${nope}.
ENV r=$set$empty$set s="${nope:-"quoted"}" t=${nope:-'single'}
""",
    ),
    Case(
        "expand-in-every-instruction",
        """\
FROM busybox-test
ENV d=/data f=a.txt p=8080 s=SIGUSR1 u=app l=label n=1
LABEL name.$l=$l other="$l-${n}" single='$l'
EXPOSE $p ${p:-1}/udp 9$n
VOLUME $d ["${d}/two"]
USER $u:$u
USER root
WORKDIR $d/${n}
STOPSIGNAL ${s}
COPY $f ${d}/copied-$n
ADD $f added
COPY ["$f", "json-$n"]
CMD echo $d
ENTRYPOINT ["echo", "$d"]
HEALTHCHECK CMD test $n
""",
        files={"a.txt": "a\n"},
        newer={
            "EXPOSE map[8080/tcp:{} 8080/udp:{} 91/tcp:{}]": "EXPOSE [8080/tcp 8080/udp 91/tcp]",
            'HEALTHCHECK &{["CMD-SHELL" "test $n"] "0s" "0s" "0s" \'\\x00\'}': "HEALTHCHECK "
            "{Test:[CMD-SHELL test $n] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
        },
    ),
    Case(
        "expand-operators-of-today",
        r"""FROM busybox-test
ENV p=/usr/local/bin/tool.tar.gz empty= w=banana
ENV a=${p#*/} b=${p##*/} c=${p%.*} d=${p%%.*} e=${p%/*}
ENV f=${w/an/AN} g=${w//an/AN} h=${w/b/} i=${w//a/} j=${p//\//_}
ENV k=${empty-set} l=${nope-unset} m=${empty+set} n=${nope+unset}x
ENV o=${w#ba?} p2=${w%n?} q=${w#nomatch} r=${w/b*n/X} s=${w:?must} t=${empty?may}x
ENV u=${nope:-${p##*/}} v="${w%"na"}"
""",
        reference="golden",
        why="#, ##, %, %%, /, //, and operators without a colon came with Dockerfile 1.5 to 1.7",
        tree={},
        config={
            "Env": [
                PATH,
                "p=/usr/local/bin/tool.tar.gz",
                "empty=",
                "w=banana",
                "a=usr/local/bin/tool.tar.gz",
                "b=tool.tar.gz",
                "c=/usr/local/bin/tool.tar",
                "d=/usr/local/bin/tool",
                "e=/usr/local/bin",
                "f=bANana",
                "g=bANANa",
                "h=anana",
                "i=bnn",
                "j=_usr_local_bin_tool.tar.gz",
                "k=",
                "l=unset",
                "m=set",
                "n=x",
                "o=ana",
                "p2=bana",
                "q=banana",
                "r=Xa",
                "s=banana",
                "t=x",
                "u=tool.tar.gz",
                "v=bana",
            ]
        },
    ),
    Case(
        "expand-error-operator",
        "FROM busybox-test\nENV A=${nope:?set it with --build-arg}\n",
        fails=r"Dockerfile:2[\s\S]*set it with --build-arg",
    ),
    Case(
        "expand-unknown-operator",
        "FROM busybox-test\nENV v=1\nENV A=${v:#x}\n",
        fails=r"Dockerfile:3",
    ),
    Case(
        "arg-scopes",
        """\
ARG GLOBAL=g
FROM busybox-test
RUN echo "1 ${GLOBAL:-none} ${LATER:-none}" >> /seen
ARG GLOBAL
ARG LATER=later
ARG BARE
RUN echo "2 $GLOBAL $LATER ${BARE-unset}" >> /seen
ENV LATER=env-wins
ARG LATER=again
RUN echo "3 $LATER" >> /seen
ARG GLOBAL=own
RUN echo "4 $GLOBAL" >> /seen
FROM busybox-test
COPY --from=0 /seen /seen
RUN echo "5 ${GLOBAL:-none} ${LATER:-none}" >> /seen
""",
    ),
    Case(
        "arg-env-overrides-arg",
        """\
FROM busybox-test
ARG V=default
ENV V=env-$V
RUN echo $V > /v
ARG W
ENV W=${W:-fallback}
RUN echo $W > /w
""",
        args=("--build-arg", "V=given"),
        newer={"ARG V=default": "ARG V=given"},
    ),
    Case(
        "arg-given-unused-and-empty",
        """\
FROM busybox-test
ARG A=default
ARG B=default
ARG C
RUN echo "[$A][$B][${C-unset}]" > /seen
""",
        args=("--build-arg", "A=", "--build-arg", "B=has blank", "--build-arg", "UNDECLARED=1"),
        newer={"ARG A=default": "ARG A=", "ARG B=default": "ARG B=has blank"},
    ),
    Case(
        "arg-default-uses-earlier",
        "ARG A=a\nARG B=${A}b\nFROM busybox-test\nARG B\nARG C=$B-c\nARG D=${C}d\nRUN echo $B $C $D > /seen\n",
        newer={"ARG B": "ARG B=ab"},
    ),
    Case(
        "arg-several-in-one",
        """\
FROM busybox-test
ARG A=1 B="two words" C
RUN echo "$A $B ${C-unset}" > /seen
""",
        reference="golden",
        why="one ARG with several names came after 2020's frontend",
        tree={"/seen": "1 two words unset\n"},
        config={},
        history=(
            "ARG A=1 B=two words C",
            'RUN |3 A=1 B=two words C= /bin/sh -c echo "$A $B ${C-unset}" > /seen # buildkit',
        ),
    ),
    Case(
        "arg-predefined-proxies",
        """\
FROM busybox-test
RUN env | grep -i proxy | sort > /undeclared
ARG no_proxy
RUN echo "$no_proxy" > /declared
""",
        args=(
            "--build-arg",
            "HTTP_PROXY=http://proxy.example:3128",
            "--build-arg",
            "https_proxy=http://secure.example",
            "--build-arg",
            "no_proxy=localhost",
        ),
        newer={"ARG no_proxy": "ARG no_proxy=localhost"},
    ),
    Case(
        "arg-platform",
        """\
FROM busybox-test
RUN echo "[$TARGETPLATFORM][$TARGETOS][$TARGETARCH][$BUILDPLATFORM]" > /undeclared
ARG TARGETPLATFORM
ARG TARGETOS
ARG TARGETARCH
ARG TARGETVARIANT
ARG BUILDPLATFORM
ARG BUILDOS
ARG BUILDARCH
ARG BUILDVARIANT
RUN echo "$TARGETPLATFORM $TARGETOS $TARGETARCH ${TARGETVARIANT-none}" > /target
RUN echo "$BUILDPLATFORM $BUILDOS $BUILDARCH ${BUILDVARIANT-none}" > /build
""",
        newer={
            "ARG TARGETPLATFORM": f"ARG TARGETPLATFORM=linux/{architecture()}",
            "ARG TARGETOS": "ARG TARGETOS=linux",
            "ARG TARGETARCH": f"ARG TARGETARCH={architecture()}",
            "ARG TARGETVARIANT": "ARG TARGETVARIANT=",
            "ARG BUILDPLATFORM": f"ARG BUILDPLATFORM=linux/{architecture()}",
            "ARG BUILDOS": "ARG BUILDOS=linux",
            "ARG BUILDARCH": f"ARG BUILDARCH={architecture()}",
            "ARG BUILDVARIANT": "ARG BUILDVARIANT=",
        },
    ),
    Case(
        "arg-platform-declared-globally",
        "ARG TARGETARCH\nARG TARGETOS\nFROM --platform=$TARGETOS/$TARGETARCH busybox-test\nARG TARGETARCH\n"
        "RUN echo $TARGETARCH > /arch\n",
        reference="golden",
        why="20.10 takes a global ARG without a default as empty; since then it leaves the value that is there",
        tree={"/arch": f"{architecture()}\n"},
        config={},
        history=(
            f"ARG TARGETARCH={architecture()}",
            f"RUN |1 TARGETARCH={architecture()} /bin/sh -c echo $TARGETARCH > /arch # buildkit",
        ),
    ),
    Case(
        "arg-targetstage",
        "FROM busybox-test AS named\nARG TARGETSTAGE\nRUN echo $TARGETSTAGE > /stage\n",
        reference="golden",
        why="TARGETSTAGE is younger than 2020",
        tree={"/stage": "named\n"},
        config={},
        history=(
            "ARG TARGETSTAGE=named",
            "RUN |1 TARGETSTAGE=named /bin/sh -c echo $TARGETSTAGE > /stage # buildkit",
        ),
    ),
    Case(
        "arg-quoted-defaults",
        'FROM busybox-test\nARG A="two words"\nARG B=\'single\'\nARG C=a\\ b\nRUN echo "$A|$B|$C" > /seen\n',
    ),
)

"""The text itself: directives, comments, continuations, line ends, quoting."""

# ruff: noqa: E501  (Dockerfiles and what history says of them are not wrapped)
from __future__ import annotations

from equality.case import Case

CASES = (
    Case(
        "syntax-comments-and-continuations",
        """\
# a comment first
   # an indented one

FROM busybox-test
RUN echo one \\
# a comment in the middle
   # and an indented one
    two \\

    three > /1
   RUN    echo "# not a comment" # but this is the shell's > /2 ; echo x > /2
RUN echo a\\
b > /3
ENV A=x#y B="# z"
RUN echo 'single \\
quoted' > /4
LABEL a=b # this=is an argument
""".replace("LABEL a=b # this=is an argument\n", "LABEL a=b\n"),
    ),
    Case(
        "syntax-escape-directive",
        """\
# escape=`
FROM busybox-test
ENV A=a` b B=\\x C=`$A
RUN echo one `
    two > /1
RUN echo "back\\slash" > /2
LABEL a=one`
two
CMD ["echo", "a\\\\b"]
""",
    ),
    Case(
        "syntax-directive-after-comment-is-a-comment",
        "# plain comment\n# escape=`\nFROM busybox-test\nRUN echo one \\\n  two > /1\n",
    ),
    Case(
        "syntax-windows-line-ends",
        b'FROM busybox-test\r\nENV A=b\r\nRUN echo one \\\r\n  two > /1\r\nCMD ["x"]\r\n',
    ),
    Case(
        "syntax-byte-order-mark",
        b"\xef\xbb\xbfFROM busybox-test\nENV A=b\n",
    ),
    Case(
        "syntax-no-newline-at-the-end",
        "FROM busybox-test\nRUN echo end > /end",
    ),
    Case(
        "syntax-json-or-shell",
        """\
FROM busybox-test
RUN ["echo", 'mixed'] || true
RUN [ "a" = "a" ] && echo test > /test
RUN [ -d /opt ] && echo yes > /yes
CMD [ "spaced" , "list" ]
ENTRYPOINT ["trailing",]
""",
    ),
    Case(
        "syntax-unicode",
        'FROM busybox-test\nENV NAME="Zoë ☃" EMOJI=😀\nLABEL ключ=значение\nRUN echo "$NAME" > /ünï\nCMD ["é"]\n',
    ),
    Case(
        "syntax-tabs-and-case",
        "\tfrom\tbusybox-test\n\trun\techo\ttabs > /1\neNv A=1\ncMd echo hi\nworkDIR /w\n",
    ),
    Case(
        "syntax-syntax-directive-ignored",
        "#syntax=docker/dockerfile:1\nFROM busybox-test\nRUN echo ok > /ok\n",
        reference="golden",
        why="Docker would pull the frontend image",
        tree={"/ok": "ok\n"},
        config={},
        history=("RUN /bin/sh -c echo ok > /ok # buildkit",),
    ),
    Case(
        "syntax-long-lines",
        f"FROM busybox-test\nENV LONG={'x' * 20000}\nRUN echo ${{#LONG}} {'y ' * 3000} | wc -c > /n\n",
    ),
    Case(
        "fails-unknown-instruction",
        "FROM busybox-test\nRUM echo typo\n",
        fails=r"Dockerfile:2[\s\S]*RUM[\s\S]*RUN",
    ),
    Case(
        "fails-no-from",
        "RUN echo x\n",
        fails=r"Dockerfile:1[\s\S]*FROM",
    ),
    Case(
        "fails-unknown-flag",
        "FROM busybox-test\nCOPY --chwon=app a /a\n",
        files={"a": "a"},
        fails=r"Dockerfile:2[\s\S]*chwon[\s\S]*chown",
    ),
)

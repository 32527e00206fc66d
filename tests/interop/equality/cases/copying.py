"""COPY (and ADD of plain files): sources, destinations, links, owners, modes, names."""

# ruff: noqa: E501  (Dockerfiles and what history says of them are not wrapped)
from __future__ import annotations

from equality.case import Case
from judges.files import Dir, Fifo, File, Files, Hard, Link

_LONG = "n" * 200
_TREE: Files = {
    "d/a": "a\n",
    "d/run": File("#!/bin/sh\n", 0o755),
    "d/secret": File("s\n", 0o600),
    "d/ro": File("r\n", 0o444),
    "d/sub": Dir(0o700),
    "d/sub/b": "b\n",
    "d/sub/empty": Dir(0o1777),
    "d/.hidden": "h\n",
    "d/link": Link("a"),
    "d/dirlink": Link("sub"),
    "d/broken": Link("no/where"),
    "d/abs": Link("/etc/passwd"),
}


def _flagged(flags: str, words: str, instruction: str = "COPY") -> dict[str, str]:
    """20.10's history leaves the flags out."""
    return {f"{instruction} {words} # buildkit": f"{instruction} {flags} {words} # buildkit"}


CASES = (
    Case(
        "copy-file-destinations",
        """\
FROM busybox-test
COPY f /new
COPY f /newdir/
COPY f /deep/er/and/renamed
COPY f /opt/dir
COPY f /opt/dir/
COPY f /opt/dir/a
COPY f relative
COPY f .
WORKDIR /w
COPY f ./
COPY f sub/
COPY /f ../up
COPY ./x/../f dotted
""",
        files={"f": File("f\n", 0o640), "x/y": ""},
    ),
    Case(
        "copy-directory-contents",
        """\
FROM busybox-test
COPY d /new
COPY d/ /new/slash/
COPY d /opt/dir
COPY d/sub /opt/dir/
COPY d/. /dot
COPY d/sub/../sub /parent
""",
        files=_TREE,
    ),
    Case(
        "copy-everything",
        "FROM busybox-test\nCOPY . /all\nCOPY . .\n",
        files={"a": "a", "d/b": "b", "e": Dir(0o711), ".dot": "dot", "d/l": Link("../a")},
        dockerfile_name="Dockerfile",
    ),
    Case(
        "copy-several-sources",
        'FROM busybox-test\nCOPY a b d /many/\nCOPY ["a", "with blank", "/x y/"]\nADD a d/c e /opt/dir/\n',
        files={"a": "a", "b": "b", "d/c": "c", "d/s/t": "t", "with blank": "w", "e/f": "f"},
    ),
    Case(
        "copy-globs",
        """\
FROM busybox-test
COPY *.txt /txt/
COPY d?/[ab]* /ab/
COPY d1/* /flat/
COPY [!c]1/x /not-c/
COPY d*/x.txt /last-wins/
COPY missing*.txt one.txt* /optional/
COPY [[]odd]*.md /odd/
COPY \\[odd\\]*.md /no-such/
COPY d*/deep/*/z /z/
""".replace("[!c]1", "[^c]1"),
        files={
            "one.txt": "1",
            "two.txt": "2",
            "three.md": "3",
            "d1/a": "a",
            "d1/b/x": "x",
            "d1/b/y/z": "z",
            "d1/x": "d1x",
            "d2/ab": "ab",
            "d2/c": "c",
            "d2/x": "d2x",
            "d1/x.txt": "d1",
            "d2/x.txt": "d2",
            "d1/deep/q/z": "z",
            "[odd]name.md": "odd",
        },
    ),
    Case(
        "copy-sources-that-are-links",
        """\
FROM busybox-test
COPY d/link /from-link
COPY d/link /into/
COPY d/dirlink /from-dirlink
COPY d/dirlink/b /through
COPY d /tree
COPY link* /globbed/
""",
        files={**_TREE, "link-top": Link("d/a"), "link-dir": Link("d/sub")},
    ),
    Case(
        "copy-links-stay-inside-the-context",
        "FROM busybox-test\nCOPY up/a /up\nCOPY abs/a /abs\n",
        files={"d/a": "inside\n", "s/up": Dir(), "up": Link("../../../../d"), "abs": Link("/d")},
    ),
    Case(
        "copy-over-symlinked-destinations",
        """\
FROM busybox-test
COPY f /opt/dirlink/
COPY f /opt/dirlink/renamed
COPY f /opt/abslink/abs
COPY d /opt/dirlink
COPY d /opt/abslink/into/
COPY f /opt/filelink
COPY f /opt/dangling
""",
        files={"f": "f\n", "d/x": "x\n"},
    ),
    Case(
        "copy-links-of-the-source-over-what-is-there",
        """\
FROM busybox-test
COPY over /opt
RUN ls -l /opt > /listing.txt && rm /listing.txt
""",
        files={"over/one": Link("dir/b"), "over/filelink": "now a file\n", "over/dir/a": Link("b")},
    ),
    Case(
        "copy-merges-directory-modes",
        "FROM busybox-test\nCOPY t /\nCOPY t/var /opt/dir/deep\n",
        files={
            "t/var": Dir(0o711),
            "t/var/data": Dir(0o700),
            "t/var/data/x": "x",
            "t/tmp": Dir(0o755),
            "t/tmp/y": "y",
            "t/new": Dir(0o2750),
        },
    ),
    Case(
        "copy-chown-names-and-ids",
        """\
FROM busybox-test
COPY --chown=app f /1
COPY --chown=app:web f /2
COPY --chown=1000 f /3
COPY --chown=1000:29 f /4
COPY --chown=:web f /5
COPY --chown=4242:4343 d /6
COPY --chown=web d /made/on/the/way/
COPY --chown=0:extra f /8
COPY --chown=plain d /opt/dir
ARG WHO=app
COPY --chown=$WHO:${WHO} f /10
ADD --chown=3000000:4000000 f /11
USER app
COPY f /tmp/not-by-user
""",
        files={
            "f": File("f\n", 0o4755, (500, 500)),
            "d/x": "x",
            "d/s/y": File("y", 0o600, (7, 7)),
            "d/l": Link("x"),
        },
        newer={
            **_flagged("--chown=app", "f /1"),
            **_flagged("--chown=app:web", "f /2"),
            **_flagged("--chown=1000", "f /3"),
            **_flagged("--chown=1000:29", "f /4"),
            **_flagged("--chown=:web", "f /5"),
            **_flagged("--chown=4242:4343", "d /6"),
            **_flagged("--chown=web", "d /made/on/the/way/"),
            **_flagged("--chown=0:extra", "f /8"),
            **_flagged("--chown=plain", "d /opt/dir"),
            **_flagged("--chown=app:app", "f /10"),
            **_flagged("--chown=3000000:4000000", "f /11", "ADD"),
        },
    ),
    Case(
        "copy-chown-from-the-target-image",
        """\
FROM busybox-test AS other
RUN sed -i s/1000/7777/g /etc/passwd /etc/group
FROM busybox-test
RUN echo late:x:5555:66::/: >> /etc/passwd && echo lategroup:x:5556: >> /etc/group
COPY --from=other --chown=app:app /etc/motd /1
COPY --chown=late f /2
COPY --chown=late:lategroup f /3
""",
        files={"f": "f"},
        newer={
            **_flagged("--chown=app:app", "/etc/motd /1"),
            **_flagged("--chown=late", "f /2"),
            **_flagged("--chown=late:lategroup", "f /3"),
        },
    ),
    Case(
        "fails-chown-unknown-user",
        "FROM busybox-test\nCOPY --chown=stranger f /f\n",
        reference="golden",
        why="BuildKit quietly takes 0:0 where the reference manual promises that the build fails",
        files={"f": "f"},
        fails=r"Dockerfile:2[\s\S]*stranger",
    ),
    Case(
        "fails-chown-name-in-scratch",
        "FROM scratch\nCOPY --chown=app f /f\n",
        files={"f": "f"},
        base="scratch",
        fails=r"Dockerfile:2[\s\S]*app",
    ),
    Case(
        "copy-chown-ids-in-scratch",
        "FROM scratch\nCOPY --chown=12:34 f d /x/\n",
        files={"f": "f", "d/g": "g"},
        base="scratch",
        newer=_flagged("--chown=12:34", "f d /x/"),
    ),
    Case(
        "copy-chown-root-in-scratch",
        "FROM scratch\nCOPY --chown=root f /1\nCOPY --chown=root:34 f /2\nCOPY --chown=12:root f /3\n",
        files={"f": "f"},
        base="scratch",
        newer={
            **_flagged("--chown=root", "f /1"),
            **_flagged("--chown=root:34", "f /2"),
            **_flagged("--chown=12:root", "f /3"),
        },
    ),
    Case(
        "copy-chown-root-is-0",
        """\
FROM busybox-test
RUN sed -i '/^root:/d' /etc/passwd; echo root:x:77:78:root:/:/bin/sh >> /etc/passwd; echo root:x:79: > /etc/group
COPY --chown=root:root f /f
""",
        files={"f": "f"},
        newer=_flagged("--chown=root:root", "f /f"),
    ),
    Case(
        "copy-chmod-octal",
        """\
FROM busybox-test
COPY --chmod=600 f /1
COPY --chmod=0511 f /2
COPY --chmod=0644 --chown=app f /3
ADD --chmod=777 f /5/
""",
        files={"f": "f"},
        newer={
            **_flagged("--chmod=600", "f /1"),
            **_flagged("--chmod=0511", "f /2"),
            **_flagged("--chown=app --chmod=0644", "f /3"),
            **_flagged("--chmod=777", "f /5/", "ADD"),
        },
    ),
    Case(
        "copy-chmod-special-bits",
        "FROM busybox-test\nCOPY --chmod=4755 f /1\nCOPY --chmod=644 f /2\nCOPY --chmod=1777 f /3\n",
        files={"f": File("f", 0o2750)},
        reference="golden",
        why="20.10 changes the nine permission bits only; its successors set all twelve",
        tree={"/1": File("f", 0o4755), "/2": File("f", 0o644), "/3": File("f", 0o1777)},
        config={},
        history=(
            "COPY --chmod=4755 f /1 # buildkit",
            "COPY --chmod=644 f /2 # buildkit",
            "COPY --chmod=1777 f /3 # buildkit",
        ),
    ),
    Case(
        "copy-chmod-directories",
        "FROM busybox-test\nCOPY --chmod=750 d /new/\nCOPY --chmod=0711 d/s /opt/dir/\n",
        files={"d/x": File("x", 0o600), "d/s": Dir(0o700), "d/s/y": File("y", 0o444)},
        newer={
            **_flagged("--chmod=750", "d /new/"),
            **_flagged("--chmod=0711", "d/s /opt/dir/"),
        },
    ),
    Case(
        "copy-chmod-symbolic",
        """\
FROM busybox-test
COPY --chmod=+x f /1
COPY --chmod=u=rwX,go=rX d /2/
COPY --chmod=go-rwx d /3/
COPY --chmod=g=u f /4
COPY --chmod=u+s,g+s,o= x /5
COPY --chmod=a=r,+t d/s /6/
""",
        files={
            "f": File("f", 0o640),
            "x": File("x", 0o755),
            "d/r": File("r", 0o600),
            "d/e": File("e", 0o710),
            "d/s": Dir(0o700),
            "d/s/y": File("y", 0o666),
        },
        reference="golden",
        why="symbolic modes are Dockerfile 1.14",
        tree={
            "/1": File("f", 0o751),
            "/2": Dir(0o755),
            "/2/r": File("r", 0o644),
            "/2/e": File("e", 0o755),
            "/2/s": Dir(0o755),
            "/2/s/y": File("y", 0o644),
            "/3": Dir(0o755),
            "/3/r": File("r", 0o600),
            "/3/e": File("e", 0o700),
            "/3/s": Dir(0o700),
            "/3/s/y": File("y", 0o600),
            "/4": File("f", 0o660),
            "/5": File("x", 0o6750),
            "/6": Dir(0o755),
            "/6/y": File("y", 0o1444),
        },
        config={},
    ),
    Case(
        "fails-chmod-nonsense",
        "FROM busybox-test\nCOPY --chmod=99999 f /f\n",
        files={"f": "f"},
        reference="golden",
        why="20.10 takes any number",
        fails=r"Dockerfile:2[\s\S]*99999",
    ),
    Case(
        "copy-hard-links",
        "FROM busybox-test\nCOPY d /d\nCOPY d/one /single\n",
        files={"d/one": "one inode\n", "d/two": Hard("d/one"), "d/sub/three": Hard("d/one")},
    ),
    Case(
        "copy-named-pipes",
        "FROM busybox-test AS made\nRUN mkfifo -m 600 /p && chown app /p\nFROM busybox-test\nCOPY d /d\nCOPY --from=made /p /p\n",
        files={"d/pipe": Fifo(0o620)},
        reference="golden",
        why="20.10 leaves pipes out without a word; its successors copy them",
        tree={"/d": Dir(), "/d/pipe": Fifo(0o620), "/p": Fifo(0o600, (1000, 0))},
        config={},
    ),
    Case(
        "copy-capabilities-between-stages",
        "FROM tools-test AS made\nRUN cp /bin/busybox /c && setcap cap_net_raw+ep /c && mkdir /d && cp /c /d/lost\n"
        "FROM busybox-test\nCOPY --from=made /c /c\nCOPY --from=made --chown=app /c /d /owned/\n",
        newer=_flagged("--chown=app", "/c /d /owned/"),
    ),
    Case(
        "copy-xattrs-and-capabilities",
        "FROM busybox-test\nCOPY capable /capable\n",
        # cap_net_bind_service=ep, as the kernel stores revision 2 (linux/capability.h)
        files={
            "capable": File(
                "c\n", 0o755, xattrs={"security.capability": bytes.fromhex("0100000200040000" + "00" * 12)}
            )
        },
    ),
    Case(
        "copy-odd-names",
        """\
FROM busybox-test
COPY odd /odd
COPY ["odd/with blank", "odd/*star*", "/picked/"]
COPY odd/quo* odd/ünïcode /picked/
""",
        files={
            "odd/with blank": "1",
            "odd/new\nline": "2",
            "odd/ünïcode": "3",
            "odd/*star*": "4",
            'odd/quo"te': "5",
            "odd/back\\slash": "6",
            f"odd/{_LONG}": "7",
            f"odd/deep/{_LONG}": "8",
            "odd/-dash": "9",
            "odd/caf\udce9": "10",
            "odd/.wh": "11",
            "odd/#hash": "12",
            "odd/$dollar": "13",
            "odd/e\u0301": "14",
        },
    ),
    Case(
        "copy-long-paths-and-links",
        "FROM busybox-test\nCOPY d /d\n",
        files={
            "/".join(["d", *["p" * 100] * 5, "file"]): "deep",
            "d/long": Link("/".join(["t" * 90] * 6)),
            f"d/{'q' * 99}/{'r' * 155}": "ustar prefix",
            "d/" + "é" * 100: "200 bytes",
        },
    ),
    Case(
        "copy-large-and-empty",
        "FROM busybox-test\nCOPY big empty /\n",
        files={"big": File(bytes(range(256)) * 20000), "empty": ""},
    ),
    Case(
        "copy-replaces-what-the-image-had",
        "FROM busybox-test\nCOPY opt /opt/\nCOPY motd /etc/motd\nCOPY motd /etc/motd\n",
        files={"opt/one": File("new\n", 0o600), "opt/setuid": "plain\n", "motd": "again\n"},
    ),
    Case(
        "fails-directory-over-file",
        "FROM busybox-test\nCOPY d /etc/motd\n",
        files={"d/x": "x"},
        fails=r"Dockerfile:2",
    ),
    Case(
        "fails-file-through-file",
        "FROM busybox-test\nCOPY f /etc/motd/below\n",
        files={"f": "f"},
        fails=r"Dockerfile:2",
    ),
    Case(
        "fails-missing-source",
        "FROM busybox-test\nCOPY notthere /x\n",
        files={"there": ""},
        fails=r"Dockerfile:2[\s\S]*notthere",
    ),
    Case(
        "copy-glob-without-match",
        "FROM busybox-test\nCOPY *.nothing /x/\nCOPY *.nothing f /y/\n",
        files={"f": "f"},
    ),
    Case(
        "copy-several-sources-into-the-current-directory",
        "FROM busybox-test\nWORKDIR /w\nCOPY a b .\nCOPY a* b ..\nADD a b ./\n",
        files={"a": "a", "b": "b"},
    ),
    Case(
        "fails-several-sources-to-a-file",
        "FROM busybox-test\nCOPY a b /x\n",
        files={"a": "", "b": ""},
        reference="golden",
        why="BuildKit writes the file /x twice; the reference manual asks for a destination that ends with /",
        fails=r"Dockerfile:2: when using COPY with more than one source file, the destination must be a directory and end with a /",
    ),
    Case(
        "copy-cannot-leave-the-context",
        "FROM busybox-test\nCOPY ../../f /f\nCOPY /../../d/g /g\n",
        files={"f": "the context's own\n", "d/g": "g"},
    ),
    Case(
        "copy-heredocs",
        """\
FROM busybox-test
ARG WHO=world
COPY <<EOF /plain.txt
hello $WHO ${NOPE:-fallback}
  \\$kept
EOF
COPY <<"EOF" /quoted.txt
hello $WHO \\$kept
EOF
COPY <<-EOT /tabs.txt
	one
		two $WHO
	EOT
COPY --chmod=755 --chown=app <<A <<'B' /two/
a=$WHO
A
b=$WHO
B
COPY <<name.txt f /mixed/
named
name.txt
ADD <<EMPTY /empty
EMPTY
""",
        files={"f": "f\n"},
        reference="golden",
        why="heredocs are Dockerfile 1.4",
        tree={
            "/plain.txt": "hello world fallback\n  $kept\n",
            "/quoted.txt": "hello $WHO \\$kept\n",
            "/tabs.txt": "one\ntwo world\n",
            "/two": Dir(0o755, (1000, 1000)),
            "/two/A": File("a=world\n", 0o755, (1000, 1000)),
            "/two/B": File("b=$WHO\n", 0o755, (1000, 1000)),
            "/mixed": Dir(),
            "/mixed/name.txt": "named\n",
            "/mixed/f": "f\n",
            "/empty": "",
        },
        config={},
        history=(
            "ARG WHO=world",
            "COPY <<EOF /plain.txt # buildkit",
            "COPY <<EOF /quoted.txt # buildkit",
            "COPY <<EOT /tabs.txt # buildkit",
            "COPY --chown=app --chmod=755 <<A <<B /two/ # buildkit",
            "COPY f <<name.txt /mixed/ # buildkit",
            "ADD <<EMPTY /empty # buildkit",
        ),
    ),
)

"""Contexts from elsewhere, ADD of URLs, and the flags of COPY that are younger than Docker 20.10."""

# ruff: noqa: E501  (Dockerfiles and what history says of them are not wrapped)
from __future__ import annotations

from equality.case import Case
from judges.files import Archive, Dir, File, Files, Link, pack_tree

_WEB: Files = {"d/f.txt": "content\n", "a.tar.gz": Archive({"member": "m\n"}, "gz"), "x y": "blank\n"}
_FILES: Files = {
    "a.txt": "a\n",
    "run.sh": File("#!/bin/sh\n", 0o755),
    "d": Dir(),
    "d/x": "x\n",
    "d/s/y": "y\n",
    "link": Link("d/x"),
}
_TREE: Files = {
    "x": Dir(0o711),
    "x/a.txt": "1",
    "x/b.md": "2",
    "y/deep": Dir(0o750),
    "y/deep/c.txt": "3",
    "y/deep/d.md": "4",
    "z.txt": "5",
}
_PARENTS = "--parents is Dockerfile 1.20"
_EXCLUDE = "--exclude is Dockerfile 1.19"
_LINK = "--link is Dockerfile 1.4"

CASES = (
    Case(
        "add-url",
        "FROM busybox-test\nADD {web}/d/f.txt /in/\nADD {web}/d/f.txt /opt\nADD {web}/d/f.txt /as\nADD {web}/d/f.txt?q=1 new/\n",
        web=_WEB,
    ),
    Case("add-url-archive-stays-packed", "FROM busybox-test\nADD {web}/a.tar.gz /kept/\n", web=_WEB),
    Case("add-url-name-is-unquoted", "FROM busybox-test\nADD {web}/x%20y /\n", web=_WEB),
    Case(
        "add-url-chown",
        "FROM busybox-test\nADD --chown=app:33 {web}/d/f.txt /made/\n",
        web=_WEB,
        newer={"ADD {web}/d/f.txt /made/ # buildkit": "ADD --chown=app:33 {web}/d/f.txt /made/ # buildkit"},
    ),
    Case(
        "add-url-several",
        "FROM busybox-test\nADD {web}/d/f.txt a.txt {web}/a.tar.gz /m/\n",
        files=_FILES,
        web=_WEB,
    ),
    Case("add-url-through-a-link", "FROM busybox-test\nRUN ln -s /srv /l\nADD {web}/d/f.txt /l/\n", web=_WEB),
    Case(
        "add-url-with-variables", "FROM busybox-test\nARG N=f.txt\nENV D=/v/\nADD {web}/d/$N $D\n", web=_WEB
    ),
    Case(
        "fails-add-url-missing",
        "FROM busybox-test\nADD {web}/gone /f\n",
        web=_WEB,
        fails=r"Dockerfile:2[\s\S]*404",
    ),
    Case(
        "fails-copy-url",
        "FROM busybox-test\nCOPY {web}/d/f.txt /f\n",
        web=_WEB,
        fails=r"Dockerfile:2[\s\S]*ADD takes URLs",
    ),
    Case(
        "add-url-unpack",
        "FROM busybox-test\nADD --unpack {web}/a.tar.gz /u/\nADD --unpack=false l.tar /k/\nADD --unpack {web}/d/f.txt /u/\n",
        files={"l.tar": Archive({"l": "l\n"})},
        web=_WEB,
        reference="golden",
        why="--unpack is Dockerfile 1.17",
        tree={
            "/u": Dir(),
            "/u/member": "m\n",
            "/u/f.txt": File("content\n", 0o600),
            "/k": Dir(),
            "/k/l.tar": File(pack_tree({"l": "l\n"})),
        },
        config={},
    ),
    Case(
        "fails-add-url-checksum",
        f"FROM busybox-test\nADD --checksum=sha256:{'0' * 64} {{web}}/d/f.txt /f\n",
        web=_WEB,
        reference="golden",
        why="--checksum is Dockerfile 1.6",
        fails=r"Dockerfile:2[\s\S]*expected sha256:0000",
    ),
    Case(
        "context-stdin", "FROM busybox-test\nCOPY . /all\nADD d/s run.sh /s/\n", files=_FILES, context="stdin"
    ),
    Case("context-url", "FROM busybox-test\nCOPY . /all\nCOPY link d/x* /s/\n", files=_FILES, context="url"),
    Case(
        "context-git", "FROM busybox-test\nCOPY . /all\nCOPY run.sh d/s/y /s/\n", files=_FILES, context="git"
    ),
    Case(
        "context-git-has-no-git",
        "FROM busybox-test\nCOPY . /all\nRUN ! test -e /all/.git\n",
        files=_FILES,
        context="git",
    ),
    Case(
        "copy-link",
        "FROM busybox-test\nRUN ln -s /srv /l\nCOPY --link f d /l/x/\nCOPY --link --chown=7:8 f /tmp/f\nCOPY --link f /opt\n",
        files={"f": "f", "d/g": "g"},
        reference="golden",
        why=_LINK,
        tree={
            "/l": Dir(),
            "/l/x": Dir(),
            "/l/x/f": "f",
            "/l/x/g": "g",
            "/tmp": Dir(0o755, (7, 8)),
            "/tmp/f": File("f", 0o644, (7, 8)),
            "/opt": "f",
        },
        config={},
    ),
    Case(
        "copy-parents",
        "FROM busybox-test\nCOPY --parents ./x/a.txt y/deep /1/\nCOPY --parents y/./deep/*.txt /2/\nCOPY --parents ./**/*.md /3/\nCOPY --parents nothing* /4/\n",
        files=_TREE,
        reference="golden",
        why=_PARENTS,
        tree={
            "/1": Dir(),
            "/1/x": Dir(0o711),
            "/1/x/a.txt": "1",
            "/1/y": Dir(),
            "/1/y/deep": Dir(0o750),
            "/1/y/deep/c.txt": "3",
            "/1/y/deep/d.md": "4",
            "/2": Dir(),
            "/2/deep": Dir(0o750),
            "/2/deep/c.txt": "3",
            "/3": Dir(),
            "/3/x": Dir(0o711),
            "/3/x/b.md": "2",
            "/3/y": Dir(),
            "/3/y/deep": Dir(0o750),
            "/3/y/deep/d.md": "4",
        },
        config={},
        history=(
            "COPY --parents ./x/a.txt y/deep /1/ # buildkit",
            "COPY --parents y/./deep/*.txt /2/ # buildkit",
            "COPY --parents ./**/*.md /3/ # buildkit",
            "COPY --parents nothing* /4/ # buildkit",
        ),
    ),
    Case(
        "copy-parents-from-a-stage",
        "FROM busybox-test AS s\nCOPY . /src/app\nFROM busybox-test\nCOPY --parents --chown=1:2 --from=s /src/./app/y /out/\n",
        files=_TREE,
        reference="golden",
        why=_PARENTS,
        tree={
            "/out": Dir(0o755, (1, 2)),
            "/out/app": Dir(0o755, (1, 2)),
            "/out/app/y": Dir(0o755, (1, 2)),
            "/out/app/y/deep": Dir(0o750, (1, 2)),
            "/out/app/y/deep/c.txt": File("3", 0o644, (1, 2)),
            "/out/app/y/deep/d.md": File("4", 0o644, (1, 2)),
        },
        config={},
    ),
    Case(
        "fails-copy-parents-missing",
        "FROM busybox-test\nCOPY --parents x/gone /1/\n",
        files=_TREE,
        reference="golden",
        why=_PARENTS,
        fails=r"Dockerfile:2[\s\S]*x/gone",
    ),
    Case(
        "copy-exclude",
        "FROM busybox-test\nCOPY --exclude=**/*.md --exclude=x/a* . /1/\nCOPY --exclude=deep --exclude=!deep/c.txt y /2/\nADD --exclude=*.txt z.txt x /3/\n",
        files=_TREE,
        reference="golden",
        why=_EXCLUDE,
        tree={
            "/1": Dir(),
            "/1/Dockerfile": "FROM busybox-test\nCOPY --exclude=**/*.md --exclude=x/a* . /1/\nCOPY --exclude=deep --exclude=!deep/c.txt y /2/\nADD --exclude=*.txt z.txt x /3/\n",
            "/1/x": Dir(0o711),
            "/1/y": Dir(),
            "/1/y/deep": Dir(0o750),
            "/1/y/deep/c.txt": "3",
            "/1/z.txt": "5",
            "/2": Dir(),
            "/2/deep": Dir(0o750),
            "/2/deep/c.txt": "3",
            "/3": Dir(),
            "/3/b.md": "2",
        },
        config={},
        history=("COPY . /1/ # buildkit", "COPY y /2/ # buildkit", "ADD z.txt x /3/ # buildkit"),
    ),
    Case(
        "copy-if-exists",
        "FROM busybox-test\nCOPY --if-exists gone z.txt /1/\nCOPY --if-exists gone /2\n",
        files=_TREE,
        reference="golden",
        why="--if-exists is ours",
        tree={"/1": Dir(), "/1/z.txt": "5"},
        config={},
    ),
)

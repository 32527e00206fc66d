"""ADD of local archives: unpacked by content, over what is there, with all their entry types."""

# ruff: noqa: E501  (Dockerfiles and what history says of them are not wrapped)
from __future__ import annotations

from equality.case import Case
from judges.files import Archive, Device, Dir, Fifo, File, Files, Hard, Link

_MEMBERS: Files = {
    "top": Dir(0o750, (1000, 33)),
    "top/file": File("f\n", 0o640, (1000, 33)),
    "top/setuid": File("s\n", 0o4755),
    "top/link": Link("file", (1000, 33)),
    "top/hard": Hard("top/file"),
    "top/sub": Dir(0o1777),
    "top/sub/x": "x\n",
    "implied/parent/y": "y\n",
}

CASES = (
    Case(
        "add-archives-of-every-compression",
        "FROM busybox-test\nADD a.tar /plain\nADD a.tar.gz /gz/\nADD a.tar.bz2 /bz2\nADD a.tar.xz /xz/\n",
        files={
            "a.tar": Archive(_MEMBERS),
            "a.tar.gz": Archive(_MEMBERS, "gz"),
            "a.tar.bz2": Archive(_MEMBERS, "bz2"),
            "a.tar.xz": Archive(_MEMBERS, "xz"),
        },
    ),
    Case(
        "add-recognises-by-content-not-name",
        "FROM busybox-test\nADD archive.txt /unpacked/\nADD text.tar.gz /copied/\nADD just.gz /copied/\nCOPY archive.txt /\n",
        files={
            "archive.txt": Archive({"inside": "i\n"}, "gz"),
            "text.tar.gz": "this is no archive\n",
            # gzip of plain text: compressed, but no archive, so it stays as it is
            "just.gz": File(bytes.fromhex("1f8b0800000000000003cb48cdc9c9e7020020303a3606000000")),
        },
    ),
    Case(
        "add-archive-over-existing",
        "FROM busybox-test\nADD over.tar /\nADD over.tar /opt\n",
        files={
            "over.tar": Archive(
                {
                    "etc": Dir(0o711),
                    "etc/motd": File("archived\n", 0o600),
                    "opt/dir": Dir(0o700, (33, 33)),
                    "opt/dir/a": Link("b"),
                    "opt/one": Dir(),
                    "opt/one/below": "file became directory\n",
                    "new/n": "n",
                }
            )
        },
    ),
    Case(
        "add-archive-with-special-entries",
        "FROM busybox-test\nADD s.tar /s/\n",
        files={
            "s.tar": Archive(
                {
                    "pipe": Fifo(0o600),
                    "null": Device("char", 1, 3, 0o666),
                    "loop": Device("block", 7, 0, 0o660, (0, 6)),
                    "big-ids": File("x", 0o644, (3000000, 4000000)),
                    "n" * 200: "long name",
                    "long": Link("t/" * 150),
                    "with\nnewline": "",
                    "caf\udce9": "latin-1",
                }
            )
        },
    ),
    Case(
        "add-archive-with-capability",
        "FROM busybox-test\nADD c.tar /c/\n",
        files={
            "c.tar": Archive(
                {
                    "c": File(
                        "c",
                        0o755,
                        xattrs={"security.capability": bytes.fromhex("0100000200040000" + "00" * 12)},
                    )
                }
            )
        },
    ),
    Case(
        "add-archive-with-whiteout-like-names",
        "FROM busybox-test\nADD w.tar /w/\n",
        files={"w.tar": Archive({"wh.x": "1", "x.wh.y": "2", "dir/.whx": "3"})},
    ),
    Case(
        "add-several-and-globs",
        "FROM busybox-test\nADD *.tar f d /mix/\n",
        files={
            "a.tar": Archive({"a": "a"}),
            "b.tar": Archive({"b": "b"}),
            "f": "f",
            "d/in.tar": Archive({"z": "z"}),
        },
    ),
    Case(
        "add-archive-through-link",
        "FROM busybox-test\nADD l.tar.gz /linked\n",
        files={"l.tar.gz": Link("real/a.tgz"), "real/a.tgz": Archive({"d/a": "a", "l": Link("d")}, "gz")},
    ),
    Case(
        "add-archive-with-chown",
        "FROM busybox-test\nADD --chown=app:web a.tar f /owned/\n",
        files={"a.tar": Archive({"d": Dir(0o700), "d/a": "a", "l": Link("d", (5, 5)), "n/b": "b"}), "f": "f"},
        reference="golden",
        why="20.10 ignores --chown for what it unpacks; today it holds for every entry, not for parents the archive leaves out",
        tree={
            "/owned": Dir(owner=(1000, 33)),
            "/owned/d": Dir(0o700, (1000, 33)),
            "/owned/d/a": File("a", owner=(1000, 33)),
            "/owned/l": Link("d", (1000, 33)),
            "/owned/n": Dir(),
            "/owned/n/b": File("b", owner=(1000, 33)),
            "/owned/f": File("f", owner=(1000, 33)),
        },
        config={},
        history=("ADD --chown=app:web a.tar f /owned/ # buildkit",),
    ),
    Case(
        "add-archive-links-stay-inside",
        "FROM busybox-test\nADD evil.tar /in/\n",
        files={
            "evil.tar": Archive(
                {"abs": Link("/opt/dir"), "up": Link("../../../../../../opt/dir"), "ok": "ok"}
            )
        },
    ),
    Case(
        "add-to-a-symlinked-directory",
        "FROM busybox-test\nADD a.tar /opt/dirlink/\nADD a.tar /opt/abslink/sub\n",
        files={"a.tar": Archive({"from-archive": "1"})},
    ),
)

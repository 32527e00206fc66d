"""COPY, ADD and WORKDIR: what is selected, where it goes, what the layer holds."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.contexts.content import Content
from builder.contexts.local import LocalContext
from builder.errors import BuildError, ContextError, SandboxError
from builder.graph import ContextSource, Copy, InlineFile, InlineSource, Mkdir, StepSource
from builder.patterns import IgnoreFile
from builder.snapshot.view import IndexLayer, View, index_of
from builder.solver.copying import Plan, Written, place, place_directory, select, write
from builder.tree import Node, Tree
from oci.tar import Entry, Kind, TarReader, TarWriter

NOW = 1_700_000_000
Files = dict[str, "str | tuple[str, str] | None"]


def no_content(path: bytes) -> int:
    raise AssertionError(f"{path!r} should not be opened")


def image(**files: Node) -> View:
    """A view of one layer; names have `/` as `__`."""
    return View(
        [IndexLayer({name.replace("__", "/").encode(): node for name, node in files.items()}, no_content)]
    )


def directory(mode: int = 0o755) -> Node:
    return Node(Kind.DIRECTORY, mode)


def link(to: str) -> Node:
    return Node(Kind.SYMLINK, 0o777, link=to.encode())


FILE = Node(Kind.FILE, 0o600, 7, 7)
EMPTY = View([])


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    (root / "dir" / "sub").mkdir(parents=True)
    (root / "file").write_text("f")
    (root / "other").write_text("o")
    (root / "dir" / "a").write_text("a")
    (root / "dir" / "sub" / "b").write_text("b")
    (root / "dir" / "to-a").symlink_to("a")
    (root / "link-file").symlink_to("file")
    (root / "link-dir").symlink_to("dir")
    for path, mode in (
        ("dir", 0o700),
        ("dir/sub", 0o711),
        ("file", 0o644),
        ("other", 0o640),
        ("dir/a", 0o4755),
    ):
        os.chmod(root / path, mode)
    os.chmod(root / "dir/sub/b", 0o644)
    return root


def plan_of(op: Copy, root: Path, target: Tree = EMPTY, ignore: str = "") -> Plan:
    with LocalContext(str(root), IgnoreFile(ignore.split("\n")) if ignore else None) as tree:
        return place(op, select(op, lambda source: tree), target)


def copied(
    root: Path, *paths: str, to: str, target: Tree = EMPTY, owner: str = "", mode: str = "", ignore: str = ""
) -> dict[str, str]:
    op = Copy((ContextSource(paths),), to, to.endswith("/") or len(paths) > 1, owner, mode)
    return shown(plan_of(op, root, target, ignore))


def shown(plan: Plan) -> dict[str, str]:
    """path -> `kind mode uid:gid source`."""
    letters = {Kind.FILE: "-", Kind.DIRECTORY: "d", Kind.SYMLINK: "l", Kind.FIFO: "p", Kind.CHAR: "c"}
    rows = {}
    for path, placed in plan.placed.items():
        node = placed.node
        text = f"{letters[node.kind]} {node.mode:o} {node.uid}:{node.gid} {placed.source.decode()}"
        rows[path.decode()] = text.strip() + (f" -> {node.link.decode()}" if node.link else "")
    return rows


def layer_of(plan: Plan, clock: int | None = None) -> tuple[dict[bytes, tuple[Entry, bytes]], Written]:
    blocks: list[bytes] = []
    tar = TarWriter(blocks.append)
    written = write(plan, tar, now=NOW, clock=clock)
    tar.finish()
    reader = TarReader(io.BytesIO(b"".join(blocks)))
    return {entry.name: (entry, reader.read()) for entry in reader}, written


DIR_CONTENTS = {
    "x/a": "- 4755 0:0 dir/a",
    "x/sub": "d 711 0:0 dir/sub",
    "x/sub/b": "- 644 0:0 dir/sub/b",
    "x/to-a": "l 777 0:0 dir/to-a -> a",
}
MADE = "d 755 0:0"


class TestDestinations:
    """The table of BuildKit's rules; each row was compared with Docker 20.10 too."""

    @pytest.mark.parametrize(
        ("paths", "to", "expected"),
        [
            (["file"], "/x", {"x": "- 644 0:0 file"}),
            (["file"], "/x/", {"x": MADE, "x/file": "- 644 0:0 file"}),
            (["file"], "/x/y/z", {"x": MADE, "x/y": MADE, "x/y/z": "- 644 0:0 file"}),
            (["/file"], "/x", {"x": "- 644 0:0 file"}),
            (["../../file"], "/x", {"x": "- 644 0:0 file"}),
            (["./dir/../file"], "/x", {"x": "- 644 0:0 file"}),
            (["file", "other"], "/x/", {"x": MADE, "x/file": "- 644 0:0 file", "x/other": "- 640 0:0 other"}),
            (["dir"], "/x", {"x": MADE, **DIR_CONTENTS}),
            (["dir"], "/x/", {"x": MADE, **DIR_CONTENTS}),
            (["dir/"], "/x", {"x": MADE, **DIR_CONTENTS}),
            (["dir/."], "/x", {"x": MADE, **DIR_CONTENTS}),
            (["link-dir"], "/x", {"x": MADE, **DIR_CONTENTS}),
            (["link-dir/sub"], "/x", {"x": MADE, "x/b": "- 644 0:0 dir/sub/b"}),
            (["link-file"], "/x", {"x": "- 644 0:0 file"}),
            (["link-file"], "/x/", {"x": MADE, "x/link-file": "- 644 0:0 file"}),
            (["dir/to-a"], "/x/", {"x": MADE, "x/to-a": "- 4755 0:0 dir/a"}),
            (["dir/sub"], "/", {"b": "- 644 0:0 dir/sub/b"}),
            (["dir", "file"], "/x/", {"x": MADE, **DIR_CONTENTS, "x/file": "- 644 0:0 file"}),
        ],
    )
    def test_into_nothing(self, context: Path, paths: list[str], to: str, expected: dict[str, str]) -> None:
        assert copied(context, *paths, to=to) == expected

    def test_file_into_existing_directory(self, context: Path) -> None:
        assert copied(context, "file", to="/x", target=image(x=directory(0o700))) == {
            "x/file": "- 644 0:0 file"
        }

    def test_directory_keeps_existing_destination(self, context: Path) -> None:
        found = copied(
            context, "dir", to="/x", target=image(x=directory(0o700), x__sub=directory(0o700), x__sub__b=FILE)
        )
        assert found == DIR_CONTENTS

    def test_existing_file_is_replaced(self, context: Path) -> None:
        assert copied(context, "file", to="/x", target=image(x=FILE)) == {"x": "- 644 0:0 file"}

    def test_destination_through_links(self, context: Path) -> None:
        target = image(
            bin=link("usr/bin"), usr=directory(), usr__bin=directory(), d=link("/../usr"), f=link("usr/g")
        )
        assert copied(context, "file", to="/bin/x", target=target) == {"usr/bin/x": "- 644 0:0 file"}
        assert copied(context, "file", to="/bin", target=target) == {"usr/bin/file": "- 644 0:0 file"}
        assert copied(context, "file", to="/d/", target=target) == {"usr/file": "- 644 0:0 file"}
        assert copied(context, "file", to="/f", target=target) == {"usr/g": "- 644 0:0 file"}
        assert copied(context, "dir/sub", to="/bin", target=target) == {"usr/bin/b": "- 644 0:0 dir/sub/b"}

    def test_a_link_at_the_last_name_is_replaced_inside_directories(self, context: Path) -> None:
        target = image(x=directory(), x__file=link("/etc/passwd"), x__a=link("/etc/shadow"), etc=directory())
        assert copied(context, "file", to="/x/", target=target) == {"x/file": "- 644 0:0 file"}
        assert copied(context, "dir", to="/x", target=target)["x/a"] == "- 4755 0:0 dir/a"

    @pytest.mark.parametrize("to", ["/../../x", "/a/../../x", "x"])
    def test_never_outside(self, context: Path, to: str) -> None:
        assert list(copied(context, "file", to=to)) == ["x"]

    def test_dangling_links_stay_inside(self, context: Path) -> None:
        target = image(out=link("../../../../tmp/evil"), abs=link("/host/x"))
        assert copied(context, "file", to="/out/f", target=target) == {
            "tmp": MADE,
            "tmp/evil": MADE,
            "tmp/evil/f": "- 644 0:0 file",
        }
        assert copied(context, "file", to="/abs", target=target) == {"host": MADE, "host/x": "- 644 0:0 file"}

    def test_a_loop_is_an_error(self, context: Path) -> None:
        with pytest.raises(BuildError, match="/loop cannot be followed"):
            copied(context, "file", to="/loop/x", target=image(loop=link("loop")))

    def test_mismatches(self, context: Path) -> None:
        with pytest.raises(BuildError, match="non-directory /x"):
            copied(context, "dir", to="/x", target=image(x=FILE))
        with pytest.raises(BuildError, match="non-directory /x/sub"):
            copied(context, "dir", to="/x", target=image(x=directory(), x__sub=FILE))
        with pytest.raises(BuildError, match="non-directory /x/sub"):
            copied(context, "dir", to="/x", target=image(x=directory(), x__sub=link("/etc"), etc=directory()))
        with pytest.raises(BuildError, match="directory /x/a with a file"):
            copied(context, "dir", to="/x", target=image(x=directory(), x__a=directory()))
        with pytest.raises(BuildError, match="directory /x/file with a file"):
            copied(context, "file", to="/x/", target=image(x=directory(), x__file=directory()))
        with pytest.raises(BuildError, match="/x is no directory, so /x/y cannot be made"):
            copied(context, "file", to="/x/y/", target=image(x=FILE))

    def test_later_sources_see_earlier_ones(self, context: Path) -> None:
        op = Copy((ContextSource(("dir", "link-dir/a")),), "/x/", True)
        assert shown(plan_of(op, context))["x/a"] == "- 4755 0:0 dir/a"
        (context / "clash" / "a").mkdir(parents=True)
        with pytest.raises(BuildError, match="non-directory /x/a"):
            copied(context, "dir", "clash", to="/x/")

    def test_whiteout_names_are_refused(self, context: Path) -> None:
        (context / "dir" / ".wh.a").write_text("")
        with pytest.raises(BuildError, match=r"/x/\.wh\.a cannot be in an image"):
            copied(context, "dir", to="/x")
        with pytest.raises(BuildError, match=r"\.wh\."):
            copied(context, "file", to="/.wh.x/y")


class TestSelection:
    def test_globs(self, context: Path) -> None:
        assert set(copied(context, "*", to="/x/")) == {
            "x", "x/a", "x/sub", "x/sub/b", "x/to-a", "x/file", "x/other", "x/link-file"
        }  # fmt: skip
        assert set(copied(context, "?ile", to="/x/")) == {"x", "x/file"}
        assert set(copied(context, "dir/[a-c]", "d*/s*/?", to="/x/")) == {"x", "x/a", "x/b"}
        assert set(copied(context, "link*/a", to="/x/")) == set()  # patterns never go through links

    def test_a_literal_bracket(self, context: Path) -> None:
        (context / "a[0]").write_text("")
        assert list(copied(context, "a[[]0]", to="/x")) == ["x"]
        with pytest.raises(BuildError, match="\\["):
            copied(context, "a[", to="/x")

    def test_patterns_may_match_nothing(self, context: Path) -> None:
        op = Copy((ContextSource(("file", "fil?s*")),), "/x/", True)
        with LocalContext(str(context)) as tree:
            selection = select(op, lambda source: tree)
        assert [each.name for each in selection.selected] == [b"file"]
        assert selection.warnings == ("fil?s* matches nothing; did you mean file?",)

    def test_a_missing_file(self, context: Path) -> None:
        with pytest.raises(ContextError, match=r"^flie is not in the context$") as caught:
            copied(context, "flie", to="/x")
        assert caught.value.hint == "did you mean file?"
        with pytest.raises(ContextError) as caught:
            copied(context, "dir/subb/b", to="/x")
        with pytest.raises(ContextError) as caught:
            copied(context, "dir/qqqq", to="/x")
        assert caught.value.hint == "it has a, sub, to-a"

    def test_an_ignored_file_says_so(self, context: Path) -> None:
        with pytest.raises(ContextError, match="file is left out of the context by its ignore file"):
            copied(context, "file", to="/x", ignore="fi*")
        with pytest.raises(ContextError, match="dir/a is left out"):
            copied(context, "dir/a", to="/x", ignore="dir")

    def test_ignored_files_are_not_copied(self, context: Path) -> None:
        assert set(copied(context, "dir", to="/x", ignore="dir/*\n!dir/sub/b")) == {"x", "x/sub", "x/sub/b"}
        assert set(copied(context, ".", to="/x", ignore="*\n!other")) == {"x", "x/other"}

    def test_sockets_are_left_out_and_fifos_kept(self, context: Path) -> None:
        import socket

        with socket.socket(socket.AF_UNIX) as listening:
            here = os.getcwd()
            os.chdir(context / "dir")
            try:
                listening.bind("socket")
            finally:
                os.chdir(here)
        os.mkfifo(context / "dir" / "fifo", 0o600)
        found = copied(context, "dir", to="/x")
        assert found["x/fifo"] == "p 600 0:0 dir/fifo" and "x/socket" not in found

    def test_a_link_out_of_the_context_leads_nowhere(self, context: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        (context / "out").symlink_to("../secret")
        (context / "abs").symlink_to(tmp_path / "secret")
        for name in ("out", "abs"):
            with pytest.raises(ContextError, match=f"{name} is not in the context"):
                copied(context, name, to="/x")
        assert copied(context, ".", to="/x")["x/out"] == "l 777 0:0 out -> ../secret"


class TestOwnersAndModes:
    PASSWD = "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:\n"

    def target(self, tmp_path: Path) -> View:
        from builder.snapshot.view import DirectoryLayer

        (tmp_path / "fs" / "etc").mkdir(parents=True)
        (tmp_path / "fs" / "etc" / "passwd").write_text(self.PASSWD)
        (tmp_path / "fs" / "etc" / "group").write_text("staff:x:50:\n")
        return View([DirectoryLayer(str(tmp_path / "fs"))])

    @pytest.mark.parametrize(
        ("owner", "ids"),
        [
            ("5", "5:5"),
            ("5:6", "5:6"),
            ("app", "1000:1001"),
            ("app:staff", "1000:50"),
            ("5:staff", "5:50"),
            (":7", "0:7"),
        ],
    )
    def test_chown_covers_files_and_made_directories(
        self, context: Path, tmp_path: Path, owner: str, ids: str
    ) -> None:
        target = self.target(tmp_path)
        found = copied(context, "dir", to="/x/y", target=target, owner=owner)
        assert {row.split()[2] for row in found.values()} == {ids}

    def test_unknown_names(self, context: Path, tmp_path: Path) -> None:
        with pytest.raises(SandboxError, match="user 'ap' is not in /etc/passwd") as caught:
            copied(context, "file", to="/x", target=self.target(tmp_path), owner="ap")
        assert caught.value.hint == "did you mean app?"

    def test_chmod(self, context: Path) -> None:
        found = copied(context, "dir", to="/x", mode="u=rwX,go=rX")
        assert found["x"] == MADE and found["x/sub"] == "d 755 0:0 dir/sub"
        assert found["x/a"] == "- 755 0:0 dir/a" and found["x/sub/b"] == "- 644 0:0 dir/sub/b"
        assert found["x/to-a"].startswith("l 777")
        assert copied(context, "file", to="/x", mode="4711") == {"x": "- 4711 0:0 file"}

    def test_a_step_keeps_its_owners(self) -> None:
        view = image(d=directory(), d__f=Node(Kind.FILE, 0o640, 5, 6))
        op = Copy((StepSource(("/d",)),), "/x")
        assert shown(place(op, select(op, lambda source: view), EMPTY)) == {"x": MADE, "x/f": "- 640 5:6 d/f"}


class TestLayers:
    def test_content_and_order(self, context: Path) -> None:
        with LocalContext(str(context)) as tree:
            op = Copy((ContextSource((".",)),), "/x")
            plan = place(op, select(op, lambda source: tree), EMPTY)
            entries, written = layer_of(plan)
        assert list(entries) == sorted(entries, key=lambda name: name.split(b"/"))
        assert entries[b"x/dir/sub/b"][1] == b"b"
        assert entries[b"x/dir/to-a"][0].link == b"a"
        assert entries[b"x"][0].mtime == NOW
        assert entries[b"x/file"][0].mtime == int((context / "file").stat().st_mtime)
        view = View([written.layer(no_content)])
        assert [path for path, _ in view.walk()] == [b"", *entries]
        assert view.lstat(b"x/dir/a") == Node(
            Kind.FILE,
            0o4755,
            0,
            0,
            1,
            entries[b"x/dir/a"][0].mtime * 10**9,
            content=written.digests[0][b"dir/a"],
        )

    def test_hardlinks_are_kept(self, context: Path) -> None:
        os.link(context / "dir" / "a", context / "dir" / "sub" / "again")
        with LocalContext(str(context)) as tree:
            op = Copy((ContextSource(("dir", "dir")),), "/x/", True)
            selection = select(op, lambda source: tree)
            entries, written = layer_of(place(op, selection, EMPTY))
            assert Content().checksum(selection.selected) == Content().learn(
                selection.selected, written.digests
            )
        assert entries[b"x/a"][1] == b"a"
        assert (entries[b"x/sub/again"][0].kind, entries[b"x/sub/again"][0].link) == (Kind.HARDLINK, b"x/a")

    def test_the_clock(self, context: Path) -> None:
        with LocalContext(str(context)) as tree:
            op = Copy((ContextSource(("dir",)), InlineSource((InlineFile("i", b"text"),))), "/x/", True)
            entries, _ = layer_of(place(op, select(op, lambda source: tree), EMPTY), clock=1000)
        assert {entry.mtime for entry, _ in entries.values()} == {1000}
        assert entries[b"x/i"][1] == b"text"

    def test_inline_files(self) -> None:
        op = Copy((InlineSource((InlineFile("a", b"A"), InlineFile("b", b"B"))),), "/x/", True, "3:4", "755")
        entries, _ = layer_of(place(op, select(op, lambda source: EMPTY), EMPTY))
        assert {name: (entry.mode, entry.uid, data) for name, (entry, data) in entries.items()} == {
            b"x": (0o755, 3, b""),
            b"x/a": (0o755, 3, b"A"),
            b"x/b": (0o755, 3, b"B"),
        }

    def test_large_files_are_streamed(self, context: Path) -> None:
        content = os.urandom(3 << 20)
        (context / "large").write_bytes(content)
        with LocalContext(str(context)) as tree:
            op = Copy((ContextSource(("large",)),), "/x")
            selection = select(op, lambda source: tree)
            entries, written = layer_of(place(op, selection, EMPTY))
            assert Content().checksum(selection.selected) == Content().learn(
                selection.selected, written.digests
            )
        assert entries[b"x"][1] == content

    @pytest.mark.parametrize("size", [1, 2 << 20])
    @pytest.mark.parametrize("change", ["grow", "shrink", "replace", "remove", "touch", "link"])
    def test_a_file_that_changes_meanwhile(
        self, context: Path, tmp_path: Path, size: int, change: str
    ) -> None:
        """SECURITY.md R18."""
        path = context / "changing"
        path.write_bytes(b"x" * size)
        (tmp_path / "secret").write_bytes(b"s" * size)
        with LocalContext(str(context)) as tree:
            op = Copy((ContextSource(("changing",)),), "/x")
            plan = place(op, select(op, lambda source: tree), EMPTY)
            changes: dict[str, Callable[[], object]] = {
                "grow": lambda: path.write_bytes(b"y" * (size + 1)),
                "shrink": lambda: path.write_bytes(b""),
                "replace": lambda: (path.unlink(), path.write_bytes(b"z" * size)),
                "remove": path.unlink,
                "touch": lambda: os.utime(path, (1, 1)),
                "link": lambda: (path.unlink(), path.symlink_to(tmp_path / "secret")),
            }
            changes[change]()
            with pytest.raises(ContextError, match=r"^changing changed during the build$"):
                layer_of(plan)

    def test_a_directory_swapped_for_a_link(self, context: Path, tmp_path: Path) -> None:
        (tmp_path / "elsewhere" / "sub").mkdir(parents=True)
        (tmp_path / "elsewhere" / "sub" / "b").write_text("b")
        with LocalContext(str(context)) as tree:
            op = Copy((ContextSource(("dir/sub",)),), "/x")
            plan = place(op, select(op, lambda source: tree), EMPTY)
            (context / "dir").rename(context / "was")
            (context / "dir").symlink_to(tmp_path / "elsewhere")
            with pytest.raises(ContextError, match="changed during the build"):
                layer_of(plan)

    def test_replaced_sources_still_count(self, context: Path) -> None:
        (context / "two").mkdir()
        (context / "two" / "a").write_text("another a")
        with LocalContext(str(context)) as tree:
            op = Copy((ContextSource(("dir", "two")),), "/x/", True)
            selection = select(op, lambda source: tree)
            entries, written = layer_of(place(op, selection, EMPTY))
            assert Content().checksum(selection.selected) == Content().learn(
                selection.selected, written.digests
            )
        assert entries[b"x/a"][1] == b"another a"

    def test_xattrs(self, context: Path) -> None:
        os.setxattr(context / "dir" / "a", "user.note", b"1")
        os.setxattr(context / "dir" / "sub", "user.note", b"2")
        with LocalContext(str(context)) as tree:
            op = Copy((ContextSource(("dir",)),), "/x")
            entries, written = layer_of(place(op, select(op, lambda source: tree), EMPTY))
        assert entries[b"x/a"][0].xattrs == ((b"user.note", b"1"),)
        assert entries[b"x/sub"][0].xattrs == ((b"user.note", b"2"),)
        assert View([written.layer(no_content)]).xattrs(b"x/a") == ((b"user.note", b"1"),)


class TestWorkdir:
    def test_missing_parents(self) -> None:
        plan = place_directory(Mkdir("/a/b"), image(a=directory(0o700)))
        assert shown(plan) == {"a/b": MADE}
        assert shown(place_directory(Mkdir("/a/b", "5"), EMPTY)) == {"a": "d 755 5:5", "a/b": "d 755 5:5"}

    def test_nothing_when_it_exists(self) -> None:
        assert place_directory(Mkdir("/a"), image(a=directory())).empty
        assert place_directory(Mkdir("/"), EMPTY).empty

    def test_through_links(self) -> None:
        assert shown(place_directory(Mkdir("/l/x"), image(l=link("/real")))) == {"real": MADE, "real/x": MADE}
        assert shown(place_directory(Mkdir("/l/x"), image(l=link("../../..")))) == {"x": MADE}

    def test_a_file_in_the_way(self) -> None:
        with pytest.raises(BuildError, match="/a is no directory"):
            place_directory(Mkdir("/a/b"), image(a=FILE))


def archive(*members: tuple[str, str], fmt: int = tarfile.PAX_FORMAT) -> bytes:
    """(name, what): `d`, `f:content`, `l:target`, `h:target`; owner 77:78."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt) as tar:
        for name, what in members:
            info = tarfile.TarInfo(name)
            info.uid, info.gid, info.mode, info.mtime = 77, 78, 0o640, 500
            kind, _, text = what.partition(":")
            info.type = {
                "d": tarfile.DIRTYPE,
                "f": tarfile.REGTYPE,
                "l": tarfile.SYMTYPE,
                "h": tarfile.LNKTYPE,
            }[kind]
            data = b""
            if kind == "f":
                data = text.encode()
            else:
                info.linkname = text
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class TestArchives:
    def add(
        self, context: Path, data: bytes, target: Tree = EMPTY, to: str = "/x/", owner: str = ""
    ) -> dict[bytes, tuple[Entry, bytes]]:
        (context / "t").write_bytes(data)
        with LocalContext(str(context)) as tree:
            op = Copy((ContextSource(("t",)),), to, to.endswith("/"), owner, "", True)
            selection = select(op, lambda source: tree)
            entries, written = layer_of(place(op, selection, target))
            assert Content().checksum(selection.selected) == Content().learn(
                selection.selected, written.digests
            )
            return entries

    @pytest.mark.parametrize(
        "pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["tar", "gz", "bz2", "xz"]
    )
    def test_unpacked_whatever_it_is_packed_in(self, context: Path, pack: Callable[[bytes], bytes]) -> None:
        found = self.add(
            context, pack(archive(("d", "d"), ("d/f", "f:text"), ("d/l", "l:f"), ("d/h", "h:d/f"))), to="/x"
        )
        assert {
            name: (entry.kind.name, entry.uid, entry.mode, data) for name, (entry, data) in found.items()
        } == {
            b"x": ("DIRECTORY", 0, 0o755, b""),
            b"x/d": ("DIRECTORY", 77, 0o640, b""),
            b"x/d/l": ("SYMLINK", 77, 0o777, b""),  # as on every disk
            b"x/d/f": ("FILE", 77, 0o640, b"text"),
            b"x/d/h": ("HARDLINK", 77, 0o640, b""),
        }
        assert found[b"x/d/h"][0].link == b"x/d/f"

    def test_what_is_no_archive_is_copied(self, context: Path) -> None:
        assert self.add(context, gzip.compress(b"text"), to="/y")[b"y"][1] == gzip.compress(b"text")
        assert list(self.add(context, b"", to="/y")) == [b"y"]

    def test_implied_parents_and_chown(self, context: Path) -> None:
        found = self.add(context, archive(("d/e/f", "f:1")), owner="5:6")
        assert {name: (entry.uid, entry.mode) for name, (entry, _) in found.items()} == {
            b"x": (5, 0o755), b"x/d": (0, 0o755), b"x/d/e": (0, 0o755), b"x/d/e/f": (5, 0o640)
        }  # fmt: skip

    def test_union_with_what_is_there(self, context: Path) -> None:
        target = image(
            x=directory(0o700),
            x__d=directory(0o711),
            x__d__old=FILE,
            x__f=directory(),
            x__f__below=FILE,
            x__g=FILE,
        )
        found = self.add(
            context, archive(("d", "d"), ("d/n", "f:1"), ("f", "f:2"), ("g", "d"), ("g/h", "f:3")), target
        )
        assert set(found) == {b"x/d", b"x/d/n", b"x/f", b"x/g", b"x/g/h"}
        assert found[b"x/f"][0].kind is Kind.FILE and found[b"x/g"][0].kind is Kind.DIRECTORY

    def test_a_directory_replaced_twice_is_opaque(self, context: Path) -> None:
        target = image(x=directory(), x__d=directory(), x__d__old=FILE)
        found = self.add(context, archive(("d", "f:1"), ("d", "d"), ("d/new", "f:2")), target)
        assert set(found) == {b"x/d", b"x/d/.wh..wh..opq", b"x/d/new"}
        layer = index_of([entry for entry, _ in found.values()], no_content)
        assert View([*target.layers, layer]).listdir(b"x/d") == [b"new"]

    def test_the_last_of_a_name_wins(self, context: Path) -> None:
        found = self.add(context, archive(("a", "f:1"), ("b", "h:a"), ("a", "f:22"), ("c", "h:a")))
        assert found[b"x/b"][1] == b"1" and found[b"x/a"][1] == b"22"
        assert (found[b"x/c"][0].kind, found[b"x/c"][0].link) == (Kind.HARDLINK, b"x/a")

    def test_links_inside_are_followed_and_stay_inside(self, context: Path) -> None:
        found = self.add(
            context,
            archive(
                ("real", "d"), ("l", "l:real"), ("l/f", "f:1"), ("abs", "l:/../../etc"), ("abs/passwd", "f:2")
            ),
        )
        assert found[b"x/real/f"][1] == b"1"
        assert found[b"x/etc/passwd"][1] == b"2"

    def test_a_hardlink_to_a_file_of_the_image(self, context: Path, tmp_path: Path) -> None:
        from builder.snapshot.view import DirectoryLayer

        (tmp_path / "fs" / "x").mkdir(parents=True)
        (tmp_path / "fs" / "x" / "old").write_text("old")
        found = self.add(context, archive(("new", "h:old")), View([DirectoryLayer(str(tmp_path / "fs"))]))
        assert (found[b"x/new"][0].kind, found[b"x/new"][1]) == (Kind.FILE, b"old")

    @pytest.mark.parametrize(
        ("members", "message"),
        [
            ([("../evil", "f:1")], "would leave the destination"),
            ([("a/../../evil", "f:1")], "would leave the destination"),
            ([("h", "h:../../etc/shadow")], "outside of it"),
            ([("h", "h:nothing")], "which is no file in it"),
            ([(".", "l:/etc"), ("./f", "f:1")], "in place of its root"),
            ([("./", "d"), ("/.", "l:/etc")], "in place of its root"),
            ([("l", "l:l"), ("l/f", "f:1")], "cannot be placed"),
            ([(".wh.x", "f:1")], r"\.wh\."),
            ([("f", "f:1"), ("f/g", "f:1")], "/x/f is no directory"),
        ],
    )
    def test_hostile_archives(self, context: Path, members: list[tuple[str, str]], message: str) -> None:
        with pytest.raises(BuildError, match=message):
            self.add(context, archive(*members))

    def test_absolute_names_are_taken_from_the_destination(self, context: Path) -> None:
        assert b"x/etc/passwd" in self.add(context, archive(("/etc/passwd", "f:1")))

    def test_damaged_archives(self, context: Path) -> None:
        data = archive(("a", "f:" + "1" * 5000), ("b", "f:2"))
        with pytest.raises(BuildError, match=r"^t cannot be unpacked: "):
            self.add(context, data[:3000])
        with pytest.raises(BuildError, match=r"^t cannot be unpacked: "):
            self.add(context, gzip.compress(data)[:-12])

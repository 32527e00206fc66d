"""A context that another process lists gives what the build itself would find."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from builder.contexts.ahead import Ahead, begin, copies_all
from builder.contexts.claims import Claims
from builder.contexts.content import Content
from builder.contexts.listing import Lister, Listing
from builder.contexts.local import LocalContext
from builder.errors import ContextError
from builder.patterns import IgnoreFile
from builder.solver.selection import selected


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "context"
    (top / "a" / "deep").mkdir(parents=True)
    (top / "kept" / "out").mkdir(parents=True)
    (top / "a" / "deep" / "file").write_bytes(b"x" * 10)
    (top / "a" / "link").symlink_to("deep/file")
    (top / "a" / "\udcff").touch()
    (top / "kept" / "out" / "back").touch()
    (top / "kept" / "out" / "gone").touch()
    (top / "empty").mkdir()
    os.link(top / "a" / "deep" / "file", top / "second")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(top / "socket"))
    (top / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    return top


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that other tests left to their pools do not count."""
    monkeypatch.setattr("threading.active_count", lambda: 1)


@pytest.fixture
def ignore() -> IgnoreFile:
    return IgnoreFile.parse("kept/out\n!kept/out/back")


@pytest.mark.usefixtures("alone")
def test_both_ways_to_list_agree(root: Path, ignore: IgnoreFile) -> None:
    with LocalContext(str(root), ignore) as alone:
        walk, stamp = alone.walk(), alone.stamp(b"")
    with (
        begin(str(root), "", "") as found,
        closing(Ahead(str(root), ignore)) as ahead,
        LocalContext(str(root), ignore, ahead=ahead) as context,
    ):
        assert found is not None and not found.fits(str(root), ignore), "it was read without an ignore file"
        assert context.stamp(b"") == stamp
        assert context.walk() == walk
        names = [os.fsdecode(path) for path, _ in walk]
    assert "kept/out/back" in names and "kept/out/gone" not in names and "socket" not in names


@pytest.mark.parametrize("helps", [True, False])
@pytest.mark.parametrize("shares", [1, 2, 3, 64])
def test_either_may_list_what_is_shared(
    root: Path, ignore: IgnoreFile, monkeypatch: pytest.MonkeyPatch, helps: bool, shares: int
) -> None:
    with LocalContext(str(root), ignore) as alone:
        walk, stamp = alone.walk(), alone.stamp(b"")
    parent, taken, listed = os.getpid(), Claims.taken, []

    def by_one(claims: Claims) -> Iterator[bytes]:
        return taken(claims) if (os.getpid() == parent) == helps else iter(())

    def seen(lister: Lister, path: bytes) -> None:
        listed.append(path)
        below_that(lister, path)

    below_that = Lister.below_that
    monkeypatch.setattr(Claims, "taken", by_one)
    monkeypatch.setattr(Lister, "below_that", seen)
    monkeypatch.setattr("builder.contexts.ahead._SHARES", shares)
    with (
        closing(Ahead(str(root), ignore)) as ahead,
        LocalContext(str(root), ignore, ahead=ahead) as context,
    ):
        assert context.stamp(b"") == stamp
        assert bool(listed) == (helps and shares < 64)
        assert context.walk() == walk


def test_a_directory_too_deep_is_refused_however_it_is_listed(root: Path) -> None:
    deep = root / "/".join("d" * 401)
    deep.mkdir(parents=True)
    with pytest.raises(ContextError, match="deeper than 400"), LocalContext(str(root)) as context:
        context.walk()
    fd = os.open(root, os.O_RDONLY)
    with pytest.raises(ContextError, match="deeper than 400"):
        Lister(fd, "context", None).first(1000)
    os.close(fd)


def test_a_stamp_is_of_one_directory_and_notices_every_change(root: Path) -> None:
    def stamps() -> tuple[bytes | None, ...]:
        with LocalContext(str(root)) as context:
            return context.stamp(b""), context.stamp(b"a"), context.stamp(b"kept")

    before = stamps()
    assert stamps() == before
    assert len(set(before)) == 3
    for change in (
        lambda: os.utime(root / "a" / "deep" / "file", ns=(1, 1)),
        lambda: (root / "a" / "deep" / "new").touch(),
        lambda: (root / "a" / "deep" / "new").rename(root / "a" / "deep" / "other"),
        lambda: (root / "a" / "deep").chmod(0o711),
    ):
        change()
        after = stamps()
        assert after[0] != before[0] and after[1] != before[1] and after[2] == before[2]
        before = after


def test_files_have_no_stamp_of_their_own(root: Path) -> None:
    with LocalContext(str(root)) as context:
        assert context.stamp(b"Dockerfile") is None
        assert context.stamp(b"missing") is None


class _Memory(dict[bytes, bytes]):
    def put_many(self, rows: object) -> None:
        self.update(rows)  # type: ignore[call-overload]


def test_a_checksum_learnt_without_it_is_known_with_it(root: Path) -> None:
    memory = _Memory()
    now = os.stat(root).st_ctime_ns + 10**10
    with LocalContext(str(root)) as context:
        checksum = Content(memory, now).checksum([selected(context, ".")])
    with closing(Ahead(str(root), None)) as ahead, LocalContext(str(root), ahead=ahead) as context:
        assert Content(memory, now).known([selected(context, ".")]) == checksum
        assert not context._walks, "no Node was made to find that nothing changed"


@pytest.mark.usefixtures("alone")
def test_what_one_directory_needs_does_not_wait(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ahead, "finished", False)
    monkeypatch.setattr(Ahead, "take", lambda self: pytest.fail("it waited"))
    with begin(str(root), "", "") as ahead, LocalContext(str(root), ahead=ahead) as context:
        assert context.lstat(b"a/deep/file") is not None
        assert len(context.walk(b"a")) == 5


def test_a_child_that_fails_is_as_if_it_had_not_been(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Listing, "packed", property(lambda self: 1 / 0))
    with closing(Ahead(str(root), None)) as ahead, LocalContext(str(root), ahead=ahead) as context:
        assert len(context.walk()) == 13


@pytest.mark.usefixtures("alone")
def test_nobody_stays_behind(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.contexts.ahead.Lister.whole", lambda *_: signal.pause())
    with begin(str(root), "", "") as ahead:
        assert ahead is not None and not ahead.finished
        pid = ahead._child.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("text", ["FROM x\nRUN y", "FROM a\nCOPY --from=a . /", "COPY a.txt ./", "ADD"])
def test_a_context_of_which_little_is_read_is_not_listed(root: Path, text: str) -> None:
    assert not copies_all(text)
    (root / "Dockerfile").write_text(text)
    with begin(str(root), None, "") as ahead:
        assert ahead is None


@pytest.mark.parametrize(
    "line", ["COPY . .", "copy --chown=1:2 ./ /x", 'ADD [".", "/x y"]', "\tCOPY / /", "COPY a . b/"]
)
def test_lines_that_read_all(line: str) -> None:
    assert copies_all(f"FROM x\n{line}\nRUN z")


@pytest.mark.parametrize(
    ("context", "dockerfile"),
    [("", None), (None, None), ("-", None), (".", "-"), ("x\0", ""), ("/missing", "")],
)
def test_what_is_no_directory_is_left_to_the_build(context: str | None, dockerfile: str | None) -> None:
    with begin(context, dockerfile, "") as ahead:
        assert ahead is None


def test_a_program_with_threads_does_not_fork(root: Path) -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with begin(str(root), "", "") as ahead:
            assert ahead is None
    finally:
        done.set()
        thread.join()

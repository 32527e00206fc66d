from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from builder.container.logs import LogWriter, read


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=40)), max_size=12))
def test_every_byte_is_kept(pieces: list[tuple[str, bytes]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = LogWriter(f"{folder}/log")
        for stream, chunk in pieces:
            log.write(stream, chunk)
        log.close()
        found = list(read(f"{folder}/log"))
    for stream in ("stdout", "stderr"):
        written = b"".join(chunk for each, chunk in pieces if each == stream)
        assert b"".join(line.text for line in found if line.stream == stream) == written


def written(path: Path, *lines: bytes) -> str:
    log = LogWriter(str(path))
    for line in lines:
        log.write("stdout", line)
    log.close()
    return str(path)


def test_the_end_of_it(tmp_path: Path) -> None:
    path = written(tmp_path / "log", b"1\n2\n", b"3\n")
    assert [line.text for line in read(path, tail=2)] == [b"2\n", b"3\n"]
    assert [line.text for line in read(path, tail=0)] == []
    assert list(read(path, until="2000")) == [] and len(list(read(path, since="2000"))) == 3


def test_a_long_line_is_kept_in_pieces(tmp_path: Path) -> None:
    found = list(read(written(tmp_path / "log", b"x" * 40_000, b"\n")))
    assert len(found) > 1 and b"".join(line.text for line in found) == b"x" * 40_000 + b"\n"


def test_following_takes_what_comes_later(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogWriter(str(path))
    log.write("stdout", b"first\n")
    more = iter([True, False])

    def follow() -> bool:
        log.write("stdout", b"more\n")
        return next(more)

    assert [line.text for line in read(str(path), follow=follow)] == [b"first\n", b"more\n", b"more\n"]
    log.close()


def test_none_and_half_of_one(tmp_path: Path) -> None:
    assert list(read(str(tmp_path / "nothing"))) == []
    path = written(tmp_path / "log", b"whole\n")
    with open(path, "ab") as file:
        file.write(b'{"log": "torn')
    assert [line.text for line in read(path)] == [b"whole\n"]

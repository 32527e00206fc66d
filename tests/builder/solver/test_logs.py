from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from builder.events import Event, StepLog
from builder.solver.logs import StepOutput


def written(path: Path, *chunks: bytes) -> tuple[bytes, list[Event], tuple[str, ...]]:
    events: list[Event] = []
    with StepOutput(str(path), "digest", events.append) as output:
        # A descriptor of its own, as a process has: nobody else closes it, whatever happens to the reader.
        end = os.dup(output.write_fd)
        output.close_writer()

        def write() -> None:
            with open(end, "wb", buffering=0) as pipe, suppress(BrokenPipeError):
                for chunk in chunks:
                    while chunk:
                        chunk = chunk[pipe.write(chunk) :]

        writer = threading.Thread(target=write)
        writer.start()
        try:
            output.drain()
        finally:
            output.__exit__()  # a writer that nobody reads from ends then
            writer.join()
        return (
            b"".join(event.data for event in events if isinstance(event, StepLog)),
            events,
            output.last_lines(),
        )


def test_all_bytes_reach_the_file_and_the_events(tmp_path: Path) -> None:
    """SECURITY.md R26."""
    raw = b"\xff\x00one\n" + os.urandom(300_000)
    shown, _, _ = written(tmp_path / "log", raw)
    assert (tmp_path / "log").read_bytes() == raw == shown
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_silent_step_has_no_file(tmp_path: Path) -> None:
    assert written(tmp_path / "log") == (b"", [], ())
    assert not (tmp_path / "log").exists()


def test_the_last_lines_are_fit_for_a_screen(tmp_path: Path) -> None:
    _, _, lines = written(tmp_path / "log", b"a\x1b[31mred\nprogress 1%\rprogress 100%\nbad \xff\n\n")
    assert lines == ("a?[31mred", "progress 100%", "bad �")


def test_only_the_end_is_kept_in_memory(tmp_path: Path) -> None:
    _, _, lines = written(tmp_path / "log", *(b"line %d\n" % number for number in range(5000)))
    assert lines[-1] == "line 4999" and len(lines) == 20


def test_a_log_never_follows_a_link(tmp_path: Path) -> None:
    """SECURITY.md S61."""
    (tmp_path / "other").write_bytes(b"keep")
    (tmp_path / "log").symlink_to("other")
    with pytest.raises(OSError) as refused:
        written(tmp_path / "log", b"x")
    assert refused.value.errno == errno.ELOOP
    assert (tmp_path / "other").read_bytes() == b"keep"

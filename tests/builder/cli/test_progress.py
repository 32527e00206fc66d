"""The three views of a build: what they show, and that nothing a step prints steers or slows them."""

from __future__ import annotations

import io
import json
import os
import time
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cli import progress
from builder.cli.lines import Lines, cleaned
from builder.cli.progress_json import JsonLines
from builder.cli.progress_plain import Plain
from builder.errors import UsageError
from builder.events import Event, Exported, StepDone, StepLog, StepStarted, Transfer, Warning_

EVENTS: list[Event] = [
    StepStarted("a", 1, "[1/2] FROM base", 100.0),
    StepDone("a", 100.0, 0.0, cached=True),
    StepStarted("b", 2, "[2/2] RUN make\x1b[2J", 100.0),
    StepLog("b", b"one\ntw", 100.25),
    StepLog("b", b"o\n10%\r20%\r30%\nlast", 101.0),
    Warning_("JSONArgsRecommended", "use JSON", at="Dockerfile:3"),
    Transfer("t", "unpacking base", 5_000_000, 5_000_000, 101.0, done=True),
    StepDone("b", 102.0, 2.0, error="exited with 2"),
    Exported("naming to docker.io/library/app:latest", 103.0),
]

PLAIN = """
#1 [1/2] FROM base
#1 CACHED

#2 [2/2] RUN make\\x1b[2J
#2 0.250 one
#2 1.000 two
#2 1.000 30%
warning: JSONArgsRecommended: use JSON (Dockerfile:3)
=> unpacking base 5MB done
#2 2.000 last
#2 ERROR: exited with 2

#3 exporting
#3 naming to docker.io/library/app:latest
"""


def plain(events: list[Event]) -> str:
    out = io.BytesIO()
    view = Plain(out)
    for event in events:
        view.emit(event)
    view.close()
    return out.getvalue().decode()


def test_plain() -> None:
    assert plain(EVENTS) == PLAIN


def test_plain_shows_what_a_cancelled_step_began_to_say() -> None:
    shown = plain([StepStarted("a", 1, "RUN x", 0.0), StepLog("a", b"half", 0.5)])
    assert "half\n" in shown


def test_a_step_that_anothers_failure_ended_did_not_fail() -> None:
    events: list[Event] = [
        StepStarted("a", 1, "RUN sleep", 0.0),
        StepDone("a", 1.0, 1.0, error="the build was cancelled"),
    ]
    assert plain(events).endswith("#1 CANCELED\n")
    assert drawn(events)[1].startswith(" => CANCELED RUN sleep")


def test_plain_survives_a_reader_that_goes_away() -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb", buffering=0) as out:
        view = Plain(out)  # type: ignore[arg-type]
        for event in EVENTS:
            view.emit(event)


def test_plain_keeps_up_with_a_lot_of_output() -> None:
    chunk = b"a line of ordinary length, as a compiler prints it\n" * 1285
    with open(os.devnull, "wb") as out:
        view = Plain(out)
        view.emit(StepStarted("a", 1, "RUN yes", 0.0))
        began = time.process_time()
        for _ in range(1600):
            view.emit(StepLog("a", chunk, 1.0))
        assert time.process_time() - began < 5.0, "100 MB"


def test_json() -> None:
    out = io.BytesIO()
    view = JsonLines(out)
    for event in EVENTS:
        view.emit(event)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(lines) == len(EVENTS)
    assert lines[0] == {
        "type": "step-started",
        "digest": "a",
        "number": 1,
        "name": "[1/2] FROM base",
        "time": 100.0,
        "stage": "",
        "log_path": "",
    }
    assert [line["type"] for line in lines[1:]] == [
        "step-done", "step-started", "step-log", "step-log", "warning", "transfer", "step-done", "exported",
    ]  # fmt: skip
    assert b64decode(lines[3]["data"]) == b"one\ntw"


def drawn(events: list[Event], width: int = 60, height: int = 24, *, finish: bool = True) -> list[str]:
    """What the live view shows, drawn once on a terminal of this size."""
    from rich.console import Console

    from builder.cli.progress_tty import View

    view = View()
    for event in events:
        view.emit(event)
    if finish:
        view.finish()
    out = io.StringIO()
    Console(file=out, width=width, height=height, force_terminal=False, color_system=None).print(view)
    return out.getvalue().splitlines()


def test_the_live_view() -> None:
    lines = drawn(EVENTS)
    assert lines[0].endswith("(failed)")
    assert lines[1].startswith(" => CACHED [1/2] FROM base") and lines[1].endswith(" 0.0s")
    assert lines[2].startswith(" => ERROR [2/2] RUN make\\x1b[2J") and lines[2].endswith(" 2.0s")
    assert lines[3:7] == [" => => one", " => => two", " => => 30%", " => => last"]
    assert any("WARN JSONArgsRecommended" in line for line in lines)
    assert all(len(line) <= 60 for line in lines)


def test_the_live_view_fits_the_screen_and_shows_what_runs() -> None:
    many = [StepStarted(str(n), n, f"step {n}", 100.0) for n in range(50)]
    lines = drawn([*many, StepLog("49", b"working\n", 101.0)], height=10, finish=False)
    assert len(lines) <= 9 and lines[0].startswith("[+] Building")
    assert lines[-1] == " => => working"
    assert len(drawn(list(many), height=10)) == 51, "the last picture stays, whole"


def test_the_live_view_keeps_only_what_it_shows() -> None:
    from builder.cli.progress_tty import View

    view = View()
    view.emit(StepStarted("a", 1, "RUN yes", 0.0))
    began = time.process_time()
    for _ in range(16_000):
        view.emit(StepLog("a", b"x" * 65536, 1.0))
    assert time.process_time() - began < 2.0, "1 GB"
    assert len(view._rows["a"].tail) <= 4096


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_lines_are_whole_and_harmless_however_they_arrive(parts: list[bytes]) -> None:
    lines = Lines()
    shown = b"".join([*(lines.take(part) for part in parts), lines.finish()])
    assert shown == b"" or shown.endswith(b"\n")
    whole = b"".join(parts)
    assert shown == cleaned(whole if not whole or whole.endswith(b"\n") else whole + b"\n")
    text = shown.decode()
    assert not any((ord(char) < 32 and char not in "\t\n") or 0x7F <= ord(char) < 0xA0 for char in text)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x1b[1;31mred\x1b[0m\n", "red\n"),
        (b"\x1b]0;title\x07x\x1b]8;;http://e\x1b\\y\n", "xy\n"),
        (b"\x1b[2J\x1bcx\n", "\\x1bcx\n"),
        (b"1%\r2%\r\n", "2%\n"),
        (b"done\r\n", "done\n"),
        (b"\xff\xc2\x9b31m\n", "\ufffd\\x9b31m\n"),
        ("héllo\t漢\n".encode(), "héllo\t漢\n"),
        (b"\x00\x08\n", "\\x00\\x08\n"),
    ],
)
def test_cleaned(raw: bytes, shown: str) -> None:
    assert cleaned(raw).decode() == shown


def test_a_line_without_end_is_neither_lost_nor_held() -> None:
    lines = Lines()
    shown = b"".join(lines.take(b"x" * 50_000) for _ in range(20)) + lines.finish()
    assert shown.count(b"x") == 1_000_000
    bar = Lines()
    assert b"".join(bar.take(b"%d%%\r" % n) for n in range(100_000)) == b""
    assert len(bar._rest) < 70_000
    assert bar.finish() == b"99999%\n"


def test_which_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUILDKIT_PROGRESS", raising=False)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert progress._chosen("auto") == "plain"
    monkeypatch.setenv("BUILDKIT_PROGRESS", "rawjson")
    assert (progress._chosen("auto"), progress._chosen("plain")) == ("rawjson", "plain")
    monkeypatch.setenv("BUILDKIT_PROGRESS", "tty")
    assert progress._chosen("auto") == "plain", "a terminal is only wished for"
    monkeypatch.setenv("BUILDKIT_PROGRESS", "loud")
    with pytest.raises(UsageError, match="loud"):
        progress._chosen("auto")
    with pytest.raises(UsageError, match="needs a terminal"):
        progress._chosen("tty")


def test_colours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from builder.cli.colours import colours

    monkeypatch.delenv("BUILDKIT_COLORS", raising=False)
    assert colours() == {"run": "blue", "error": "red", "cancel": "yellow", "warning": "yellow"}
    monkeypatch.setenv("BUILDKIT_COLORS", "run=123,20,245:error=light-red:cancel=default")
    wanted = {"run": "rgb(123,20,245)", "error": "bright_red", "cancel": "default", "warning": "yellow"}
    assert colours() == wanted and capsys.readouterr().err == ""
    for wrong in ("run=mauve", "run=1,2,256", "go=red", "run"):
        monkeypatch.setenv("BUILDKIT_COLORS", f"{wrong}:error=green")
        assert colours()["run"] == "blue" and colours()["error"] == "green"
        assert repr(wrong) in capsys.readouterr().err


def test_the_live_view_has_these_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from builder.cli.progress_tty import View

    monkeypatch.setenv("BUILDKIT_COLORS", "run=green")
    view, out = View(), io.StringIO()
    view.emit(StepStarted("a", 1, "RUN x", 0.0))
    view.emit(StepDone("a", 0.0, 0.0, cached=True))
    Console(file=out, width=60, height=20, force_terminal=True, color_system="standard").print(view)
    assert "\x1b[32m => CACHED RUN x" in out.getvalue()

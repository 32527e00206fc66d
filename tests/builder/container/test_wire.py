from __future__ import annotations

import gc
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.container import wire


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([b"J", b"I", b"O", b"X"]), st.binary(max_size=50))), st.integers(1, 9)
)
def test_frames_come_out_as_they_went_in(frames: list[tuple[bytes, bytes]], step: int) -> None:
    data = b"".join(wire.frame(*each) for each in frames)
    reader, found = wire.Frames(), []
    for start in range(0, len(data), step):
        found += reader.feed(data[start : start + step])
    assert found == frames


def test_a_frame_too_long() -> None:
    with pytest.raises(ValueError, match="too long"):
        wire.Frames().feed(b"O\xff\xff\xff\xff")


def test_a_socket_below_a_long_path(tmp_path: Path) -> None:
    """A socket's own path may have 107 bytes; a store may lie anywhere."""
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    with wire.listen(str(folder)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(wire.document(wire.ANSWER, {"heard": True}))

        thread = threading.Thread(target=serve)
        thread.start()
        assert wire.ask(str(folder), {"do": "x"}) == {"heard": True}
        thread.join()
    with wire.listen(str(folder)):  # what a killed one left is no obstacle
        assert os.path.lexists(folder / "control")
    with pytest.raises(OSError):
        wire.connect(str(folder))


def test_a_container_that_is_gone_leaves_no_socket(tmp_path: Path) -> None:
    for way in (wire.connect, wire.listen):
        with pytest.raises(FileNotFoundError):
            way(str(tmp_path / "gone"))
    gc.collect()  # an unclosed socket is a warning, and so a failure


def test_documents() -> None:
    ((kind, body),) = wire.Frames().feed(wire.document(wire.END, {"status": 3}))
    assert (kind, json.loads(body)) == (b"X", {"status": 3})

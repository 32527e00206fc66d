"""`mode=delete`: what goes, what stays, and where it is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.entitlements import DELETE
from builder.errors import UsageError
from builder.export.local import LocalExporter, TarExporter, refuse_deletion, remove_others


def test_what_the_image_has_not_goes(tmp_path: Path) -> None:
    dest, elsewhere = tmp_path / "dest", tmp_path / "elsewhere"
    for folder in (dest / "kept" / "old", dest / "old", elsewhere):
        folder.mkdir(parents=True)
    for path in (dest / "kept" / "a", dest / "kept" / "old" / "b", dest / "old" / "c", elsewhere / "safe"):
        path.write_text("x")
    for link in (dest / "old" / "link", dest / "link", dest / "kept" / "link", dest / "way"):
        link.symlink_to(elsewhere)
    remove_others(str(dest), {b"kept", b"kept/a", b"way", b"way/no"})
    left = sorted(str(path.relative_to(dest)) for path in dest.rglob("*"))
    assert left == ["kept", "kept/a", "way"], "a link that the image has is not gone through"
    assert (elsewhere / "safe").exists()


def _refuse(dest: object, allow: frozenset[str] = frozenset(), context: str = "-") -> None:
    refuse_deletion([LocalExporter(str(dest), None, True)], allow, (context, "", "https://example.org"))


def test_where_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, outside = tmp_path / "here", tmp_path / "outside"
    (here / "context" / "out").mkdir(parents=True)
    outside.mkdir()
    (here / "way").symlink_to(outside)
    monkeypatch.chdir(here)
    every = frozenset({DELETE})
    for dest in ("/", ".", "..", here, tmp_path, "context/..", "context"):
        with pytest.raises(UsageError, match="would delete"):
            _refuse(dest, every, "context")
    for dest in (outside, "way", "way/below", "../here2", "/nowhere"):
        with pytest.raises(UsageError, match="outside of the working directory"):
            _refuse(dest)
        _refuse(dest, every)
    for dest in ("out", "context/out", here / "new" / "deep"):
        _refuse(dest, context="context")
    refuse_deletion([LocalExporter("/"), object()], frozenset(), ())
    for other in (TarExporter("out/x.tar"), LocalExporter("out"), LocalExporter("out/deep")):
        for both in ([LocalExporter("out", None, True), other], [other, LocalExporter("out", None, True)]):
            with pytest.raises(UsageError, match="would delete"):
                refuse_deletion(both, every, ())
    refuse_deletion([LocalExporter("out", None, True), TarExporter("-"), TarExporter("out2")], every, ())


def test_a_link_as_dest_is_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "old").write_text("x")
    os.symlink("real", tmp_path / "link")
    remove_others(str(tmp_path / "link"), set())
    assert os.listdir(tmp_path / "real") == [] and (tmp_path / "link").is_symlink()

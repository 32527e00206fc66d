from __future__ import annotations

import re

from builder.graph import ContextSource, Copy, Exec, Scratch, Step
from builder.solver.cache import Cache, StepRecord, at_clock, now
from builder.solver.keys import content_key, definition_key
from oci.digest import Digest
from oci.layer import Layer

LAYER = Layer("application/vnd.oci.image.layer.v1.tar+gzip", Digest.of(b"blob"), 4, Digest.of(b"tar"), 1024)
SCRATCH = Step(Scratch())


class Memory(dict[str, str]):
    def put(self, key: str, value: str) -> None:
        self[key] = value


def test_a_record_comes_back_as_it_was_stored() -> None:
    cache = Cache(Memory())
    for record in (
        StepRecord(LAYER, now(), "step-1", None),
        StepRecord(None, now(), clock=0),
        StepRecord(LAYER, now(), clock=12),
    ):
        cache.store("k", record)
        assert cache.record("k") == record
    assert cache.record("other") is None


def test_a_row_that_cannot_be_read_is_a_miss() -> None:
    rows = Memory(k="{", a="[]", b='{"layer": {"digest": "sha256:x"}}', c='{"layer": null}', d="null")
    assert [Cache(rows).record(key) for key in "kabcd"] == [None] * 5


def test_an_alias_is_no_record() -> None:
    cache = Cache(Memory())
    cache.store_alias("definition", "content")
    assert cache.alias("definition") == "content"
    assert cache.record("definition") is None
    assert cache.alias("content") is None


def test_moments_are_rfc_3339() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", now())
    assert at_clock(0) == "1970-01-01T00:00:00Z"


def test_a_definition_key_covers_everything_that_a_run_sees() -> None:
    """SECURITY.md S70."""
    plain = Exec(("sh",), ())
    others = [
        Exec(("bash",), ()),
        Exec(("sh",), (("A", "1"),)),
        Exec(("sh",), (), cwd="/x"),
        Exec(("sh",), (), user="1"),
        Exec(("sh",), (), network="none"),
        Exec(("sh",), (), extra_hosts=(("h", "1.2.3.4"),)),
        Exec(("sh",), (), hostname="h"),
        Exec(("sh",), (), shm_size=1),
        Exec(("sh",), (), ulimits=(("nofile", 1, 1),)),
        Exec(("sh",), (), security_opts=("no-new-privileges",)),
    ]
    keys = {definition_key(Step(op, (SCRATCH,)), ("k",), clocked=False) for op in (plain, *others)}
    assert len(keys) == 1 + len(others)
    same = Exec(("sh",), (), proxy_env=(("http_proxy", "x"),))
    step, other = Step(plain, (SCRATCH,)), Step(same, (SCRATCH,))
    assert definition_key(step, ("k",), clocked=False) == definition_key(other, ("k",), clocked=False)
    assert definition_key(step, ("k",), clocked=False) != definition_key(step, ("k2",), clocked=False)
    assert definition_key(step, ("k",), clocked=False) != definition_key(step, ("k",), clocked=True)


def test_a_content_key_is_of_the_content_and_not_of_where_it_came_from() -> None:
    """SECURITY.md S70."""
    step = Step(Copy((ContextSource(("a",)),), "/b"), (SCRATCH,))
    one = content_key(step, "target", ("sum",), clocked=False)
    assert one == content_key(step, "target", ("sum",), clocked=False)
    assert one != content_key(step, "target", ("sum2",), clocked=False)
    assert one != content_key(step, "target2", ("sum",), clocked=False)
    moved = Step(Copy((ContextSource(("a",)),), "/c"), (SCRATCH,))
    assert one != content_key(moved, "target", ("sum",), clocked=False)

from __future__ import annotations

import json

import pytest

from builder.container.documents import decoded, encoded
from builder.container.model import Container, RunRequest, State
from builder.container.ports import Port
from builder.container.volume_options import Volume
from builder.limiting import Limiting
from builder.sandbox.spec import Limits

CONTAINER = Container(
    id="0" * 64,
    name="a_b",
    image="bb",
    manifest="sha256:" + "1" * 64,
    manifest_type="application/vnd.oci.image.manifest.v1+json",
    manifest_size=7,
    image_id="sha256:" + "2" * 64,
    created="2026-01-01T00:00:00.000000000Z",
    argv=("sh", "-c", "echo \udcff"),
    request=RunRequest(
        args=("x",),
        entrypoint="",
        env=(("A", "1"),),
        allow=frozenset({"b", "a"}),
        limits=Limiting(Limits(), Limits(memory=1 << 30, io=(("/dev/sda", "rbps", 5),)), "", True),
        ports=(Port("", 80, 8080, "tcp"),),
        volumes=(Volume("bind", "/a", "/b", read_only=True),),
        stop_timeout_s=3.5,
    ),
    labels=(("k", "v"),),
)


@pytest.mark.parametrize(
    "value", [CONTAINER, State(), State(status="running", pid=3, uppers=("lives/1/keep/fs",))]
)
def test_what_is_written_is_read(value: Container | State) -> None:
    assert decoded(type(value), json.loads(json.dumps(encoded(value)))) == value


def test_fields_of_other_versions() -> None:
    """What nobody knows is passed over, what is missing has its default."""
    assert decoded(State, {"status": "exited", "of_tomorrow": {"x": 1}}) == State(status="exited")
    assert encoded(State()) == {}


@pytest.mark.parametrize("document", [None, [], {"id": "x"}, {"id": 1, "request": 5}])
def test_what_is_none(document: object) -> None:
    with pytest.raises(ValueError):
        decoded(Container, document)

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from builder.container.model import Container, RunRequest, State
from builder.container.store import Containers, users_of
from builder.container.volume_options import Volume
from builder.errors import NotFound, UsageError
from builder.roster import held


def container(number: int = 1, name: str = "one", **more: object) -> Container:
    made = Container(
        id=f"{number:x}" * 64,
        name=name,
        image="bb",
        manifest="sha256:" + f"{number:x}" * 64,
        manifest_type="application/vnd.oci.image.manifest.v1+json",
        manifest_size=7,
        image_id="sha256:" + "2" * 64,
        created=f"2026-01-0{number}T00:00:00.000000000Z",
        argv=("sh",),
        request=RunRequest(),
    )
    return replace(made, **more)  # type: ignore[arg-type]


@pytest.fixture
def containers(tmp_path: Path) -> Containers:
    os.mkdir(tmp_path / "containers")
    return Containers(str(tmp_path))


def test_a_container_and_its_names(containers: Containers) -> None:
    one, two = container(1, "one"), container(2, "two")
    containers.add(one)
    containers.add(two)
    assert containers.get(one.id) == one and containers.state(one.id) == State()
    assert {containers.find(word) for word in ("one", "/one", one.id, "1", "1" * 12)} == {one.id}
    assert [each.name for each, _ in containers.all()] == ["two", "one"]
    containers.rename(one.id, "other")
    assert containers.find("other") == one.id
    with pytest.raises(NotFound):
        containers.find("one")


@pytest.mark.parametrize("name", ["", "x", "-ab", "a/b", "a b", "é1", "..", "a\n"])
def test_what_is_no_name(containers: Containers, name: str) -> None:
    with pytest.raises(UsageError):
        containers.add(container(name=name))
    assert containers.ids() == [] and sorted(os.listdir(os.path.join(containers.root, "containers"))) == []


def test_a_name_that_is_taken(containers: Containers) -> None:
    containers.add(container(1, "one"))
    with pytest.raises(UsageError, match="in use by the container 111111111111"):
        containers.add(container(2, "one"))
    assert containers.ids() == ["1" * 64]
    containers.forget("1" * 64)
    containers.add(container(2, "one"))
    assert containers.find("one") == "2" * 64


def test_a_name_whose_container_vanished(containers: Containers) -> None:
    containers.add(container(1, "one"))
    os.rename(containers.path("1" * 64), os.path.join(containers.root, "elsewhere"))
    containers.add(container(2, "one"))
    assert containers.find("one") == "2" * 64


def test_ambiguous_ids(containers: Containers) -> None:
    containers.add(container(1, "one"))
    containers.add(container(1, "two", id="1" * 63 + "2"))
    with pytest.raises(UsageError, match="begins several"):
        containers.find("11")
    with pytest.raises(NotFound):
        containers.find("3")


def test_a_monitor_that_was_killed(containers: Containers) -> None:
    """S96: nothing runs that nobody looks after, whatever was written down last."""
    one = container()
    containers.add(one)
    with containers.alone(one.id) as fd:
        assert fd >= 0
        containers.update(one.id, State(status="running", pid=5))
        assert containers.state(one.id).status == "running"
        with containers.alone(one.id, wait=False) as other:
            assert other == -1
    state = containers.state(one.id)
    assert (state.status, state.exit_code, state.pid) == ("exited", 137, 0)


def test_damage_is_no_obstacle(containers: Containers) -> None:
    one = container()
    containers.add(one)
    for name in ("config.json", "state.json"):
        Path(containers.path(one.id, name)).write_text("{}" if name == "config.json" else "[")
    with pytest.raises((NotFound, ValueError)):
        containers.get(one.id)
    assert containers.all() == [] and containers.ids() == [one.id]
    containers.forget(one.id)
    assert containers.ids() == []


def test_what_containers_hold(containers: Containers) -> None:
    volumes = (Volume("volume", "data", "/data"),)
    containers.add(container(request=RunRequest(volumes=volumes)))
    assert [str(each.digest) for each in held(containers.root)] == ["sha256:" + "1" * 64]
    assert users_of(containers.root, "data") == ["1" * 64] and users_of(containers.root, "x") == []


def test_an_id_is_no_path(containers: Containers) -> None:
    with pytest.raises(ValueError):
        containers.path("../" + "1" * 61)

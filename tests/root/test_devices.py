"""RUN --device: what CDI files describe reaches a step that may have it, and nothing else does (I42)."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from builder import BuildRequest, build
from builder.errors import BuildError, DockerfileError, SandboxError, StepFailed, UsageError
from builder.sandbox.spec import Terminal
from builder.solver import devices

if TYPE_CHECKING:
    from conftest import Workshop

    from builder.solver.failed import FailedStep

pytestmark = pytest.mark.root

ALL = frozenset({"device"})
GUARDED = ["nosuid", "noexec"]
ZERO = {"path": "/dev/many-zeros", "hostPath": "/dev/zero"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of descriptions that counts most."""
    first, second = tmp_path / "etc", tmp_path / "run"
    first.mkdir()
    second.mkdir()
    monkeypatch.setattr(devices, "PLACES", (str(first), str(second)))
    return second


def describe(file: Path, kind: str = "acme.com/gpu", common: Any = None, **edits: Any) -> None:
    named = [{"name": name, "containerEdits": each} for name, each in edits.items()]
    text = {"cdiVersion": "0.6.0", "kind": kind, "devices": named, "containerEdits": common or {}}
    file.write_text(json.dumps(text))


def test_nodes_mounts_variables_and_groups(shop: Workshop, place: Path, tmp_path: Path) -> None:
    (tmp_path / "driver").mkdir()
    (tmp_path / "driver" / "lib").write_text("driver\n")
    (tmp_path / "note").write_text("note\n")
    describe(
        place / "acme.json",
        common={"env": ["DRIVER=1", "PATH=/bin:/driver"], "additionalGids": [0, 77]},
        one={
            "deviceNodes": [ZERO],
            "mounts": [
                {"hostPath": f"{tmp_path}/driver", "containerPath": "/driver", "options": GUARDED},
                {"hostPath": str(tmp_path / "note"), "containerPath": "/note", "options": ["rw", "bind"]},
            ],
        },
        two={"env": ["TWO=2"]},
    )  # fmt: skip
    text = (
        "FROM base\nENV DRIVER=0\nRUN --device=acme.com/gpu=one head -c 3 /dev/many-zeros | wc -c; ls /dev; "
        "cat /driver/lib; echo changed >> /note; env; id; echo x > /driver/y; grep driver /proc/mounts\n"
        "RUN ls /dev /; ! env | grep TWO\n"
    )
    built = shop.build(text, allow=ALL, outputs=shop.tar())
    shown, after = shop.output().split("Read-only file system", 1)
    assert shown.startswith("3\n") and "many-zeros" in shown and "driver\n" in shown
    assert "DRIVER=1\n" in shown and "PATH=/bin:/driver\n" in shown and "DRIVER=0" not in shown
    assert "groups=0(root),77" in shown and "TWO" not in shown
    assert "ro,nosuid,nodev,noexec" in after
    assert (tmp_path / "note").read_text() == "note\nchanged\n"
    assert after.count("many-zeros") == 0, "another step has none of it"
    assert not {"driver", "note", "dev/many-zeros"} & set(shop.files(built)), "no mount point stays"


def test_names(shop: Workshop, place: Path) -> None:
    describe(place / "a.json", one={"env": ["ONE=1"]}, two={"env": ["TWO=2"]})
    document = json.loads((place / "a.json").read_text())
    document |= {"kind": "other.org/tpu", "annotations": {devices.CLASS: "fast"}}
    document["devices"] = [{"name": "x", "containerEdits": {"env": ["FAST=3"]}}]
    (place / "b.json").write_text(json.dumps(document))
    for name, expected in {
        "acme.com/gpu=two": {"TWO"},
        "acme.com/gpu=*": {"ONE", "TWO"},
        "acme.com/gpu": {"ONE"},
        "fast": {"FAST"},
        "acme.com/gpu=three": set(),
        "slow": set(),
    }.items():
        shop.build(f"FROM base\nRUN --device={name} env\n", allow=ALL)
        found = {line.partition("=")[0] for line in shop.output().splitlines()}
        assert found & {"ONE", "TWO", "FAST"} == expected, name


def test_a_required_device_that_is_not_there(shop: Workshop, place: Path) -> None:
    text = "FROM base\nRUN --device=acme.com/gpu=one,required true\n"
    with pytest.raises(SandboxError, match=r"acme.com/gpu=one is not on this machine") as caught:
        shop.build(text, allow=ALL)
    assert "describes a device" in caught.value.hint and str(caught.value.at).endswith("Dockerfile:2")
    (place / "nvidia.yaml").write_text("kind: acme.com/gpu\n")
    with pytest.raises(SandboxError) as caught:
        shop.build(text, allow=ALL)
    assert "describes a device" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("x.json", "kind: acme.com/gpu\n", "x.json (Expecting value"),
        ("x.yaml", "kind: a\ndevices: [\n", "x.yaml (line 3: "),
        ("x.yaml", "kind: a\ndevices: !!python/object/apply:os.getcwd []\n", "x.yaml (line 2: "),
        ("x.yaml", "kind: \0\n", "x.yaml ("),
        ("x.yaml", "[" * 100_000, "x.yaml ("),
        ("x.yaml", "- kind\n", "x.yaml (it is no object)"),
        ("x.yml", "kind: a\n", "x.yml (its name is to end with .yaml)"),
    ],
)
def test_a_description_that_cannot_be_read_is_named(
    shop: Workshop, place: Path, name: str, content: str, shown: str
) -> None:
    (place / name).write_text(content)
    with pytest.raises(SandboxError, match="is not on this machine") as caught:
        shop.build("FROM base\nRUN --device=acme.com/gpu=one,required true\n", allow=ALL)
    assert shown in caught.value.hint


def test_descriptions_in_yaml(shop: Workshop, place: Path) -> None:
    (place / "acme.yaml").write_text(
        "# as nvidia-ctk writes it\n---\ncdiVersion: 0.5.0\nkind: acme.com/gpu\ncontainerEdits:\n  env:\n"
        "  - DRIVER=void\ndevices:\n- name: '0'\n  containerEdits:\n    deviceNodes:\n"
        f"    - path: {ZERO['path']}\n      hostPath: {ZERO['hostPath']}\n      fileMode: 0666\n"
        "      permissions: rw\n- containerEdits: {env: [ONE=1]}\n  name: one\n"
    )
    shop.build(
        "FROM base\nRUN --device=acme.com/gpu=0 head -c 3 /dev/many-zeros | wc -c; env\n"
        "RUN --device=acme.com/gpu=one env\n",
        allow=ALL,
    )
    assert {"3", "DRIVER=void", "ONE=1"} <= set(shop.output().splitlines())


def test_later_places_win_and_two_files_of_one_place_do_not(shop: Workshop, place: Path) -> None:
    describe(place.parent / "etc" / "a.json", one={"env": ["WHO=etc"]})
    describe(place.parent / "etc" / "b.json", one={"env": ["WHO=etc too"]})
    text = "FROM base\nRUN --device=acme.com/gpu=one env\n"
    with pytest.raises(SandboxError, match=r"is described by .*a\.json and .*b\.json"):
        shop.build(text, allow=ALL)
    describe(place / "a.json", one={"env": ["WHO=run"]})
    shop.build(text, allow=ALL)
    assert "WHO=run\n" in shop.output()


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ({"hooks": [{"hookName": "createContainer", "path": "/bin/true"}]}, "it has hooks: they would run"),
        ({"netDevices": [{"hostInterfaceName": "eth0"}]}, "it has netDevices"),
        ({"deviceNodes": [{"path": "/dev/none"}]}, "/dev/none: No such file"),
        ({"deviceNodes": [{"path": "/etc/passwd"}]}, "/etc/passwd is no device"),
        ({"deviceNodes": [{**ZERO, "uid": 5}]}, "has uid 0, and is to be shown with 5"),
        ({"deviceNodes": [{**ZERO, "permissions": "r"}]}, "which needs rw"),
        ({"deviceNodes": [{"path": "dev/zero"}]}, "path is no absolute path"),
        ({"mounts": [{"hostPath": "/", "containerPath": "/host"}]}, "hostPath is no absolute path"),
        ({"mounts": [{"hostPath": "/etc", "containerPath": "/a/../b"}]}, "containerPath is no absolute path"),
        ({"mounts": [{"hostPath": "/etc", "containerPath": "/e", "options": ["x"]}]}, "has x"),
        ({"mounts": [{"hostPath": "/etc", "containerPath": "/e", "type": "tmpfs"}]}, "has type tmpfs"),
        ({"mounts": "x"}, "mounts is no list"),
        ({"env": ["NOVALUE"]}, "is no variable"),
        ({"additionalGids": [-1]}, "additionalGids"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(shop: Workshop, place: Path, edits: Any, said: str) -> None:
    describe(place / "a.json", one=edits)
    with pytest.raises(SandboxError) as caught:
        shop.build("FROM base\nRUN --device=acme.com/gpu=one true\n", allow=ALL)
    assert said in str(caught.value) and "acme.com/gpu=one" in str(caught.value)


def test_it_has_to_be_allowed(shop: Workshop, place: Path) -> None:
    describe(place / "a.json", one={"env": ["ONE=1"]})
    text = "FROM base\nRUN --device=acme.com/gpu=one env\n"
    for allow in ((), ("device=acme.com/gpu=two",), ("device=acme.com/tpu",), ("security.insecure",)):
        with pytest.raises(DockerfileError, match=r"RUN --device=acme.com/gpu=one is not allowed") as caught:
            shop.build(text, allow=frozenset(allow))
        assert "--allow device=acme.com/gpu=one" in caught.value.hint
    for name in ("device", "device=acme.com/gpu=one", "device=acme.com/gpu", "device=acme.com/gpu=*"):
        shop.build(text, allow=frozenset({name}), no_cache=True)
        assert "ONE=1" in shop.output()
    with pytest.raises(UsageError, match="is no entitlement"):
        shop.build(text, allow=frozenset({"device=!"}))


def test_names_are_part_of_the_key_and_descriptions_are_not(shop: Workshop, place: Path) -> None:
    describe(place / "a.json", one={"env": ["ONE=1"]})
    shop.build("FROM base\nRUN --device=acme.com/gpu=one true\n", allow=ALL)
    describe(place / "a.json", one={"env": ["ONE=2"]})
    shop.build("FROM base\nRUN --device=acme.com/gpu=one true\n", allow=ALL)
    assert shop.ran() == []
    shop.build("FROM base\nRUN --device=acme.com/gpu=two true\n", allow=ALL)
    assert len(shop.ran()) == 1


@pytest.mark.parametrize(
    "text", ["", "=x", "a b", "v/c=a,v/c=b", "v/c,requird", "v/c,required=maybe", "a/b/c", "x,y=z"]
)
def test_what_is_no_device(shop: Workshop, text: str) -> None:
    with pytest.raises(BuildError):
        shop.build(f'FROM base\nRUN --device="{text}" true\n', allow=ALL)


def test_a_device_beside_mounts_of_the_step(shop: Workshop, place: Path) -> None:
    describe(
        place / "a.json", one={"mounts": [{"hostPath": "/etc/hostname", "containerPath": "/t/hostname"}]}
    )
    shop.build("FROM base\nRUN --mount=type=tmpfs,target=/t --device=acme.com/gpu ls /t\n", allow=ALL)
    assert shop.output() == "hostname\n" and os.path.exists("/etc/hostname")


def test_the_shell_of_a_failed_step_has_them_too(shop: Workshop, place: Path, tmp_path: Path) -> None:
    """As they are: only what the store would keep is kept from it."""
    (tmp_path / "note").write_text("note")
    mount = {"hostPath": str(tmp_path / "note"), "containerPath": "/note", "options": ["rw", "bind"]}
    describe(place / "acme.json", one={"deviceNodes": [ZERO], "mounts": [mount]})
    said: list[bytes] = []

    def look(failed: FailedStep) -> None:
        with failed.entered("/bin/sh", Terminal()) as running:
            master = running.terminal()
            os.write(master, b"head -c 3 /dev/many-zeros | wc -c; cat /note; echo changed > /note; exit\n")
            with suppress(OSError):
                while block := os.read(master, 1 << 16):
                    said.append(block)
            os.close(master)
            assert running.wait().status == 0

    shop.write("Dockerfile", "FROM base\nRUN --device=acme.com/gpu=one false\n")
    request = BuildRequest(context=str(shop.context), root=shop.root, network="none", allow=ALL)
    with pytest.raises(StepFailed):
        build(request, on_failure=look)
    assert b"\r\n3\r\nnote" in b"".join(said)
    assert (tmp_path / "note").read_text() == "changed\n"

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import pytest

from oci.errors import Unauthorized
from oci.registry.auth import Credential, CredentialStore, key_of

HUB = "https://index.docker.io/v1/"

HELPER = r"""#!/usr/bin/python3 -IS
import json, os, sys
path = os.environ["HELPER_FILE"]
kept = json.load(open(path)) if os.path.exists(path) else {}
verb, asked = sys.argv[1], sys.stdin.read()
sys.stderr.write("SECRET-ON-STDERR")
if verb == "get":
    if asked not in kept:
        sys.stdout.write("credentials not found in native keychain")
        sys.exit(1)
    sys.stdout.write(json.dumps({"ServerURL": asked, "Username": kept[asked][0], "Secret": kept[asked][1]}))
elif verb == "store":
    value = json.loads(asked)
    kept[value["ServerURL"]] = [value["Username"], value["Secret"]]
elif verb == "erase":
    kept.pop(asked, None)
elif verb == "list":
    sys.stdout.write(json.dumps({key: value[0] for key, value in kept.items()}))
json.dump(kept, open(path, "w"))
"""


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


@pytest.fixture
def store(path: Path) -> CredentialStore:
    return CredentialStore((str(path),), helper_timeout=60.0)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on PATH for helpers, and the file that ours keeps its passwords in."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    monkeypatch.setenv("HELPER_FILE", str(tmp_path / "kept.json"))
    return directory


def program(directory: Path, name: str, text: str = HELPER) -> None:
    path = directory / f"docker-credential-{name}"
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": encoded("me:pass:word")}, Credential("me", "pass:word")),
        ({"username": "me", "password": "x"}, Credential("me", "x")),
        ({"auth": encoded("00000000:"), "identitytoken": "tok"}, Credential(identity_token="tok")),
        ({"registrytoken": "tok"}, Credential(registry_token="tok")),
        ({}, None),
        ({"auth": ""}, None),
    ],
)
def test_entries(entry: object, expected: Credential | None, path: Path, store: CredentialStore) -> None:
    path.write_text(json.dumps({"auths": {"host.example": entry}}))
    assert store.get("host.example") == expected


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("host.example", "host.example"),
        ("host.example:5000", "host.example:5000"),
        ("https://host.example", "host.example"),
        ("https://host.example/v1/", "host.example"),
        ("http://host.example/v2", "host.example"),
        (HUB, "docker.io"),
        ("docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "registry-1.docker.io"),
    ],
)
def test_the_names_of_a_registry(key: str, host: str, path: Path, store: CredentialStore) -> None:
    path.write_text(json.dumps({"auths": {key: {"auth": encoded("a:b")}}}))
    assert store.get(host) == Credential("a", "b")


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("host.example", "host.example:5000"),
        ("host.example:5000", "host.example"),
        ("example", "host.example"),
        ("host.example", "evil-host.example"),
        ("https://host.example.evil/v1/", "host.example"),
        (HUB, "docker.io.evil"),
        (HUB, "quay.io"),
        ("https://index.docker.io/other", "docker.io"),
    ],
)
def test_no_other_registry_gets_a_password(key: str, host: str, path: Path, store: CredentialStore) -> None:
    """S86."""
    path.write_text(json.dumps({"auths": {key: {"auth": encoded("a:b")}}}))
    assert store.get(host) is None


def test_podmans_narrower_keys_go_first(path: Path, store: CredentialStore) -> None:
    keys = ("q.io", "q.io/team", "q.io/team/app")
    path.write_text(json.dumps({"auths": {key: {"auth": encoded(f"{key}:x")} for key in keys}}))
    found = {name: store.get("q.io", name) for name in ("other/x", "team/x", "team/app", "teamster/x")}
    assert {name: value and value.username for name, value in found.items()} == {
        "other/x": "q.io", "team/x": "q.io/team", "team/app": "q.io/team/app", "teamster/x": "q.io",
    }  # fmt: skip


def test_what_is_put_is_private_and_whole(path: Path, store: CredentialStore) -> None:
    """SECURITY.md S67."""
    path.write_text(json.dumps({"auths": {"https://a.example/v1/": {"auth": "x"}}, "detachKeys": "ctrl-e"}))
    assert store.put("a.example", Credential("me", "päss")) == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert store.get("a.example") == Credential("me", "päss")
    document = json.loads(path.read_text())
    assert document["detachKeys"] == "ctrl-e" and list(document["auths"]) == ["a.example"]
    store.put("docker.io", Credential("me", "x"))
    assert HUB in json.loads(path.read_text())["auths"]
    assert os.listdir(path.parent) == ["config.json"]


def test_erase(path: Path, store: CredentialStore) -> None:
    store.put("a.example", Credential("a", "b"))
    store.put("b.example", Credential(identity_token="t"))
    assert store.erase("a.example") and not store.erase("a.example")
    assert store.get("a.example") is None and store.get("b.example") == Credential(identity_token="t")


def test_a_link_stays_a_link(path: Path, tmp_path: Path, store: CredentialStore) -> None:
    real = tmp_path / "dotfiles" / "config.json"
    real.parent.mkdir()
    real.write_text("{}")
    path.symlink_to(real)
    store.put("a.example", Credential("a", "b"))
    assert path.is_symlink() and "a.example" in real.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected an object"),
        ('{"auths": {"a.example": {"auth": "CANARY!"}}}', "not base64"),
        ('{"auths": {"a.example": {"auth": "Q0FOQVJZ"}}}', "base64 of user:password"),
        ('{"auths": {"a.example": "CANARY"}}', "expected an object"),
    ],
)
def test_broken_files_are_named_but_not_shown(
    text: str, message: str, path: Path, store: CredentialStore
) -> None:
    path.write_text(text)
    with pytest.raises(Unauthorized, match=message) as caught:
        store.get("a.example")
    assert str(path) in str(caught.value) and "CANARY" not in str(caught.value)


def test_where_credentials_are_looked_for(tmp_path: Path) -> None:
    home = {"HOME": "/h"}
    podman = ("/run/u/containers/auth.json", "/h/.config/containers/auth.json")
    assert CredentialStore.default("", {**home, "XDG_RUNTIME_DIR": "/run/u"}).files == (
        "/h/.docker/config.json", *podman,
    )  # fmt: skip
    assert CredentialStore.default("", {**home, "DOCKER_CONFIG": "/d"}).files[0] == "/d/config.json"
    assert CredentialStore.default("", {**home, "REGISTRY_AUTH_FILE": "/r.json"}).files == ("/r.json",)
    assert CredentialStore.default("/a.json", {**home, "REGISTRY_AUTH_FILE": "/r.json"}).files == ("/a.json",)


def test_a_credential_does_not_show_itself() -> None:
    """SECURITY.md S66."""
    shown = repr(Credential("me", "CANARY", "CANARY", "CANARY"))
    assert "CANARY" not in shown and "me" in shown


@pytest.mark.parametrize(
    ("helper", "host", "name", "secret", "expected"),
    [
        ("desktop", "docker.io", "me", "pw", Credential("me", "pw")),
        ("ecr-login", "1234.dkr.ecr.eu-west-1.amazonaws.com", "AWS", "eyJ", Credential("AWS", "eyJ")),
        ("gcloud", "europe-docker.pkg.dev", "_dcgcloud_token", "ya29", Credential("_dcgcloud_token", "ya29")),
        ("acr-env", "team.azurecr.io", "<token>", "refresh", Credential(identity_token="refresh")),
    ],
)
def test_helpers_like_those_of_the_clouds(
    helper: str,
    host: str,
    name: str,
    secret: str,
    expected: Credential,
    path: Path,
    programs: Path,
    store: CredentialStore,
) -> None:
    program(programs, helper)
    path.write_text(json.dumps({"credHelpers": {key_of(host): helper}, "auths": {}}))
    assert store.get(host) is None
    given = Credential(identity_token=secret) if name == "<token>" else Credential(name, secret)
    assert store.put(host, given) == ""
    assert store.get(host) == expected
    assert store.get("other.example") is None
    assert secret not in path.read_text()
    assert store.erase(host) and store.get(host) is None


def test_creds_store_holds_for_all_hosts_but_those_with_a_helper(
    path: Path, programs: Path, store: CredentialStore
) -> None:
    program(programs, "pass")
    program(programs, "none", "#!/bin/sh\necho 'credentials not found in native keychain'; exit 1\n")
    path.write_text(json.dumps({"credsStore": "pass", "credHelpers": {"a.example": "none"}}))
    store.put("b.example", Credential("b", "x"))
    assert store.get("b.example") == Credential("b", "x")
    assert store.get("a.example") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "#!/bin/sh\necho 'the vault is locked'; echo CANARY >&2; exit 1\n",
            r"get failed \(status 1\): the vault is locked",
        ),
        ("#!/bin/sh\necho 'password: CANARY'; exit 3\n", r"status 3\)"),
        ("#!/bin/sh\necho CANARY\n", "no JSON with Username and Secret"),
        ("#!/bin/sh\necho '{\"Username\": 3}'\n", "no JSON with Username and Secret"),
        ("#!/bin/sh\nsleep 30\n", "did not answer within 0.3 s"),
    ],
)
def test_helpers_that_fail(text: str, message: str, path: Path, programs: Path) -> None:
    """SECURITY.md S68."""
    program(programs, "bad", text)
    path.write_text(json.dumps({"credsStore": "bad"}))
    store = CredentialStore((str(path),), helper_timeout=0.3 if "sleep" in text else 60.0)
    with pytest.raises(Unauthorized, match=message) as caught:
        store.get("a.example")
    assert "CANARY" not in str(caught.value) and "docker-credential-bad" in str(caught.value)


@pytest.mark.parametrize("name", ["../evil", "a/b", "a b", "$(x)", "ä"])
def test_names_that_are_no_helpers(name: str, path: Path, store: CredentialStore) -> None:
    """SECURITY.md S68."""
    path.write_text(json.dumps({"credsStore": name}))
    with pytest.raises(Unauthorized, match="no name of a credential helper"):
        store.get("a.example")


def test_helpers_are_never_taken_from_here(
    path: Path, tmp_path: Path, store: CredentialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SECURITY.md S68."""
    here = tmp_path / "here"
    here.mkdir()
    program(here, "local")
    monkeypatch.chdir(here)
    monkeypatch.setenv("PATH", f":.:{os.environ['PATH']}")
    path.write_text(json.dumps({"credsStore": "local"}))
    with pytest.raises(Unauthorized, match="not on PATH"):
        store.get("a.example")

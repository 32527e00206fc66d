"""--secret and --ssh as people write them."""

from __future__ import annotations

import os

import pytest

from builder.cli.lending import agent, secret
from builder.errors import UsageError
from builder.secrets import Agent, Secret

CANARY = "canary-93d1"


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET", CANARY)
    monkeypatch.delenv("UNSET", raising=False)
    monkeypatch.setenv("SSH_AUTH_SOCK", "/agent/socket")


HERE = os.getcwd()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id=a,src=f", Secret("a", f"{HERE}/f")),
        ("id=a,source=/f", Secret("a", "/f")),
        ("SRC=/f,ID=a", Secret("a", "/f")),
        ("id=a,env=SET", Secret("a", value=CANARY.encode())),
        ("id=a,env=UNSET", Secret("a", value=b"")),
        ("type=env,id=a,src=SET", Secret("a", value=CANARY.encode())),
        ("type=env,id=SET", Secret("SET", value=CANARY.encode())),
        ("type=file,id=a,src=/f", Secret("a", "/f")),
        ("id=SET", Secret("SET", value=CANARY.encode())),
        ("id=a,src=/f,cache-key=hash", Secret("a", "/f", counts=True)),
        ("id=SET,cache-key=hash", Secret("SET", value=CANARY.encode(), counts=True)),
        ("id=UNSET", Secret("UNSET", f"{HERE}/UNSET")),
        ("type=file,id=SET", Secret("SET", f"{HERE}/SET")),
        ('id=a,"src=/with,comma"', Secret("a", "/with,comma")),
    ],
)
def test_a_secret(text: str, expected: Secret) -> None:
    found = secret(text)
    assert found == expected and found.value == expected.value


@pytest.mark.parametrize(
    "text",
    [
        "",
        CANARY,
        f"src={CANARY}",
        f"id=a,value={CANARY}",
        f"id=a,{CANARY}",
        f"id=a,type={CANARY}",
        f"id=a,src=/f,cache-key={CANARY}",
        "id=a,src=/f,env=SET",
    ],
)
def test_what_is_no_secret_is_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        secret(text)
    assert CANARY not in f"{caught.value} {caught.value.hint}" and "id=NAME" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("default", Agent("default", ("/agent/socket",))),
        ("other", Agent("other", ("/agent/socket",))),
        ("a=/s", Agent("a", ("/s",))),
        ("a=/k,k", Agent("a", ("/k", f"{HERE}/k"))),
    ],
)
def test_an_agent(text: str, expected: Agent) -> None:
    assert agent(text) == expected


@pytest.mark.parametrize("text", ["", "=/s", "a=", "a=,"])
def test_what_is_no_agent(text: str) -> None:
    with pytest.raises(UsageError, match="--ssh"):
        agent(text)


def test_without_an_agent_it_is_said_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(UsageError, match="SSH_AUTH_SOCK is not set") as caught:
        agent("default")
    assert "--ssh default=FILE" in caught.value.hint

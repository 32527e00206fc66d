"""Which configuration is read, and what it may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder import config
from builder.errors import UsageError


def test_the_first_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = tmp_path / "system.toml"
    monkeypatch.setattr(config, "SYSTEM", str(system))
    home, xdg = tmp_path / "home", tmp_path / "xdg"
    environ = {"HOME": str(home)}
    assert config.find("", environ) == ""
    system.write_text("")
    assert config.find("", environ) == str(system)
    own = home / ".config" / "pybuild" / "config.toml"
    own.parent.mkdir(parents=True)
    own.write_text("")
    assert config.find("", environ) == str(own)
    assert config.find("", {**environ, "XDG_CONFIG_HOME": "relative"}) == str(own)
    assert config.find("", {**environ, "XDG_CONFIG_HOME": str(xdg)}) == str(system)
    elsewhere = xdg / "pybuild" / "config.toml"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text("")
    environ["XDG_CONFIG_HOME"] = str(xdg)
    assert config.find("", environ) == str(elsewhere)
    environ["PYBUILD_CONFIG"] = "/named/by/variable"
    assert config.find("", environ) == "/named/by/variable"
    assert config.find("/named/by/option", environ) == "/named/by/option"


def test_the_registry_part(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[registry."docker.io"]\nmirrors = ["mirror.example:5000/hub"]\n')
    found = config.registries(str(path))
    assert found.host("docker.io").mirrors == ("mirror.example:5000/hub",)
    assert not config.registries("").hosts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = [", "no TOML"),
        ('[registries."docker.io"]\n', "unknown part 'registries'"),
        ('[registry."a"]\nmirror = []\n', 'registry."a".mirror'),
        ('[registry."a"]\nhttp = "yes"\n', 'registry."a".http'),
        ("registry = 1\n", "expected a table"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        config.registries(str(path))
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_a_file_that_is_named_must_be_there() -> None:
    config.check("")
    with pytest.raises(OSError, match="nonexistent"):
        config.check("/nonexistent/config.toml")


def test_isolation(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('isolation = "strict"\n[registry."x:5000"]\nhttp = true\n')
    assert config.isolation(str(path)) == "strict"
    assert config.registries(str(path)).host("x:5000").http
    assert config.isolation("") == ""
    path.write_text("isolation = true\n")
    with pytest.raises(UsageError, match="isolation = True"):
        config.isolation(str(path))

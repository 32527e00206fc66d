from __future__ import annotations

from pathlib import Path

import pytest

from oci.errors import InvalidDocument
from oci.reference import Reference
from oci.registry.config import Endpoint, HostConfig, KeyPair, RegistryConfig, host_name, is_loopback

EXAMPLE = """
debug = true
[worker.oci]
  enabled = true
[registry."docker.io"]
  mirrors = ["mirror.example:5000", "cache.example/hub/proxy"]
[registry."mirror.example:5000"]
  http = true
  insecure = true
  ca = ["/ca.pem"]
  [[registry."mirror.example:5000".keypair]]
    key = "/key.pem"
    cert = "/cert.pem"
[registry."strict.example"]
  mirrors = ["mirror.example:5000"]
  fallback = false
"""


@pytest.fixture
def config(tmp_path: Path) -> RegistryConfig:
    path = tmp_path / "config.toml"
    path.write_text(EXAMPLE)
    return RegistryConfig.load(str(path))


def test_buildkits_shape(config: RegistryConfig) -> None:
    assert config.host("mirror.example:5000") == HostConfig(
        http=True, insecure=True, ca=("/ca.pem",), keypair=(KeyPair("/cert.pem", "/key.pem"),)
    )
    assert config.host("elsewhere.example") == HostConfig()
    assert RegistryConfig.load(None) == RegistryConfig()


def test_mirrors_come_first_and_are_never_written_to(config: RegistryConfig) -> None:
    name = Reference.parse("debian")
    own = Endpoint("docker.io", "registry-1.docker.io")
    assert config.endpoints(name) == (
        Endpoint("mirror.example:5000", "mirror.example:5000", "", "docker.io"),
        Endpoint("cache.example", "cache.example", "hub/proxy/", "docker.io"),
        own,
    )
    assert config.endpoints(name, write=True) == (own,)
    assert [e.host for e in config.endpoints(Reference.parse("strict.example/a"))] == ["mirror.example:5000"]


@pytest.mark.parametrize(
    ("host", "tls_verify", "schemes"),
    [
        ("any.example", None, ("https",)),
        ("any.example", True, ("https",)),
        ("any.example", False, ("https", "http")),
        ("plain.example", None, ("http",)),
        ("plain.example", True, ("https",)),
        ("both.example", None, ("https", "http")),
        ("loose.example", None, ("https", "http")),
        ("127.0.0.1:5000", None, ("http", "https")),
        ("localhost", None, ("http", "https")),
        ("[::1]:5000", None, ("http", "https")),
        ("127.0.0.9", None, ("https",)),
    ],
)
def test_plain_http_needs_a_word_or_a_loopback_host(
    host: str, tls_verify: bool | None, schemes: tuple[str, ...]
) -> None:
    """S87."""
    hosts = {
        "plain.example": HostConfig(http=True),
        "both.example": HostConfig(http=True, insecure=True),
        "loose.example": HostConfig(insecure=True),
        "127.0.0.9": HostConfig(ca=("/ca.pem",)),
    }
    assert RegistryConfig(hosts, tls_verify).schemes(host) == schemes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("registry = 3", "registry: expected a table"),
        ('[registry."a"]\nhttp = "yes"', 'registry."a".http: expected true or false'),
        ('[registry."a"]\nmirrors = "b"', "mirrors: expected a list of strings"),
        ('[registry."a"]\nmirrors = ["https://b"]', "without a scheme"),
        ('[registry."a"]\nmirror = ["b"]', "mirror: no such key; known are mirrors"),
        ('[registry."a"]\nkeypair = [{key = "k"}]', "expected `key` and `cert`"),
        ('[registry."a"]\ntlsconfigdir = ["/nowhere"]', "/nowhere: No such file"),
        ('[registry."a"]\nchunk = "50MB"', 'registry."a".chunk: expected a number of bytes'),
        ('[registry."a"]\nchunk = -1', "expected a number of bytes, not -1"),
        ("registry = [", "not valid TOML"),
    ],
)
def test_mistakes_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(InvalidDocument, match=message.replace("[", r"\[")) as caught:
        RegistryConfig.load(str(path))
    assert str(path) in str(caught.value)


def test_a_directory_of_certificates(tmp_path: Path) -> None:
    for name in ("a.crt", "client.cert", "client.key"):
        (tmp_path / name).touch()
    found = RegistryConfig.of({"registry": {"x": {"tlsconfigdir": [str(tmp_path)]}}}).host("x")
    assert found.ca == (f"{tmp_path}/a.crt",)
    assert found.keypair == (KeyPair(f"{tmp_path}/client.cert", f"{tmp_path}/client.key"),)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost:5000", True),
        ("x.localhost", True),
        ("127.9.9.9", True),
        ("[::1]", True),
        ("[::ffff:127.0.0.1]:5000", True),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_host_name() -> None:
    assert host_name("Host:5000") == "host"
    assert host_name("[::1]:5000") == "::1"

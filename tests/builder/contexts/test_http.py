"""Files behind URLs: fetched once, again only when they changed, with credentials for their host alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from sites import Site, site

from builder.contexts.http import Address, Downloads, authorization, modified
from builder.errors import FetchFailed
from oci.blobs import BlobStore
from oci.registry.patience import Patience
from oci.registry.web import Found, Wanted, Web, _file_name

MOMENT = "Wed, 21 Oct 2015 07:28:00 GMT"
SHA = "sha256:" + hashlib.sha256(b"content").hexdigest()


class Memory(dict[bytes, bytes]):
    def put_many(self, rows: object) -> None:
        self.update(rows)  # type: ignore[call-overload]


@pytest.fixture
def server() -> Iterator[Site]:
    with site() as found:
        found.files["d/f.txt"] = b"content"
        yield found


class Client:
    """Builds that follow each other: one store and memory, and each time new Downloads."""

    def __init__(self, root: Path) -> None:
        self.blobs = BlobStore(str(root))
        self.memory = Memory()
        self.secrets: dict[str, bytes] = {}
        self.webs = ExitStack()

    def build(self) -> Downloads:
        web = self.webs.enter_context(Web(patience=Patience(first=0.01, attempts=3)))
        return Downloads(web, self.blobs, self.memory, self.secrets.get)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    found = Client(tmp_path)
    with found.webs:
        yield found


def content(downloads: Downloads, url: str, checksum: str = "") -> bytes:
    with os.fdopen(downloads.open(url, downloads.find(url, checksum)), "rb") as file:
        return file.read()


def test_one_build_asks_once(server: Site, client: Client) -> None:
    downloads = client.build()
    assert {content(downloads, server.url("d/f.txt#part")) for _ in range(3)} == {b"content"}
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("headers", "sent"),
    [({"ETag": '"1"'}, {"If-None-Match": '"1"'}), ({"Last-Modified": MOMENT}, {"If-Modified-Since": MOMENT})],
)
def test_the_next_build_fetches_only_what_changed(
    server: Site, client: Client, headers: dict[str, str], sent: dict[str, str]
) -> None:
    server.headers["d/f.txt"] = headers
    url = server.url("d/f.txt")
    first = client.build().find(url)
    again = client.build()
    assert again.find(url) == first
    assert sent.items() <= server.seen[-1][1].items()
    server.files["d/f.txt"] = b"new"
    server.headers["d/f.txt"] = {name: value.replace("1", "2") for name, value in headers.items()}
    assert content(client.build(), url) == b"new"


def test_what_was_pruned_is_fetched_again(server: Site, client: Client) -> None:
    server.headers["d/f.txt"] = {"ETag": '"1"'}
    url = server.url("d/f.txt")
    found = client.build().find(url)
    client.blobs.delete(found.digest)
    downloads = client.build()
    assert downloads.find(url) == found
    assert content(downloads, url) == b"content"


def test_a_damaged_blob_is_fetched_again(server: Site, client: Client) -> None:
    url = server.url("d/f.txt")
    found = client.build().find(url)
    Path(client.blobs.path(found.digest)).chmod(0o600)
    Path(client.blobs.path(found.digest)).write_bytes(b"CONTENT")
    server.headers["d/f.txt"] = {}
    assert content(client.build(), url, SHA) == b"content"


def test_a_checksum_that_is_known_asks_nobody(server: Site, client: Client) -> None:
    url = server.url("d/f.txt")
    client.build().find(url)
    server.files.clear()
    assert content(client.build(), url, SHA) == b"content"
    assert len(server.seen) == 1


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_checksums(server: Site, client: Client, algorithm: str) -> None:
    """SECURITY.md S54."""
    right = f"{algorithm}:{hashlib.new(algorithm, b'content').hexdigest()}"
    wrong = f"{algorithm}:{hashlib.new(algorithm, b'other').hexdigest()}"
    server.headers["d/f.txt"] = {"ETag": '"1"'}
    url = server.url("d/f.txt")
    assert content(client.build(), url, right) == b"content"
    for _ in range(2):
        with pytest.raises(FetchFailed, match=f"not what its checksum says: expected {wrong}"):
            client.build().find(url, wrong)
    assert [str(each) for each in client.blobs] == [SHA]  # what failed its checksum was not kept


def test_a_file_that_breaks_off_is_taken_again(server: Site, client: Client) -> None:
    server.cut["d/f.txt"] = 3
    assert content(client.build(), server.url("d/f.txt")) == b"content"
    assert len(server.seen) == 2


def test_nothing_is_kept_of_what_is_too_large(
    server: Site, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SECURITY.md S54."""
    from builder.contexts import http

    monkeypatch.setattr(http, "Wanted", partial(Wanted, limit=5))
    with pytest.raises(FetchFailed, match="has 7 bytes; the limit is 5"):
        client.build().find(server.url("d/f.txt"))
    assert list(client.blobs) == []


def test_mode_name_and_time(server: Site, client: Client) -> None:
    server.headers["d/f.txt"] = {"Last-Modified": MOMENT}
    tree = client.build().tree(server.url("d/f.txt?x=1"))
    ((_, _), (path, node)) = tree.walk()
    assert (path, node.mode, node.uid, node.mtime_ns) == (b"f.txt", 0o600, 0, 1445412480 * 10**9)
    assert tree.listdir(b"") == [b"f.txt"]
    server.files[""] = b"x"
    assert client.build().tree(server.url("")).listdir(b"") == [b"__unnamed__"]
    server.headers[""] = {"Content-Disposition": 'attachment; filename="given.txt"'}
    assert client.build().tree(server.url("")).listdir(b"") == [b"given.txt"]


def test_times_that_are_none() -> None:
    found = client_found("never")
    assert modified(found) == 0
    assert modified(client_found("")) == 0


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("attachment; filename=a.txt", "a.txt"),
        ('attachment; filename="a \\"b\\".txt"', 'a "b".txt'),
        ("attachment; filename*=UTF-8''%c3%a4.txt", "ä.txt"),
        ('attachment; filename="../../etc/passwd"', ""),
        ("attachment; filename=..", ""),
        ("attachment", ""),
        ('attachment; filename="a\x1bb"', ""),
    ],
)
def test_content_disposition(header: str, name: str) -> None:
    assert _file_name(header) == name


def test_redirects(server: Site, client: Client) -> None:
    """SECURITY.md S54."""
    server.redirects["go"] = server.url("d/f.txt")
    assert content(client.build(), server.url("go")) == b"content"
    server.redirects["round"] = server.url("round")
    with pytest.raises(FetchFailed, match="redirects"):
        client.build().find(server.url("round"))
    for target in ("file:///etc/passwd", "unix:/run/docker.sock", "ftp://x/y", "http://u:p@127.0.0.1/x"):
        server.redirects["bad"] = target
        with pytest.raises(FetchFailed, match="no plain http"):
            client.build().find(server.url("bad"))


def test_credentials_go_to_their_host_alone(server: Site, client: Client) -> None:
    """SECURITY.md S54."""
    server.wanted["d/f.txt"] = "Bearer canary"
    with pytest.raises(FetchFailed, match="wants to know who asks") as caught:
        client.build().find(server.url("d/f.txt"))
    assert f"HTTP_AUTH_TOKEN_{server.address}" in caught.value.hint
    assert caught.value.exit_code == 4
    client.secrets[f"HTTP_AUTH_TOKEN_{server.address}"] = b"canary\n"
    assert content(client.build(), server.url("d/f.txt")) == b"content"
    with site() as other:
        other.files["x"] = b"other"
        server.redirects["away"] = other.url("x")
        assert content(client.build(), server.url("away")) == b"other"
        assert server.asked("away")[-1]["Authorization"] == "Bearer canary"
        assert "Authorization" not in other.seen[-1][1]


def test_which_credential() -> None:
    def secret(values: dict[str, bytes]) -> str:
        return authorization(Address.of("https://u:p%40@Host:8/x"), values.get)

    assert secret({}) == "Basic dTpwQA=="
    assert secret({"HTTP_AUTH_TOKEN_host:8": b"t"}) == "Bearer t"
    assert secret({"HTTP_AUTH_HEADER_host:8": b"Digest x", "HTTP_AUTH_TOKEN_host:8": b"t"}) == "Digest x"
    assert secret({"HTTP_AUTH_TOKEN_host": b"t"}) == "Basic dTpwQA=="  # another port is another host
    assert authorization(Address.of("http://u:p@example/x"), {}.get) == ""  # never in the clear


def test_passwords_are_neither_sent_on_nor_shown(server: Site, client: Client) -> None:
    """SECURITY.md S66."""
    url = f"http://user:canary@{server.address}/gone?token=canary"
    with pytest.raises(FetchFailed) as caught:
        client.build().find(url)
    assert "canary" not in str(caught.value)
    assert b"canary" not in repr(client.memory).encode()


@pytest.mark.parametrize("url", ["http://", "http://h:x/", "ftp://h/x", "http://h:0/"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(FetchFailed, match="cannot be read"):
        Address.of(url)


def test_nobody_there(client: Client) -> None:
    with pytest.raises(FetchFailed, match="connection refused"):
        client.build().find("http://127.0.0.1:1/x")


def test_cancelled(server: Site, client: Client) -> None:
    downloads = client.build()
    downloads.cancel()
    with pytest.raises(FetchFailed, match="interrupted"):
        downloads.find(server.url("d/f.txt"))


def client_found(moment: str) -> Found:
    from oci.digest import Digest

    return Found(Digest.of(b""), 0, last_modified=moment)

"""A registry that means harm, requirement by requirement (SECURITY.md, S80-S89)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import chaos
import pytest
from chaos import Proxy
from small_registry import Handler, Registry, serving
from specimens import MakeClient, everything, named, noise, visible

from oci import media_types, platforms
from oci.blobs import BlobStore
from oci.digest import Digest
from oci.errors import (
    DigestMismatch,
    InvalidReference,
    ManifestUnknown,
    RegistryError,
    Unauthorized,
    WrongContent,
)
from oci.image import Image, index_of
from oci.model import Descriptor, Index, Raw
from oci.reference import Reference
from oci.registry.auth import Credential, CredentialStore
from oci.registry.calls import redirected
from oci.registry.client import Client
from oci.registry.config import Endpoint, HostConfig, RegistryConfig
from oci.registry.tokens import check_realm, same_site

HOST = platforms.host()
MIB = 1 << 20


@pytest.fixture
def pushed(client: Client, registry: Registry, store: BlobStore, image: Image) -> Image:
    client.push(store, image.descriptor, [named(registry.address)])
    return image


@pytest.fixture
def elsewhere() -> Iterator[Registry]:
    """Another host: what it sees was sent to a stranger."""
    with serving(Registry()) as registry:
        yield registry


def answers(registry: Registry, path: str, status: int, body: bytes, **headers: str) -> None:
    """Let the registry say this to every request whose path contains `path`."""

    def hook(handler: Handler) -> bool:
        if path not in handler.path:
            return False
        handler.send(status, body, **headers)
        return True

    registry.hooks.append(hook)


def manifest_is(
    registry: Registry, content: bytes, media_type: str = media_types.OCI_MANIFEST, **more: str
) -> None:
    answers(registry, "/manifests/", 200, content, Content_Type=media_type, **more)


class TestS80Bounds:
    """S80: what a registry sends is read up to a limit."""

    @pytest.mark.parametrize("declared", [True, False])
    def test_a_manifest_without_end(
        self, declared: bool, client: Client, registry: Registry, other: BlobStore
    ) -> None:
        def endless(handler: Handler) -> bool:
            if "/manifests/" not in handler.path:
                return False
            handler.send_response(200)
            handler.send_header("Content-Type", media_types.OCI_MANIFEST)
            if declared:
                handler.send_header("Content-Length", str(10**15))
            handler.send_header("Connection", "close")
            handler.end_headers()
            try:
                while True:
                    handler.wfile.write(b" " * 65536)
            except OSError:
                handler.close_connection = True
                return True

        registry.hooks.append(endless)
        with pytest.raises(RegistryError, match="more than 4194304 bytes"):
            client.pull(named(registry.address), other, HOST)

    def test_an_error_without_end(self, client: Client, registry: Registry, other: BlobStore) -> None:
        answers(registry, "/manifests/", 403, b"x" * (3 * MIB))
        with pytest.raises(Unauthorized) as caught:
            client.pull(named(registry.address), other, HOST)
        assert len(str(caught.value)) < 1000

    def test_a_token_without_end(self, client: Client, registry: Registry, other: BlobStore) -> None:
        registry.tokens, registry.realm = {}, f"http://{registry.address}/token"
        answers(registry, "/token", 200, b'{"token":"' + b"x" * (2 * MIB) + b'"}')
        with pytest.raises(RegistryError, match="more than 1048576 bytes"):
            client.pull(named(registry.address), other, HOST)

    @pytest.mark.parametrize("size", [-1, 10**30, 1.5, "7", None])
    def test_sizes_that_are_none(
        self, size: object, client: Client, registry: Registry, pushed: Image, other: BlobStore
    ) -> None:
        value = json.loads(pushed.manifest.content)
        value["layers"][0]["size"] = size
        manifest_is(registry, json.dumps(value).encode())
        with pytest.raises(RegistryError, match="size"):
            client.pull(named(registry.address), other, HOST)

    @pytest.mark.parametrize("delta", [-1, 1, 10**12])
    def test_a_size_that_lies(
        self, delta: int, client: Client, registry: Registry, pushed: Image, other: BlobStore
    ) -> None:
        value = json.loads(pushed.manifest.content)
        value["layers"][0]["size"] += delta
        content = json.dumps(value).encode()
        manifest_is(registry, content)
        with pytest.raises(WrongContent, match="promises"):
            client.pull(named(registry.address), other, HOST)
        assert str(Digest.of(content)) not in visible(other)

    def test_a_config_too_large_to_be_one(
        self, client: Client, registry: Registry, pushed: Image, other: BlobStore
    ) -> None:
        value = json.loads(pushed.manifest.content)
        value["config"]["size"] = 5 * MIB
        manifest_is(registry, json.dumps(value).encode())
        with pytest.raises(RegistryError, match="a document may have 4194304"):
            client.pull_documents(named(registry.address), other, HOST)

    def test_indexes_in_indexes(
        self, client: Client, registry: Registry, pushed: Image, other: BlobStore
    ) -> None:
        pointer = replace(pushed.descriptor, platform=None)
        for _ in range(12):
            raw = Raw.of(Index((pointer,)))
            registry.manifests[("app", str(raw.digest))] = (media_types.OCI_INDEX, raw.content)
            pointer = Descriptor.of(media_types.OCI_INDEX, raw.content)
        registry.tags[("app", "deep")] = str(pointer.digest)
        for platform in (None, HOST):
            with pytest.raises(RegistryError, match="nested more than 8 deep"):
                client.pull(named(registry.address, "app:deep"), other, platform)

    def test_pages_without_end(self, client: Client, registry: Registry, pushed: Image) -> None:
        answers(registry, "/tags/list", 200, b'{"tags":["a"]}', Link='</v2/app/tags/list?n=1>; rel="next"')
        with pytest.raises(RegistryError, match="round in circles"):
            client.tags(named(registry.address))

    @pytest.mark.parametrize("content", [b"[" * 100_000, b"{", b"", b"null", b"\xff", b'{"a":NaN}'])
    def test_what_is_no_json(
        self, content: bytes, client: Client, registry: Registry, other: BlobStore
    ) -> None:
        manifest_is(registry, content)
        answers(registry, "/tags/", 200, content)
        with pytest.raises(RegistryError):
            client.pull(named(registry.address), other, HOST)
        with pytest.raises(RegistryError):
            client.tags(named(registry.address))


class TestS81Names:
    """S81: digests, tags and names match their grammar before anything is made of them."""

    @pytest.mark.parametrize(
        "digest",
        [
            "sha256:../../../../etc/passwd",
            "sha256:" + "A" * 64,
            "sha256:abc",
            "md5:" + "0" * 32,
            "sha256:" + "0" * 64 + "?x",
        ],
    )
    def test_digests_that_are_paths(
        self, digest: str, client: Client, registry: Registry, pushed: Image, other: BlobStore
    ) -> None:
        value = json.loads(pushed.manifest.content)
        value["layers"][0]["digest"] = digest
        manifest_is(registry, json.dumps(value).encode())
        with pytest.raises(RegistryError, match="is no digest"):
            client.pull(named(registry.address), other, HOST)
        assert not registry.count("GET", "passwd")

    def test_a_digest_header_that_is_none(self, client: Client, registry: Registry, pushed: Image) -> None:
        manifest_is(registry, pushed.manifest.content, Docker_Content_Digest="sha256:../../x")
        with pytest.raises(RegistryError, match="Docker-Content-Digest is"):
            client.resolve(named(registry.address))

    @pytest.mark.parametrize("tag", ["../../x", "a\x1b[31m", "", 7, "a" * 200])
    def test_tags_that_are_none(self, tag: object, client: Client, registry: Registry) -> None:
        answers(registry, "/tags/", 200, json.dumps({"tags": ["good", tag]}).encode())
        with pytest.raises(RegistryError, match="is no tag") as caught:
            client.tags(named(registry.address))
        assert "\x1b" not in str(caught.value)

    @pytest.mark.parametrize("name", ["h.example/../x", "h.example/a%2fb", "h.example/a?b", "h.example/A"])
    def test_names_that_are_none(self, name: str) -> None:
        with pytest.raises(InvalidReference):
            Reference.parse(name)


class TestS82Ambiguity:
    """S82: header, `mediaType` and structure agree, or it is no document."""

    @pytest.mark.parametrize(
        "media_type", [media_types.OCI_MANIFEST, media_types.OCI_INDEX, "application/json"]
    )
    def test_manifest_and_index_in_one(
        self, media_type: str, client: Client, registry: Registry, pushed: Image, other: BlobStore
    ) -> None:
        value = json.loads(pushed.manifest.content)
        value.pop("mediaType")
        value["manifests"] = []
        manifest_is(registry, json.dumps(value).encode(), media_type)
        with pytest.raises(RegistryError, match="one or the other"):
            client.pull(named(registry.address), other, HOST)

    def test_header_and_text_disagree(
        self, client: Client, registry: Registry, pushed: Image, other: BlobStore
    ) -> None:
        manifest_is(registry, pushed.manifest.content, media_types.OCI_INDEX)
        with pytest.raises(RegistryError, match="mediaType"):
            client.pull(named(registry.address), other, HOST)

    def test_pointer_and_target_disagree(
        self, client: Client, registry: Registry, pushed: Image, other: BlobStore
    ) -> None:
        entry = replace(pushed.descriptor, media_type=media_types.DOCKER_MANIFEST)
        raw = index_of((entry,))
        registry.manifests[("app", str(raw.digest))] = (media_types.OCI_INDEX, raw.content)
        with pytest.raises(RegistryError, match="what points at it says"):
            client.pull(named(registry.address).with_digest(raw.digest), other, HOST)

    def test_keys_that_stand_twice(
        self, client: Client, registry: Registry, pushed: Image, other: BlobStore
    ) -> None:
        manifest_is(registry, pushed.manifest.content.replace(b"{", b'{"layers":[],', 1))
        with pytest.raises(RegistryError, match="stands twice"):
            client.pull(named(registry.address), other, HOST)

    def test_schema_1(self, client: Client, registry: Registry, other: BlobStore) -> None:
        kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
        manifest_is(registry, b'{"schemaVersion":1,"fsLayers":[]}', kind)
        with pytest.raises(RegistryError, match="schema 1 is obsolete"):
            client.pull(named(registry.address), other, HOST)


class TestS83Verified:
    """S83: bytes are verified before they are used, and a digest means itself."""

    def test_a_pinned_digest_is_the_digest(
        self, client: Client, registry: Registry, pushed: Image, store: BlobStore, other: BlobStore
    ) -> None:
        evil = noise(store, 5, seed=66)
        manifest_is(registry, evil.manifest.content)
        pinned = named(registry.address).with_digest(pushed.descriptor.digest)
        with pytest.raises(WrongContent, match="expected the bytes of"):
            client.pull(pinned, other, HOST)
        assert not visible(other)

    def test_tag_and_digest_means_the_digest(
        self, client: Client, registry: Registry, pushed: Image, store: BlobStore, other: BlobStore
    ) -> None:
        newer = noise(store, 77, seed=5)
        client.push(store, newer.descriptor, [named(registry.address)])
        found = client.pull(named(registry.address).with_digest(pushed.descriptor.digest), other, HOST)
        assert found.digest == pushed.descriptor.digest
        with pytest.raises(ManifestUnknown):
            client.pull(named(registry.address).with_digest(Digest.of(b"nothing")), other, HOST)

    def test_a_digest_header_that_lies(self, client: Client, registry: Registry, pushed: Image) -> None:
        manifest_is(registry, pushed.manifest.content, Docker_Content_Digest=str(Digest.of(b"other")))
        with pytest.raises(WrongContent):
            client.fetch_manifest(named(registry.address))

    def test_a_damaged_local_blob_is_not_pushed(
        self, make_client: MakeClient, registry: Registry, store: BlobStore, image: Image
    ) -> None:
        path = store.path(image.layers[0].digest)
        content = bytearray(Path(path).read_bytes())
        content[-1] ^= 1
        Path(path).write_bytes(content)
        with pytest.raises(DigestMismatch, match="is damaged"):
            make_client().push(store, image.descriptor, [named(registry.address)])
        assert not registry.tags
        Path(path).write_bytes(content[:1000])
        with pytest.raises(DigestMismatch):
            make_client().push(BlobStore(store.root), image.descriptor, [named(registry.address)])
        assert not registry.tags


@pytest.fixture
def credentials(registry: Registry, tmp_path: Path) -> CredentialStore:
    """The password of `registry`, which asks for it."""
    registry.basic = "me:secret"
    credentials = CredentialStore((str(tmp_path / "auth.json"),))
    credentials.put(registry.address, Credential("me", "secret"))
    return credentials


def given_away(registry: Registry) -> list[str]:
    """What a host has seen of anybody's credentials."""
    basic = base64.b64encode(b"me:secret").decode()
    return [str(seen) for seen in registry.seen if "authorization" in seen.headers or basic in str(seen)]


class TestS84Borders:
    """S84: Authorization ends at its scheme, host and port."""

    def test_a_redirect_of_a_blob(
        self, make_client: MakeClient, registry: Registry, elsewhere: Registry, store: BlobStore, image:
        Image, other: BlobStore, credentials: CredentialStore,
    ) -> None:  # fmt: skip
        client = make_client(None, credentials)
        client.push(store, image.descriptor, [named(registry.address)])
        elsewhere.blobs.update(registry.blobs)

        def away(handler: Handler) -> bool:
            if handler.command != "GET" or "/blobs/" not in handler.path:
                return False
            handler.send(307, Location=f"http://{elsewhere.address}{handler.path}")
            return True

        registry.hooks.append(away)
        client.pull(named(registry.address), other, HOST)
        assert visible(other) == everything(image)
        assert elsewhere.count("GET", "/blobs/") == 4 and not given_away(elsewhere)

    def test_an_upload_sent_elsewhere(
        self, make_client: MakeClient, registry: Registry, elsewhere: Registry, store: BlobStore, image:
        Image, credentials: CredentialStore,
    ) -> None:  # fmt: skip
        elsewhere.blobs = registry.blobs
        elsewhere.uploads["x"] = bytearray()
        registry.single_post = False
        location = f"http://{elsewhere.address}/v2/app/blobs/uploads/x"
        noise_of_one = noise(store, 5000, seed=3)

        def away(handler: Handler) -> bool:
            if handler.command != "POST":
                return False
            elsewhere.uploads["x"] = bytearray()
            handler.send(202, Location=location)
            return True

        registry.hooks.append(away)
        make_client(None, credentials, parallel=1).push(
            store, noise_of_one.descriptor, [named(registry.address)]
        )
        assert elsewhere.count("PUT") == 2 and not given_away(elsewhere)

    def test_a_next_page_elsewhere(
        self, make_client: MakeClient, registry: Registry, elsewhere: Registry, credentials: CredentialStore
    ) -> None:
        registry.basic = ""
        link = f'<http://{elsewhere.address}/v2/app/tags/list>; rel="next"'
        answers(registry, "/tags/", 200, b'{"tags":["a"]}', Link=link)
        with pytest.raises(RegistryError, match="on another host"):
            make_client(None, credentials).tags(named(registry.address))
        assert not elsewhere.seen

    def test_foreign_layers_are_fetched_without_credentials(
        self, make_client: MakeClient, registry: Registry, elsewhere: Registry, store: BlobStore, image:
        Image, other: BlobStore, credentials: CredentialStore,
    ) -> None:  # fmt: skip
        client = make_client(None, credentials)
        client.push(store, image.descriptor, [named(registry.address)])
        digest = str(image.layers[0].digest)
        elsewhere.blobs[("app", digest)] = registry.blobs.pop(("app", digest))
        value = json.loads(image.manifest.content)
        value["layers"][0]["urls"] = [f"http://{elsewhere.address}/v2/app/blobs/{digest}"]
        content = json.dumps(value).encode()
        registry.manifests[("app", str(Digest.of(content)))] = (media_types.OCI_MANIFEST, content)
        client.pull(named(registry.address).with_digest(Digest.of(content)), other, HOST)
        assert image.layers[0].digest in other
        assert elsewhere.seen and not given_away(elsewhere)

    @pytest.mark.parametrize(
        ("url", "location", "message"),
        [
            ("https://a.example/v2/", "http://a.example/v2/", "from https to plain http"),
            ("https://a.example/v2/", "file:///etc/passwd", "no plain http"),
            ("https://a.example/v2/", "https://u:CANARY@b.example/", "no plain http"),
            ("https://a.example/v2/", "https://127.0.0.1/x", "address of this machine"),
            ("https://a.example/v2/", "https://[::ffff:127.0.0.1]/x", "address of this machine"),
            ("https://a.example/v2/", "https://localhost:1/x", "address of this machine"),
            ("http://a.example/v2/", "http://169.254.169.254/latest/meta-data", "address of this machine"),
            ("https://a.example/v2/", "https://[fe80::1%25eth0]/x", "address of this machine"),
            ("https://a.example/v2/", "https://a.example:99999/x", "no URL"),
            ("https://a.example/v2/", "https://[bad/x", "no URL"),
        ],
    )
    def test_where_nobody_should_go(self, url: str, location: str, message: str) -> None:
        with pytest.raises(RegistryError, match=message) as caught:
            redirected(url, location, "pulling")
        assert "CANARY" not in str(caught.value)

    def test_redirects_end(self, client: Client, registry: Registry, other: BlobStore) -> None:
        answers(registry, "/manifests/", 302, b"", Location="/v2/app/manifests/v1")
        with pytest.raises(RegistryError, match="more than 5 redirects"):
            client.pull(named(registry.address), other, HOST)


class TestS85Realms:
    """S85: a registry does not choose freely who sees a password."""

    @pytest.mark.parametrize(
        ("registry", "realm", "secret", "allowed"),
        [
            ("registry.gitlab.example", "https://gitlab.example/jwt/auth", True, True),
            ("docker.io", "https://auth.docker.io/token", True, True),
            ("a.example", "https://a.example/token", True, True),
            ("a.example", "https://a.example:8443/token", True, True),
            ("a.example", "https://evil.net/token", True, False),
            ("a.example", "https://evil.net/token", False, True),
            ("a.example", "https://login.partner.example/token", True, True),
            ("a.co.uk", "https://b.co.uk/token", True, False),
            ("a.example", "http://a.example/token", False, False),
            ("a.example", "https://169.254.169.254/token", False, False),
            ("a.example", "https://127.0.0.1/token", False, False),
            ("a.example", "https://localhost/token", False, False),
            ("a.example", "https://10.0.0.1/token", False, False),
            ("10.0.0.1:5000", "https://10.0.0.1:5001/token", True, True),
            ("127.0.0.1:5000", "http://127.0.0.1:5001/token", True, True),
            ("127.0.0.1:5000", "http://evil.net/token", True, False),
            ("a.example", "https://me:x@a.example/token", True, False),
            ("a.example", "ftp://a.example/token", True, False),
            ("a.example", "", True, False),
            ("a.example", "https://[x/", True, False),
        ],
    )
    def test_who_may_be_a_token_server(self, registry: str, realm: str, secret: bool, allowed: bool) -> None:
        def check() -> None:
            plain = registry.startswith("127.")
            partner = ("login.partner.example",)
            check_realm(realm, Endpoint.of(registry), plain, partner, with_secret=secret)

        if allowed:
            check()
        else:
            with pytest.raises(Unauthorized):
                check()

    def test_same_site(self) -> None:
        assert same_site("a.b.example", "c.b.example")
        assert same_site("b.example", "c.b.example")
        assert same_site("x.y.co.uk", "z.y.co.uk")
        assert not same_site("a.co.uk", "b.co.uk")
        assert not same_site("a.com", "b.com")

    def test_a_token_is_asked_for_what_is_wanted_alone(
        self, make_client: MakeClient, registry: Registry, store: BlobStore, image: Image
    ) -> None:
        registry.tokens = {"good": ""}
        registry.realm = f"http://{registry.address}/token?x=1"
        answers(registry, "/token", 200, b'{"access_token":"good","expires_in":300}')
        wide = f'Bearer realm="{registry.realm}",scope="repository:other:pull repository:app:pull,push,x"'

        def challenge(handler: Handler) -> bool:
            if "/token" in handler.path or "authorization" in handler.seen.headers:
                return False
            handler.send(401, WWW_Authenticate=wide)
            return True

        registry.hooks.append(challenge)
        make_client().push(store, image.descriptor, [named(registry.address)])
        asked = [seen.path for seen in registry.seen if "/token" in seen.path]
        assert asked and set(asked) == {"/token?x=1&scope=repository%3Aapp%3Apull%2Cpush%2Cx"}
        assert len(asked) == 1, "one token serves all"


class TestS86S88OneKeyForOneDoor:
    """S86, S88: credentials are for their own registry, and for no mirror."""

    def test_a_registry_that_asks_gets_no_other_ones_password(
        self, make_client: MakeClient, registry: Registry, elsewhere: Registry, credentials: CredentialStore
    ) -> None:
        elsewhere.basic = "me:secret"
        with pytest.raises(Unauthorized):
            make_client(None, credentials).tags(named(elsewhere.address))
        assert not given_away(elsewhere)

    def test_mirrors_get_nothing_and_are_not_believed(
        self, make_client: MakeClient, registry: Registry, elsewhere: Registry, store: BlobStore, image:
        Image, other: BlobStore, credentials: CredentialStore, warned: list[str],
    ) -> None:  # fmt: skip
        client = make_client(None, credentials)
        client.push(store, image.descriptor, [named(registry.address)])
        elsewhere.blobs = {key: b"x" * len(value) for key, value in registry.blobs.items()}
        elsewhere.manifests, elsewhere.tags = registry.manifests, registry.tags
        config = RegistryConfig({registry.address: HostConfig(mirrors=(elsewhere.address,))})
        make_client(config, credentials).pull(named(registry.address), other, HOST)
        assert visible(other) == everything(image)
        assert elsewhere.count("GET", "/blobs/") >= 1 and not given_away(elsewhere)
        assert any(f"is {image.descriptor.digest} according to the mirror" in text for text in warned)
        assert elsewhere.count("GET", "ns=127")


class TestS89Order:
    """S89: a tag comes when all that it means is there."""

    def test_tags_come_last(self, client: Client, registry: Registry, store: BlobStore, image: Image) -> None:
        raw = index_of((image.descriptor,))
        pointer = store.put(raw.value.media_type, raw.content)
        client.push(store, pointer, [named(registry.address), named(registry.address, "app:v2")])
        numbered = list(enumerate(registry.seen))
        manifests = [(i, seen) for i, seen in numbered if seen.method == "PUT" and "/manifests/" in seen.path]
        puts = [seen.path.rpartition("/")[2] for _, seen in manifests]
        assert puts == [str(image.descriptor.digest), "v1", "v2"]
        last_blob = max(i for i, seen in numbered if "/uploads/" in seen.path)
        assert last_blob < manifests[0][0]

    @pytest.mark.parametrize("said", [str(Digest.of(b"x")), "nonsense"])
    def test_another_digest_than_was_pushed(
        self, said: str, client: Client, proxy: Proxy, store: BlobStore, image: Image
    ) -> None:
        proxy.spoil("PUT", "/manifests/", chaos.status(201, {"Docker-Content-Digest": said}))
        with pytest.raises(WrongContent, match="the registry keeps"):
            client.push(store, image.descriptor, [named(proxy.address)])

    def test_no_digest_at_all_is_looked_up(
        self, client: Client, proxy: Proxy, store: BlobStore, image: Image
    ) -> None:
        proxy.spoil("PUT", "/manifests/", chaos.status(201))
        with pytest.raises(WrongContent, match="keeps nothing"):
            client.push(store, image.descriptor, [named(proxy.address)])


class TestS66Redaction:
    @pytest.mark.parametrize(
        "body", [b"Bearer CANARYCANARY", b'{"errors":[{"code":"X","message":"token=CANARY"}]}']
    )
    def test_what_a_registry_repeats_is_not_shown(
        self, body: bytes, client: Client, registry: Registry, other: BlobStore
    ) -> None:
        """SECURITY.md S66."""
        answers(registry, "/manifests/", 400, body)
        with pytest.raises(RegistryError) as caught:
            client.pull(named(registry.address), other, HOST)
        assert "CANARY" not in str(caught.value)

    def test_nothing_shows_a_password(
        self, make_client: MakeClient, registry: Registry, proxy: Proxy, tmp_path: Path, store: BlobStore,
        image: Image, warned: list[str],
    ) -> None:  # fmt: skip
        """SECURITY.md S66."""
        registry.basic = "me:other"
        credentials = CredentialStore((str(tmp_path / "auth.json"),))
        credentials.put(proxy.address, Credential("me", "CANARY"))
        shown: list[str] = []
        trouble: list[Callable[[chaos.Exchange], None]] = [
            chaos.reset,
            chaos.status(500),
            chaos.html(403),
            chaos.redirect("http://u:CANARY@h/"),
        ]
        for how in (None, *trouble):
            proxy.rules.clear()
            if how:
                proxy.spoil("[A-Z]+", "/app/", how, times=99)
            with pytest.raises(RegistryError) as caught:
                make_client(None, credentials).push(store, image.descriptor, [named(proxy.address)])
            shown += [str(caught.value), repr(caught.value), str(caught.value.__cause__)]
        encoded = base64.b64encode(b"me:CANARY").decode()
        assert not [text for text in (*shown, *warned) if "CANARY" in text or encoded in text]


def test_warnings_of_registries_reach_the_user(
    client: Client, registry: Registry, warned: list[str], pushed: Image
) -> None:
    answers(registry, "/tags/", 200, b'{"tags":[]}', Warning='299 - "this repository will be\x1b[31m gone"')
    client.tags(named(registry.address))
    assert warned == [f"{registry.address}: this repository will be [31m gone"]

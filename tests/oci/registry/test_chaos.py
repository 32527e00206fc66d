"""Everything that goes wrong between a client and a registry, one thing at a time and many at once.

Each push and each pull either ends with the right bytes or fails with a message; nothing partial becomes
visible; and what is run again moves only what is missing.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace

import chaos
import pytest
from chaos import Exchange
from small_registry import Seen
from specimens import BRISK, MakeClient, Scene, Waiting, everything, named, noise, visible

from oci import platforms
from oci.errors import RegistryError, TooManyRequests, Unauthorized, WrongContent
from oci.registry.auth import Credential, CredentialStore
from oci.registry.config import HostConfig, RegistryConfig

HOST = platforms.host()

PASSING: dict[str, Callable[[Exchange], None]] = {
    "429 seconds": chaos.too_many(7),
    "429 date": chaos.too_many(7, date=True),
    "500": chaos.status(500),
    "502 page": chaos.html(502),
    "503": chaos.status(503, {"Retry-After": "3"}),
    "504": chaos.status(504),
    "408": chaos.status(408),
    "reset": chaos.reset,
}

REQUESTS = {
    "HEAD blob": ("HEAD", "/blobs/"),
    "POST upload": ("POST", "/uploads/"),
    "PUT upload": ("PUT", "/uploads/"),
    "PUT manifest": ("PUT", "/manifests/"),
    "GET manifest": ("GET", "/manifests/"),
    "GET blob": ("GET", "/blobs/sha"),
}


def there_and_back(scene: Scene) -> None:
    name = named(scene.proxy.address)
    scene.client.push(scene.store, scene.image.descriptor, [name])
    assert scene.client.pull(name, scene.other, HOST).digest == scene.image.descriptor.digest
    assert visible(scene.other) == everything(scene.image)


@pytest.mark.parametrize("what", PASSING)
@pytest.mark.parametrize("where", REQUESTS)
def test_what_passes_is_waited_out(where: str, what: str, waiting: Waiting, scene: Scene) -> None:
    """SECURITY.md R12, R13."""
    scene.proxy.spoil(*REQUESTS[where], PASSING[what], times=3)
    there_and_back(scene)
    assert scene.proxy.spoilt == 3
    if what.startswith("429"):
        assert max(waiting.slept) > 5, "Retry-After was not heard"


@pytest.mark.parametrize("what", ["429 seconds", "500", "reset"])
@pytest.mark.parametrize("where", REQUESTS)
def test_what_lasts_is_given_up(where: str, what: str, scene: Scene) -> None:
    """SECURITY.md R13."""
    scene.proxy.spoil(*REQUESTS[where], PASSING[what], times=10_000)
    with pytest.raises(RegistryError) as caught:
        there_and_back(scene)
    assert caught.value.exit_code == 3
    assert scene.proxy.address in str(caught.value)
    if what.startswith("429"):
        assert isinstance(caught.value, TooManyRequests)
        assert "slow down" in str(caught.value) or "HEAD" in where
    assert not visible(scene.other)
    if "GET" not in where:
        assert not scene.registry.tags

    scene.proxy.rules.clear()
    there_and_back(scene)


@pytest.mark.parametrize("cut", [0, 1, 65_537, 199_999])
def test_a_broken_upload_goes_on_where_it_was(cut: int, scene: Scene) -> None:
    """SECURITY.md R11."""
    scene.proxy.spoil("PUT", "/uploads/u1", chaos.cut_request(cut))
    there_and_back(scene)
    again = scene.registry.received(r"/uploads/")
    assert again < 200_000 + 70_000 + 20_000, "bytes that had arrived were sent again"


def test_an_upload_whose_answer_is_lost_is_done(scene: Scene) -> None:
    scene.proxy.spoil("PUT", "/uploads/", chaos.lose_answer, times=2)
    scene.proxy.spoil("PUT", "/manifests/", chaos.lose_answer)
    there_and_back(scene)
    assert scene.registry.received(r"/uploads/") < 275_000


def test_an_upload_session_that_is_lost_begins_anew(scene: Scene) -> None:
    scene.proxy.spoil(
        "PUT", "/uploads/", chaos.status(404, body=b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')
    )
    scene.proxy.spoil("PUT", "/uploads/", chaos.cut_request(30_000))
    scene.proxy.spoil("GET", "/uploads/", chaos.status(404))
    there_and_back(scene)


def test_a_chunk_out_of_step_is_put_right(scene: Scene) -> None:
    """SECURITY.md R11."""
    scene.proxy.spoil("PATCH", "/uploads/", chaos.cut_request(5_000))
    scene.proxy.spoil("PATCH", "/uploads/", chaos.status(416), after=2)
    scene.client.push(scene.store, scene.image.descriptor, [named(scene.proxy.address)], chunk=20_000)
    assert scene.registry.count("PATCH") >= 10
    assert ("app", "v1") in scene.registry.tags


def test_the_registry_sets_the_least_chunk(scene: Scene) -> None:
    scene.registry.chunk_minimum = 50_000
    scene.client.push(scene.store, scene.image.descriptor, [named(scene.registry.address)], chunk=1000)
    sizes = [seen.size for seen in scene.registry.seen if seen.method == "PATCH"]
    assert sizes and set(sizes) <= {50_000, 20_000}


def test_the_configuration_sets_the_largest_request(make_client: MakeClient, scene: Scene) -> None:
    """Of a push, and of a copy from another repository that is not mounted."""
    scene.registry.mounts = False
    address = scene.registry.address
    client = make_client(config=RegistryConfig({address: HostConfig(chunk=30_000)}))
    client.push(scene.store, scene.image.descriptor, [named(address)])
    client.copy(named(address), named(address, "other:v1"))
    sizes = [seen.size for seen in scene.registry.seen if seen.method in ("PATCH", "PUT", "POST")]
    assert max(sizes) == 30_000 and {("app", "v1"), ("other", "v1")} <= set(scene.registry.tags)


@pytest.mark.parametrize("cut", [0, 1, 65_536, 199_999])
def test_a_broken_download_goes_on_where_it_was(cut: int, scene: Scene) -> None:
    """SECURITY.md R10."""
    largest = scene.publish()
    scene.proxy.spoil("GET", largest, chaos.truncate(cut), times=3)
    scene.pull()
    ranges = [
        seen.headers.get("range")
        for seen in scene.registry.seen
        if seen.method == "GET" and largest in seen.path
    ]
    assert len(ranges) == (4 if cut != 199_999 else 2)
    if cut > 1:  # a reset may overtake the last byte
        assert ranges[1] and ranges[1].endswith("-199999")


def test_the_next_run_goes_on_where_the_last_one_was(make_client: MakeClient, scene: Scene) -> None:
    largest = scene.publish()
    scene.proxy.spoil("GET", largest, chaos.truncate(150_000))
    scene.proxy.spoil("GET", largest, chaos.status(403), times=99)
    with pytest.raises(Unauthorized, match="403"):
        scene.client.pull(named(scene.proxy.address), scene.other, HOST)
    assert str(scene.image.descriptor.digest) not in visible(scene.other)
    scene.other.clean()
    scene.proxy.rules.clear()
    before = len(scene.registry.seen)
    make_client().pull(named(scene.proxy.address), scene.other, HOST)
    (seen,) = [seen for seen in scene.registry.seen[before:] if largest in seen.path]
    start = int(seen.headers["range"].removeprefix("bytes=").removesuffix("-199999"))
    assert 0 < start <= 150_000
    assert visible(scene.other) == everything(scene.image)


@pytest.mark.parametrize("run", ["same", "next"])
@pytest.mark.parametrize(
    ("before", "after", "sent"),
    [
        ('"one"', '"one"', '"one"'),
        ('"one"', '"two"', '"one"'),
        ('W/"one"', 'W/"one"', None),
        ("", '"two"', None),
        ('"one"', "", '"one"'),
    ],
)
def test_the_rest_is_asked_for_only_of_the_same_representation(
    before: str, after: str, sent: str | None, run: str, make_client: MakeClient, scene: Scene
) -> None:
    """If-Range with the ETag of what is here (R10), also in the next run; what changed comes whole."""
    largest = scene.publish()

    def gets() -> list[Seen]:
        return [seen for seen in scene.registry.seen if seen.method == "GET" and largest in seen.path]

    scene.registry.etag = lambda digest: before if len(gets()) < 2 else after
    scene.proxy.spoil("GET", largest, chaos.truncate(150_000))
    if run == "next":
        scene.proxy.spoil("GET", largest, chaos.status(403))
        with pytest.raises(Unauthorized):
            scene.client.pull(named(scene.proxy.address), scene.other, HOST)
    make_client().pull(named(scene.proxy.address), scene.other, HOST)
    assert visible(scene.other) == everything(scene.image)
    assert len(gets()) == 2 and gets()[1].headers.get("range") and gets()[1].headers.get("if-range") == sent
    assert not os.listxattr(scene.other.path(scene.image.layers[0].digest))


def test_a_partial_blob_that_is_damaged_is_thrown_away_once(scene: Scene) -> None:
    """SECURITY.md R10."""
    largest = scene.publish()
    scene.proxy.spoil(
        "GET", largest, lambda exchange: (chaos.corrupt(exchange), chaos.truncate(150_000)(exchange))
    )
    scene.pull()


def test_a_registry_without_ranges_is_asked_for_all_again(scene: Scene) -> None:
    """SECURITY.md R10."""
    scene.publish()
    scene.registry.ranges = False
    scene.proxy.spoil("GET", str(scene.image.layers[0].digest), chaos.truncate(150_000), times=2)
    scene.pull()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (chaos.corrupt, "expected the bytes of sha256:"),
        (chaos.wrong_length(+5), "200005 bytes there; its descriptor promises 200000"),
        (chaos.wrong_length(-5), "199995 bytes there; its descriptor promises 200000"),
    ],
    ids=["digest", "longer", "shorter"],
)
def test_lies_about_a_blob(spoil: Callable[[Exchange], None], message: str, scene: Scene) -> None:
    scene.publish()
    scene.proxy.spoil("GET", str(scene.image.layers[0].digest), spoil, times=99)
    with pytest.raises(WrongContent, match=message):
        scene.client.pull(named(scene.proxy.address), scene.other, HOST)
    assert visible(scene.other) < everything(scene.image)
    assert str(scene.image.descriptor.digest) not in visible(scene.other)
    scene.proxy.rules.clear()
    scene.pull()


def test_a_slow_loris_is_left_and_asked_again(scene: Scene, make_client: MakeClient) -> None:
    """SECURITY.md R15."""
    scene.publish()
    # On a busy machine an honest answer may come too late for it as well: it is asked for often enough.
    scene = replace(scene, client=make_client(patience=replace(BRISK, attempts=50)))
    scene.proxy.spoil("GET", "/blobs/", chaos.drip(0.01), times=2)
    scene.proxy.spoil("GET", "/manifests/", chaos.drip_head(0.01))
    scene.pull()


def test_a_slow_loris_that_lasts_is_named(scene: Scene, make_client: MakeClient) -> None:
    """SECURITY.md R15."""
    scene.publish()
    scene = replace(scene, client=make_client(patience=BRISK))
    scene.proxy.spoil("GET", "/manifests/", chaos.drip(0.01), times=99)
    with pytest.raises(RegistryError, match=r"stalled: .*given up"):
        scene.client.pull(named(scene.proxy.address), scene.other, HOST)


@pytest.mark.parametrize("where", ["GET manifest", "GET blob"])
def test_html_is_no_image(where: str, scene: Scene) -> None:
    scene.publish()
    scene.proxy.spoil(*REQUESTS[where], chaos.html(), times=99)
    with pytest.raises(RegistryError, match=r"HTML page|promises"):
        scene.client.pull(named(scene.proxy.address), scene.other, HOST)
    assert not visible(scene.other)


def test_html_for_a_push_is_no_success(scene: Scene) -> None:
    scene.proxy.spoil("POST", "/uploads/", chaos.html(), times=99)
    with pytest.raises(RegistryError, match=r"an HTML page, not .*: Hotel Please log in first"):
        scene.client.push(scene.store, scene.image.descriptor, [named(scene.proxy.address)])


@pytest.mark.parametrize("early", [False, True])
def test_a_token_that_expires_under_way(early: bool, make_client: MakeClient, scene: Scene) -> None:
    """SECURITY.md R14."""
    issued = iter(f"token{number}" for number in range(100))

    def token_server(handler: object) -> bool:
        if not handler.path.startswith("/token"):  # type: ignore[attr-defined]
            return False
        token = next(issued)
        scene.registry.tokens = {token: ""}
        handler.send(200, b'{"token":"%s"}' % token.encode(), Content_Type="application/json")  # type: ignore[attr-defined]
        return True

    scene.registry.hooks.append(token_server)
    scene.registry.tokens = {}
    scene.registry.realm = f"http://{scene.proxy.address}/token"
    challenge = {"WWW-Authenticate": f'Bearer realm="{scene.registry.realm}",service="test"'}
    refuse = (chaos.early if early else chaos.status)(401, challenge)
    scene.proxy.spoil("PUT", "/uploads/", refuse, times=2)
    scene.proxy.spoil("PUT", "/manifests/", refuse)
    make_client().push(scene.store, scene.image.descriptor, [named(scene.proxy.address)])
    assert ("app", "v1") in scene.registry.tags
    assert scene.proxy.spoilt == 3


def test_a_token_that_never_holds_ends(make_client: MakeClient, scene: Scene) -> None:
    """SECURITY.md R14."""

    def token_server(handler: object) -> bool:
        if not handler.path.startswith("/token"):  # type: ignore[attr-defined]
            return False
        handler.send(200, b'{"token":"bad"}')  # type: ignore[attr-defined]
        return True

    scene.registry.hooks.append(token_server)
    scene.registry.tokens = {}
    scene.registry.realm = f"http://{scene.proxy.address}/token"
    with pytest.raises(Unauthorized, match="401") as caught:
        make_client().push(scene.store, scene.image.descriptor, [named(scene.proxy.address)])
    assert caught.value.exit_code == 4
    assert scene.registry.count("GET", "/token") < 20


def test_a_redirect_to_another_host_loses_the_password(
    make_client: MakeClient, tmp_path: object, scene: Scene
) -> None:
    """SECURITY.md S84."""
    credentials = CredentialStore((f"{tmp_path}/config.json",))
    credentials.put(scene.proxy.address, Credential("me", "secret"))
    client = make_client(None, credentials)
    make_client().push(scene.store, scene.image.descriptor, [named(scene.registry.address)])
    before = len(scene.registry.seen)
    challenge = {"WWW-Authenticate": 'Basic realm="x"'}
    scene.proxy.spoil("GET", "/manifests/", chaos.status(401, challenge))

    def to_registry(exchange: Exchange) -> None:
        assert exchange.headers["Authorization"].startswith("Basic ")
        chaos.redirect(f"http://{scene.registry.address}{exchange.path}")(exchange)

    scene.proxy.spoil("GET", "/blobs/", to_registry, times=99)
    client.pull(named(scene.proxy.address), scene.other, HOST)
    assert visible(scene.other) == everything(scene.image)
    redirected = [seen for seen in scene.registry.seen[before:] if "/blobs/" in seen.path]
    assert redirected and not any("authorization" in seen.headers for seen in redirected)


@pytest.mark.parametrize("seed", range(6))
def test_much_at_once(seed: int, make_client: MakeClient, scene: Scene) -> None:
    """Random trouble until both have succeeded; after every failure nothing partial is to be seen."""
    chance = random.Random(seed)
    image = noise(scene.store, *(chance.randrange(1, 150_000) for _ in range(6)), seed=seed)
    trouble = [
        *PASSING.values(),
        chaos.lose_answer,
        chaos.corrupt,
        chaos.html(),
        chaos.wrong_length(3),
        chaos.wrong_length(-3),
        *(chaos.truncate(chance.randrange(150_000)) for _ in range(4)),
        *(chaos.cut_request(chance.randrange(150_000)) for _ in range(4)),
    ]
    for _ in range(25):
        scene.proxy.spoil("[A-Z]+", "/app/", chance.choice(trouble), after=chance.randrange(3))
    name = named(scene.proxy.address)
    for _ in range(60):
        try:
            client = make_client()
            client.push(scene.store, image.descriptor, [name])
            client.pull(name, scene.other, HOST)
            break
        except RegistryError:
            if ("app", "v1") in scene.registry.tags:
                assert {digest for _, digest in scene.registry.blobs} >= {
                    str(layer.digest) for layer in image.layers
                }
            assert str(image.descriptor.digest) not in visible(scene.other)
    assert visible(scene.other) == everything(image)


def test_a_rerun_moves_only_what_is_missing(scene: Scene) -> None:
    """SECURITY.md R11."""
    name = named(scene.registry.address)
    scene.client.push(scene.store, scene.image.descriptor, [name])
    scene.client.pull(name, scene.other, HOST)
    before = len(scene.registry.seen)
    scene.client.push(scene.store, scene.image.descriptor, [name])
    scene.client.pull(name, scene.other, HOST)
    later = scene.registry.seen[before:]
    assert not [seen for seen in later if "/uploads/" in seen.path]
    assert not [seen for seen in later if seen.method == "GET" and "/blobs/" in seen.path]
    scene.other.delete(scene.image.layers[1].digest)
    scene.client.pull(name, scene.other, HOST)
    gets = [seen for seen in scene.registry.seen[before:] if seen.method == "GET" and "/blobs/" in seen.path]
    assert [str(scene.image.layers[1].digest) in seen.path for seen in gets] == [True]


def test_the_search_for_a_registry_survives_a_restart_too(scene: Scene) -> None:
    """SECURITY.md R13: the first request of all, of a host that may speak http or https."""
    scene.publish()
    scene.proxy.spoil("GET", "/v2/", chaos.reset, times=3)
    scene.pull()
    assert scene.proxy.spoilt == 3

"""Manifests that the disk has damaged: put aside, answered as not known, and brought back by a push or by the
registry behind a proxy (SECURITY.md R16)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from served import EMPTY, INDEX, MANIFEST, Registry, descriptor, digest_of, served

from oci.digest import Digest
from oci.layout import Layout
from oci.registry.server import proxy
from tests.builder.cli.damage import DAMAGES
from tests.oci.registry.test_server_proxy import Behind

every_damage = pytest.mark.parametrize(
    "how", [*DAMAGES.values(), lambda content: content * 20_000], ids=[*DAMAGES, "repeated"]
)


def damage(layout: Layout, digest: str, how: Callable[[bytes], bytes]) -> None:
    path = Path(layout.blobs.path(Digest.parse(digest)))
    path.write_bytes(how(path.read_bytes()))


def aside(layout: Layout) -> list[str]:
    return sorted(os.listdir(f"{layout.root}/quarantine"))


@pytest.fixture
def registry(layout: Layout) -> Iterator[Registry]:
    with served(layout) as registry:
        yield registry


@every_damage
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("by", ["tag", "digest"])
def test_it_is_put_aside_not_known_and_healed_by_a_push(
    registry: Registry,
    how: Callable[[bytes], bytes],
    method: str,
    by: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """SECURITY.md R16."""
    digest = registry.manifest("app", "1")
    registry.manifest("app", "2", annotations={"another": "image"})
    damage(registry.layout, digest, how)
    what = "1" if by == "tag" else digest
    answer = registry.ask(method, f"/v2/app/manifests/{what}", If_None_Match=f'"{digest}"')
    assert answer.status == 404
    assert method == "HEAD" or (answer.codes, b"put aside" in answer.body) == (["MANIFEST_UNKNOWN"], True)
    assert f"error: the manifest {digest} in {registry.layout.root} is damaged" in capfd.readouterr().err
    assert aside(registry.layout) == [digest.replace(":", "-")]
    for each in ("1", digest):
        assert registry.ask("GET", f"/v2/app/manifests/{each}").codes == ["MANIFEST_UNKNOWN"]
    assert registry.ask("GET", f"/v2/app/blobs/{digest}").status == 404
    assert registry.tags("app") == ["2"] and registry.ask("GET", "/v2/_catalog").json == {
        "repositories": ["app"]
    }
    assert capfd.readouterr().err == ""
    assert registry.manifest("app", "1") == digest
    for each in ("1", digest):
        assert digest_of(registry.ask("GET", f"/v2/app/manifests/{each}").body) == digest
    assert registry.tags("app") == ["1", "2"]


@every_damage
def test_a_push_heals_what_nobody_has_met(registry: Registry, how: Callable[[bytes], bytes]) -> None:
    """Clients put a manifest without asking first."""
    digest = registry.manifest("app", "1")
    damage(registry.layout, digest, how)
    assert registry.manifest("app", "2") == digest
    assert digest_of(registry.ask("GET", "/v2/app/manifests/1").body) == digest


def test_a_push_that_wants_the_tag_to_be_free(registry: Registry) -> None:
    content = registry.document("app", annotations={"another": "image"})
    digest = registry.manifest("app", "1")
    headers = {"Content_Type": MANIFEST, "If_None_Match": "*"}
    assert registry.ask("PUT", "/v2/app/manifests/1", content, **headers).status == 412
    damage(registry.layout, digest, DAMAGES["flipped"])
    assert registry.ask("PUT", "/v2/app/manifests/1", content, **headers).status == 201


def test_the_tag_of_a_damaged_manifest_can_be_deleted_and_moved(registry: Registry) -> None:
    for tag in ("1", "2"):
        damage(registry.layout, registry.manifest("app", tag, annotations={"for": tag}), DAMAGES["empty"])
    assert registry.ask("GET", "/v2/app/manifests/1").status == 404
    assert registry.ask("DELETE", "/v2/app/manifests/1").status == 202
    assert registry.ask("DELETE", "/v2/app/manifests/1").status == 404
    other = registry.manifest("app", "2", annotations={"another": "image"})
    assert registry.ask("HEAD", "/v2/app/manifests/2").headers["docker-content-digest"] == other
    assert registry.tags("app") == ["2"]


def test_an_index_whose_child_is_damaged(registry: Registry) -> None:
    content = registry.document("app")
    child = registry.manifest("app")
    index = registry.index("app", "1", [(child, len(content))])
    damage(registry.layout, child, DAMAGES["truncated"])
    assert registry.ask("GET", f"/v2/app/manifests/{child}").codes == ["MANIFEST_UNKNOWN"]
    assert registry.ask("GET", "/v2/app/manifests/1").headers["docker-content-digest"] == index
    assert registry.ask("PUT", f"/v2/app/manifests/{child}", content, Content_Type=MANIFEST).status == 201
    assert registry.ask("GET", f"/v2/app/manifests/{child}").body == content


@pytest.mark.parametrize("restarted", [False, True])
def test_the_images_of_an_index_come_back_with_it(layout: Layout, restarted: bool) -> None:
    """An index that only a name of the store leads to: nothing is linked, all is read from the documents."""
    with served(layout, hostname="r.example") as registry:
        content = registry.document("app")
        child = registry.manifest("app")
        index = registry.index("app", "1", [(child, len(content))])
    for path in (Path(layout.root) / "registry").glob("links.db*"):
        path.unlink()
    whole = Path(layout.blobs.path(Digest.parse(index))).read_bytes()
    with served(Layout.open(layout.root), hostname="r.example") as registry:
        assert registry.ask("GET", f"/v2/app/manifests/{child}").status == 200 or restarted
        damage(layout, index, DAMAGES["flipped"])
        if not restarted:
            assert registry.ask("GET", "/v2/app/manifests/1").status == 404
    with served(Layout.open(layout.root), hostname="r.example") as registry:
        assert registry.ask("GET", f"/v2/app/manifests/{child}").status == 404
        assert aside(layout) == [index.replace(":", "-")]
        layout.blobs.write(whole)  # as a command beside the server fetches it again
        assert registry.ask("GET", f"/v2/app/manifests/{child}").body == content
        config = registry.ask("GET", f"/v2/app/manifests/{child}").json["config"]["digest"]
        assert registry.ask("GET", f"/v2/app/blobs/{config}").status == 200
        assert registry.tags("app") == ["1"]


def test_a_damaged_referrer_is_not_listed(registry: Registry) -> None:
    content = registry.document("app")
    registry.manifest("app", "1")
    registry.blob("app", b"{}")
    empty = descriptor(EMPTY, b"{}")
    about = {
        "subject": descriptor(MANIFEST, content),
        "artifactType": "text/x",
        "config": empty,
        "layers": [empty],
    }
    first = registry.manifest("app", annotations={"n": "1"}, **about)
    second = registry.manifest("app", annotations={"n": "2"}, **about)
    damage(registry.layout, first, DAMAGES["flipped"])
    answer = registry.ask("GET", f"/v2/app/referrers/{digest_of(content)}")
    assert answer.headers["content-type"] == INDEX
    assert [each["digest"] for each in answer.json["manifests"]] == [second]
    registry.manifest("app", annotations={"n": "1"}, **about)
    answer = registry.ask("GET", f"/v2/app/referrers/{digest_of(content)}")
    assert {each["digest"] for each in answer.json["manifests"]} == {first, second}


def test_other_blobs_are_found_beside_a_damaged_manifest(layout: Layout, tmp_path: Path) -> None:
    """What a cache fetches, it looks up in all manifests of a repository."""
    with served(Layout.create(tmp_path / "behind")) as registry:
        behind = Behind(registry)
        with served(layout, upstream=behind) as cache:
            for tag in ("1", "2"):
                registry.manifest("app", tag, text=tag.encode())
                assert cache.ask("GET", f"/v2/app/manifests/{tag}").status == 200
            for tag in ("1", "2"):
                shown = registry.ask("GET", f"/v2/app/manifests/{tag}")
                damage(layout, shown.headers["docker-content-digest"], DAMAGES["flipped"])
                other = registry.ask("GET", f"/v2/app/manifests/{'21'[int(tag) - 1]}").json
                assert cache.ask("GET", f"/v2/app/blobs/{other['config']['digest']}").status == 200
                registry.ask("HEAD", f"/v2/app/manifests/{tag}")
                assert cache.ask("GET", f"/v2/app/manifests/{tag}").status == 200


@every_damage
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("by", ["tag", "digest"])
def test_a_cache_fetches_it_again(
    layout: Layout, tmp_path: Path, how: Callable[[bytes], bytes], method: str, by: str
) -> None:
    """SECURITY.md R16."""
    with served(Layout.create(tmp_path / "behind")) as registry:
        behind = Behind(registry)
        digest = registry.manifest("app", "1")
        with served(layout, upstream=behind) as cache:
            what = "1" if by == "tag" else digest
            assert cache.ask("GET", f"/v2/app/manifests/{what}").status == 200
            damage(layout, digest, how)
            answer = cache.ask(method, f"/v2/app/manifests/{what}")
            assert answer.status == 200 and answer.headers["docker-content-digest"] == digest
            assert aside(layout) == [digest.replace(":", "-")] and len(behind.asked) == 2
            assert digest_of(cache.ask("GET", f"/v2/app/manifests/{what}").body) == digest


def test_a_cache_whose_source_is_out_of_reach_says_so(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "FRESH_SECONDS", -1.0)
    with served(Layout.create(tmp_path / "behind")) as registry:
        behind = Behind(registry)
        digest = registry.manifest("app", "1")
        with served(layout, upstream=behind) as cache:
            assert cache.ask("GET", "/v2/app/manifests/1").status == 200
            damage(layout, digest, DAMAGES["empty"])
            behind.reachable = False
            for what in ("1", digest):
                assert cache.ask("GET", f"/v2/app/manifests/{what}").status == 502
            behind.reachable = True
            assert cache.ask("GET", "/v2/app/manifests/1").status == 200

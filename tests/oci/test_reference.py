"""Names as people write them."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from oci.digest import Digest
from oci.errors import InvalidReference
from oci.reference import Reference

HEX = "a" * 64
SHA = "sha256:" + HEX


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("ubuntu:24.04", "docker.io/library/ubuntu:24.04", "ubuntu:24.04"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("index.docker.io/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("index.docker.io/a/b", "docker.io/a/b", "a/b"),
        ("library/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("me/app:1", "docker.io/me/app:1", "me/app:1"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost:5000/x", "localhost:5000/x", "localhost:5000/x"),
        ("host:5000/x/y:z", "host:5000/x/y:z", "host:5000/x/y:z"),
        ("ghcr.io/a/b", "ghcr.io/a/b", "ghcr.io/a/b"),
        ("Registry/app", "Registry/app", "Registry/app"),
        ("127.0.0.1/x", "127.0.0.1/x", "127.0.0.1/x"),
        ("[2001:db8::1]:5000/x", "[2001:db8::1]:5000/x", "[2001:db8::1]:5000/x"),
        (f"x@{SHA}", f"docker.io/library/x@{SHA}", f"x@{SHA}"),
        (f"x:t@{SHA}", f"docker.io/library/x:t@{SHA}", f"x:t@{SHA}"),
        ("docker.io/localhost/x", "docker.io/localhost/x", "docker.io/localhost/x"),
        ("docker.io/a.b/x", "docker.io/a.b/x", "docker.io/a.b/x"),
        ("docker.io/library/" + HEX, "docker.io/library/" + HEX, "library/" + HEX),
        ("a__b/c--d_e.f", "docker.io/a__b/c--d_e.f", "a__b/c--d_e.f"),
        ("x:" + "A" * 128, "docker.io/library/x:" + "A" * 128, "x:" + "A" * 128),
        ("x:_", "docker.io/library/x:_", "x:_"),
        ("5000/x", "docker.io/5000/x", "5000/x"),
    ],
)
def test_means(text: str, full: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert (str(reference), reference.familiar()) == (full, familiar)
    assert Reference.parse(full) == Reference.parse(familiar) == reference


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        (HEX, "is an image id"),
        ("Ubuntu", "lower case; did you mean 'ubuntu'"),
        ("Ubuntu:Latest", "lower case; did you mean 'ubuntu:Latest'"),
        ("host:5000/App", "lower case; did you mean 'host:5000/app'"),
        ("x:", "'' is no tag"),
        ("x:.a", "'.a' is no tag"),
        ("x:-a", "is no tag"),
        ("x:" + "a" * 129, "is no tag"),
        ("x:a:b", "'a:b' is no tag"),
        ("x:a\n", "is no tag"),
        ("x@", "is no digest"),
        ("x@sha256:abc", "is no digest"),
        (f"x@{SHA.upper()}", "is no digest"),
        (f"x@{SHA}@{SHA}", "is no digest"),
        ("-x", "is no image name"),
        ("x-", "is no image name"),
        ("x___y", "is no image name"),
        ("x..y", "is no image name"),
        ("a//b", "is no image name"),
        ("/a", "is no image name"),
        ("a/", "is no image name"),
        ("../etc", "is no registry"),
        ("a/../b", "is no image name"),
        ("ü", "is no image name"),
        ("a b", "is no image name"),
        ("x\n", "is no image name"),
        ("ho_st:5000/x", "is no registry"),
        ("host:port/x", "is no registry"),
        ("-host.io/x", "is no registry"),
        ("http://host/x", "is no registry"),
        ("host.io/" + "a" * 256, "256 characters; at most 255"),
        (":tag", "is no image name"),
        ("@" + SHA, "is no image name"),
    ],
)
def test_refuses(text: str, says: str) -> None:
    """SECURITY.md S81."""
    with pytest.raises(InvalidReference, match=says) as caught:
        Reference.parse(text)
    assert len(str(caught.value)) < 600


def test_longest_path() -> None:
    assert Reference.parse("host.io/" + "a" * 255)
    assert Reference.parse("a" * 247)


def test_tags_and_digests() -> None:
    plain = Reference.parse("app")
    digest = Digest.parse(SHA)
    assert plain.tag == ""
    assert plain.with_default_tag().tag == "latest"
    assert plain.with_tag("1").with_default_tag().tag == "1"
    assert plain.with_digest(digest).with_default_tag().tag == ""
    assert (plain.locator, plain.with_tag("1").locator) == ("latest", "1")
    assert plain.with_tag("1").with_digest(digest).locator == SHA
    assert plain.repository == "docker.io/library/app"
    with pytest.raises(InvalidReference):
        plain.with_tag("no/tag")


COMPONENT = st.from_regex(r"[a-z0-9]{1,4}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
DOMAIN = st.from_regex(r"[a-zA-Z0-9]{1,5}(\.[a-zA-Z0-9]{1,4}){1,2}(:[0-9]{1,5})?", fullmatch=True)
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,20}", fullmatch=True)


@given(
    st.none() | DOMAIN | st.just("docker.io"),
    st.lists(COMPONENT, min_size=1, max_size=4).map("/".join),
    st.none() | TAG,
    st.booleans(),
)
@example("docker.io", "localhost/x", None, False)
@example("docker.io", "library/" + HEX, None, False)
def test_round_trips(domain: str | None, path: str, tag: str | None, pinned: bool) -> None:
    # Without a host, a first component with a dot would be read as one.
    assume(domain is not None or "." not in path.partition("/")[0])
    text = (
        (f"{domain}/" if domain else "") + path + (f":{tag}" if tag else "") + (f"@{SHA}" if pinned else "")
    )
    reference = Reference.parse(text)
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar()) == reference
    assert len(reference.familiar()) <= len(str(reference))


@given(st.text("aA0./:@_- \n[]", max_size=12) | st.text(max_size=20))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert Reference.parse(str(reference)) == reference

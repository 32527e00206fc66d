"""Lists, a page at a time: tags, repositories, and what refers to a manifest (distribution-spec: Content
Discovery).

Everything is in the order that the specification wants of tags: without regard to case; of what differs only
in that, capitals go first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from urllib.parse import quote, urlencode

from oci import media_types
from oci.model import Descriptor, Index
from oci.registry.server.documents import digest_of
from oci.registry.server.problems import Problem
from oci.registry.server.repositories import Repositories
from oci.registry.server.request import Request
from oci.registry.server.response import Response, json_type
from oci.strict_json import dumps

MAX_PAGE = 10_000
"""Entries of a page that may be asked for; more are a matter of the next page."""
MAX_REFERRERS = 2 << 20
"""Bytes of descriptors on a page of referrers: clients read no index beyond 4 MiB."""


def tags(request: Request, repositories: Repositories, name: str) -> Response:
    """A repository's tags."""
    if not repositories.exists(name):
        raise Problem(404, "NAME_UNKNOWN", f"there is no repository {name}", detail={"name": name})
    page, link = _page(request, sorted(repositories.tags(name), key=_order))
    return Response(200, [*json_type(), *link], dumps({"name": name, "tags": page}))


def catalog(request: Request, repositories: Repositories) -> Response:
    """All repositories; Docker's addition to the API."""
    page, link = _page(request, repositories.all())
    return Response(200, [*json_type(), *link], dumps({"repositories": page}))


def referrers(request: Request, repositories: Repositories, name: str, what: str) -> Response:
    """What refers to a manifest, which need not be there; as an index."""
    subject = digest_of(what)
    if subject is None:
        raise Problem(400, "DIGEST_INVALID", f"{what[:200]!r} is no digest", detail={"digest": what[:200]})
    found = [each.descriptor for each in repositories.referrers(name, subject)]
    headers = [("Content-Type", media_types.OCI_INDEX)]
    if kind := request.one("artifactType"):
        found = [each for each in found if each.artifact_type == kind]
        headers.append(("OCI-Filters-Applied", "artifactType"))
    start = _after(request, [str(each.digest) for each in found])
    page = _fitting(found[start:], _limit(request))
    if start + len(page) < len(found) and page:
        kept = {"artifactType": kind} if kind else {}
        headers.append(_link(request, {"last": str(page[-1].digest), **_n(request), **kept}))
    return Response(200, headers, Index(tuple(page)).to_json())


def _fitting(found: list[Descriptor], limit: int) -> list[Descriptor]:
    page: list[Descriptor] = []
    size = 0
    for descriptor in found[:limit]:
        size += len(Index((descriptor,)).to_json())
        if page and size > MAX_REFERRERS:
            break
        page.append(descriptor)
    return page


def _page(request: Request, items: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    start = _after(request, items)
    limit = _limit(request) if "n" in request.query else len(items)
    page = items[start : start + limit]
    if not page or start + limit >= len(items):
        return page, []
    return page, [_link(request, {**_n(request), "last": page[-1]})]


def _after(request: Request, items: Sequence[str]) -> int:
    last = request.one("last")
    return bisect_right(items, _order(last), key=_order) if last else 0


def _order(text: str) -> tuple[str, str]:
    return text.lower(), text


def _limit(request: Request) -> int:
    text = request.one("n")
    if "n" not in request.query:
        return MAX_PAGE
    if not (text.isascii() and text.isdigit()):
        raise Problem(400, "UNSUPPORTED", f"n={text[:40]!r} is no number of entries")
    return min(int(text[:9]), MAX_PAGE)


def _n(request: Request) -> dict[str, str]:
    return {"n": str(_limit(request))} if "n" in request.query else {}


def _link(request: Request, query: dict[str, str]) -> tuple[str, str]:
    return "Link", f'<{quote(request.path)}?{urlencode(query)}>; rel="next"'

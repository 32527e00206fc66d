"""Which endpoint a request is for, and what every answer has in common (distribution-spec: Endpoints)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable

from oci.errors import OciError
from oci.registry.server import listing, problems
from oci.registry.server.auth import Htpasswd
from oci.registry.server.blobs import Blobs
from oci.registry.server.manifests import Manifests
from oci.registry.server.names import is_repository
from oci.registry.server.options import Options
from oci.registry.server.problems import Problem
from oci.registry.server.proxy import Lent, Proxy
from oci.registry.server.receive import Gone
from oci.registry.server.repositories import Repositories
from oci.registry.server.request import Request
from oci.registry.server.response import Response, json_type
from oci.registry.server.transfers import Transfers
from oci.registry.server.uploads import Uploads

_VERSION = ("Docker-Distribution-API-Version", "registry/2.0")
_NO_SNIFFING = ("X-Content-Type-Options", "nosniff")
_PATH = re.compile(
    r"/v2/(?P<name>.+)/(?:blobs/(?P<uploads>uploads)(?:/(?P<id>[^/]*))?"
    r"|(?P<kind>manifests|blobs|referrers)/(?P<what>[^/]+)|(?P<list>tags)/list)"
)
_READS = ("GET", "HEAD")

Endpoint = Callable[[Request, str, str], Response]


class App:
    """Answers requests. It never raises but for connections that are gone."""

    def __init__(self, repositories: Repositories, options: Options) -> None:
        self._transfers = Transfers(repositories.blobs, repositories.guard)
        lent = Lent(options.origins, repositories, self._transfers)
        proxy = Proxy(options.upstream, repositories, self._transfers) if options.upstream else None
        self._elsewhere = (proxy, lent) if proxy else (lent,)
        self._users = Htpasswd(options.htpasswd) if options.htpasswd else None
        self._writable = not (options.read_only or proxy)
        self._repositories = repositories
        self.uploads = Uploads(repositories, options)
        blobs = Blobs(repositories, self._elsewhere)
        manifests = Manifests(repositories, proxy, lent, self._transfers)
        self._endpoints: dict[str, dict[str, Endpoint]] = {
            "manifests": {
                "GET": manifests.get,
                "HEAD": manifests.get,
                "PUT": manifests.put,
                "DELETE": manifests.delete,
            },
            "blobs": {"GET": blobs.get, "HEAD": blobs.get, "DELETE": blobs.delete},
            "uploads": {"POST": self.uploads.start},
            "upload": {
                "GET": self.uploads.status,
                "HEAD": self.uploads.status,
                "PATCH": self.uploads.append,
                "PUT": self.uploads.finish,
                "DELETE": self.uploads.cancel,
            },
            "referrers": {"GET": self._referrers, "HEAD": self._referrers},
            "tags": {"GET": self._tags, "HEAD": self._tags},
        }

    def close(self) -> None:
        """Let go of what is under way."""
        for place in self._elsewhere:
            place.close()
        self._transfers.close()
        self.uploads.close()

    def answer(self, request: Request) -> Response:
        """The answer, whatever happens. Raises Gone."""
        try:
            response = self._routed(request)
        except Gone:
            raise
        except Exception as error:
            problem = problems.of(error)
            if problem.status == 500:
                _report(error)
            response = Response.of(problem)
        response.headers[:0] = [_VERSION, _NO_SNIFFING]
        return response

    def _routed(self, request: Request) -> Response:
        if self._users is not None:
            request.user = self._users.user(request.headers.get("authorization", ""))
        if request.path in ("/v2/", "/v2"):
            return _plain(request, _base)
        if request.path == "/v2/_catalog":
            return _plain(request, self._catalog)
        match = _PATH.fullmatch(request.path)
        if match is None:
            raise Problem(404, "UNSUPPORTED", "there is nothing here; a registry's API is below /v2/")
        kind = match["kind"] or match["list"] or ("upload" if match["id"] else "uploads")
        endpoint = self._endpoint(kind, request.method)
        name = match["name"]
        if not is_repository(name):
            status = 404 if request.method in _READS else 400
            raise Problem(
                status, "NAME_INVALID", f"{name[:300]!r} is no repository's name", detail={"name": name[:300]}
            )
        return endpoint(request, name, match["what"] or match["id"] or "")

    def _endpoint(self, kind: str, method: str) -> Endpoint:
        methods = self._endpoints[kind]
        allowed = [each for each in methods if self._writable or each in _READS]
        if method == "OPTIONS":
            return lambda request, name, what: _options(allowed)
        if method not in allowed:
            why = "this registry is read-only" if method in methods else f"{method} is not for this"
            raise Problem(405, "UNSUPPORTED", why, headers=(_allow(allowed),))
        return methods[method]

    def _tags(self, request: Request, name: str, what: str) -> Response:
        return listing.tags(request, self._repositories, name)

    def _catalog(self, request: Request) -> Response:
        return listing.catalog(request, self._repositories)

    def _referrers(self, request: Request, name: str, what: str) -> Response:
        return listing.referrers(request, self._repositories, name, what)


def _plain(request: Request, endpoint: Callable[[Request], Response]) -> Response:
    """What can only be read."""
    if request.method == "OPTIONS":
        return _options(_READS)
    if request.method not in _READS:
        raise Problem(405, "UNSUPPORTED", f"{request.method} is not for this", headers=(_allow(_READS),))
    return endpoint(request)


def _options(methods: Iterable[str]) -> Response:
    return Response(204, [_allow(methods)])


def _allow(methods: Iterable[str]) -> tuple[str, str]:
    return "Allow", ", ".join((*methods, "OPTIONS"))


def _base(request: Request) -> Response:
    return Response(200, [*json_type()], b"{}")


def _report(error: Exception) -> None:
    """Tell whoever runs the registry: in a line what we foresaw, in full what we did not."""
    if isinstance(error, OciError | Problem | OSError):
        sys.stderr.write(f"error: {error}\n")
        return
    import traceback

    traceback.print_exception(error, file=sys.stderr)

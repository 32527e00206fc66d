"""What a request can do wrong, as the distribution-spec's error documents say it (Error Codes)."""

from __future__ import annotations

import errno
from http import HTTPStatus

from oci import errors
from oci.registry.patience import Stopped
from oci.strict_json import dumps

Headers = tuple[tuple[str, str], ...]


class Problem(Exception):
    """An answer other than success: HTTP status, the spec's error code, and a sentence for people."""

    def __init__(
        self, status: int, code: str, message: str, *, detail: object = None, headers: Headers = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers
        self.more: tuple[Problem, ...] = ()

    def document(self) -> bytes:
        """The JSON body."""
        return dumps({"errors": [each._entry() for each in (self, *self.more)]})

    def _entry(self) -> dict[str, object]:
        entry: dict[str, object] = {"code": self.code, "message": str(self)}
        return entry if self.detail is None else {**entry, "detail": self.detail}

    @classmethod
    def all(cls, problems: list[Problem]) -> Problem:
        """Several at once: the first one's status, every one's entry."""
        first, *more = problems
        first.more = tuple(more)
        return first


def of(error: BaseException) -> Problem:
    """The answer to an error that an endpoint did not foresee."""
    match error:
        case Problem():
            return error
        case errors.LimitExceeded():
            return Problem(413, "SIZE_INVALID", str(error))
        case errors.InvalidDigest():
            return Problem(400, "DIGEST_INVALID", str(error))
        case errors.InvalidDocument():
            return Problem(400, "MANIFEST_INVALID", str(error))
        case errors.BlobNotFound():
            return Problem(404, "BLOB_UNKNOWN", str(error))
        case Stopped():
            return Problem(503, "UNKNOWN", "the registry is being stopped")
        case errors.RegistryError():
            return Problem(502, "UNKNOWN", f"the registry behind this one: {error}")
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Problem(507, "UNKNOWN", "the disk is full")
    return Problem(500, "UNKNOWN", "this is a mistake in the registry; its log says more")


def reason(status: int) -> str:
    """The phrase of a status line."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"

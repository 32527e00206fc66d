"""A request, read strictly (RFC 9112): one meaning or none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from oci.registry.server.problems import Problem
from oci.registry.server.receive import Body, Incoming

_LINE = re.compile(rb"([A-Z]{1,16}) ([\x21-\x7e]{1,16384}) HTTP/1\.([01])")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\x80-\xff\t]*?)[ \t]*")


@dataclass(slots=True)
class Request:
    """One request. `path` is decoded; header names are lower case, repeated ones joined with a comma."""

    method: str
    target: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: Body
    remote: str = ""
    user: str = ""
    keep_alive: bool = True

    def one(self, name: str) -> str:
        """A query parameter's first value, "" if it is absent."""
        values = self.query.get(name)
        return values[0] if values else ""


def parse(head: bytes, incoming: Incoming, proceed: Callable[[], None], remote: str) -> Request:
    """The request that a head begins. Raises Problem; the connection cannot go on after that."""
    first, *lines = head.split(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        raise Problem(400, "UNSUPPORTED", "this is no request of HTTP/1.1")
    headers = _headers(lines)
    recent = line[3] == b"1"
    if recent and "host" not in headers:
        raise Problem(400, "UNSUPPORTED", "the request names no host")
    target = line[2].decode("ascii")
    path, query = _target(target)
    waits = recent and headers.get("expect", "").lower() == "100-continue"
    body = Body(incoming, _length(headers), proceed if waits else None)
    tokens = {token.strip() for token in headers.get("connection", "").lower().split(",")}
    keep = recent and "close" not in tokens
    return Request(line[1].decode(), target, path, query, headers, body, remote, keep_alive=keep)


def _headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for text in lines:
        match = _HEADER.fullmatch(text)
        if match is None:
            raise Problem(400, "UNSUPPORTED", "a header is malformed")
        name, value = match[1].decode().lower(), match[2].decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _target(target: str) -> tuple[str, dict[str, list[str]]]:
    if not target.startswith("/"):  # absolute-form, as proxies are asked
        scheme, _, rest = target.partition("://")
        if scheme.lower() not in ("http", "https"):
            raise Problem(400, "UNSUPPORTED", "the request's target is no path")
        target = "/" + rest.partition("/")[2]
    path, _, text = target.partition("?")
    query: dict[str, list[str]] = {}
    try:
        for key, value in parse_qsl(text, keep_blank_values=True, max_num_fields=128):
            query.setdefault(key, []).append(value)
    except ValueError:
        raise Problem(414, "UNSUPPORTED", "the request has too many parameters") from None
    return unquote(path, errors="replace"), query


def _length(headers: Mapping[str, str]) -> int | None:
    coding, text = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked" or text is not None:
            raise Problem(400, "UNSUPPORTED", "the body's length is ambiguous")
        return None
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Problem(400, "SIZE_INVALID", f"Content-Length: {text[:40]!r} is no length")
    return int(text)

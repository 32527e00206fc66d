"""What may be shown of what came from the network or went there: no secrets, no control characters, not too
much. The patterns are compiled when something is to be shown: most commands show nothing of it."""

from __future__ import annotations

import re

_USERINFO = r"(?<=://)[^/\s@]*@"
_QUERY = r"(\b\w{1,20}://[^\s?\"'<>]+|(?<![\w])/v2/[^\s?\"'<>]+)\?[^\s\"'<>)]*"
_AUTHORIZATION = r"(?i)\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{6,}"
_FIELDS = (
    r"(?i)(\"?\b(?:password|passwd|secret|(?:access|refresh|identity|registry)_?token|token|authorization)\b\"?\s*[=:]\s*)"
    r"(\"[^\"]*\"|[^\s,;&}\"]+)"
)
_JWT = r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
_CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+"


def redact(text: str, limit: int = 600) -> str:
    """`text` on one line, at most `limit` characters, without passwords, tokens and the queries of URLs."""
    text = re.sub(_CONTROL, " ", text[: 16 * limit])
    text = re.sub(_USERINFO, "", text)
    text = re.sub(_QUERY, r"\1", text)
    text = re.sub(_AUTHORIZATION, r"\1 ***", text)
    text = re.sub(_JWT, "***", text)
    text = re.sub(_FIELDS, r"\1***", text).strip()
    return text if len(text) <= limit else text[: limit - 4].rstrip() + " ..."


def shown_url(url: str) -> str:
    """A URL for messages: without user information, query and fragment."""
    return redact(url.partition("#")[0].partition("?")[0], 300)

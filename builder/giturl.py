"""Git repositories as URLs (FEATURES.md C04), in every form that BuildKit reads.

    repository   https://h/r.git  http://h/r.git  ssh://h/r  git://h/r  user@h:r  github.com/x/y (contexts)
    #ref:dir     what to check out, and the directory in it that counts
    ?key=value   ref tag branch subdir checksum commit keep-git-dir submodules mtime fetch-by-commit

An http(s) URL is a repository only when its path ends in `.git`. Whatever could be read as an option of git,
or as another protocol than those above, is refused here, before a program sees it (SECURITY.md S50, S52).
"""

from __future__ import annotations

import re
from dataclasses import field, replace
from typing import Any

from oci.data import dataclass

SCHEMES = ("https", "ssh", "git", "http")
_SCHEME = re.compile(r"([A-Za-z0-9][A-Za-z0-9+.-]*)://")
_SCP = re.compile(
    r"([A-Za-z0-9_][A-Za-z0-9_.-]*)@([A-Za-z0-9][A-Za-z0-9.-]*):([^?#]*)(?:\?([^#]*))?(?:#(.*))?"
)
_HOST = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|^[-/.]|[/.]$|^@$")
_COMMIT = re.compile(r"[0-9a-f]{4,64}")
_FULL_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BOOLEANS = {
    **dict.fromkeys(("", "1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


class GitUrlError(ValueError):
    """A repository's URL that cannot be used as it is written."""


@dataclass(frozen=True, slots=True)
class GitUrl:
    """What a URL asks for. `remote` is what git is given: without query, fragment and passwords.

    `checksum` is the beginning of the commit that must come out. `keep_git_dir` of None was not written.
    """

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool = True
    commit_times: bool = False
    by_commit: bool = False
    userinfo: str = field(default="", repr=False)

    @property
    def scheme(self) -> str:
        """One of SCHEMES."""
        found = _SCHEME.match(self.remote)
        return found[1].lower() if found else "ssh"

    @property
    def host(self) -> str:
        """`host[:port]`."""
        rest = self.remote.partition("://")[2] or self.remote
        place = rest.partition("/")[0]
        if "://" not in self.remote:
            place = place.partition(":")[0]
        return place.rpartition("@")[2].lower()

    @property
    def name(self) -> str:
        """The repository's short name."""
        return re.split("[/:]", self.remote.rstrip("/"))[-1].removesuffix(".git")

    @property
    def commit(self) -> str:
        """The full commit that is asked for, when that is known without asking anybody."""
        return self.ref if _FULL_COMMIT.fullmatch(self.ref) else ""

    def __str__(self) -> str:
        fragment = f"#{self.ref}:{self.subdir}" if self.subdir else f"#{self.ref}" if self.ref else ""
        return self.remote + fragment

    def definition(self) -> dict[str, Any]:
        """All that what comes out depends on, but the repository's state."""
        return {
            "remote": self.remote,
            "ref": self.ref,
            "subdir": self.subdir,
            "checksum": self.checksum,
            "submodules": self.submodules,
            "commit_times": self.commit_times,
        }


def parse(text: str, *, bare: bool = False) -> GitUrl | None:
    """What `text` means as a repository; None when it is none. `bare` takes `github.com/x/y` too.

    Raises GitUrlError for a repository's URL with an unknown or contradicting query, or dangerous parts.
    """
    if bare and text.startswith("github.com/"):
        text = f"https://{text}"
        path, mark, rest = _cut(text)
        text = path + ("" if path.endswith(".git") else ".git") + mark + rest
    found = _SCHEME.match(text)
    if found is None:
        return _scp(text)
    if found[1].lower() not in SCHEMES:
        return None
    return _url(text)


def looks_remote(text: str) -> bool:
    """Whether `text` is a URL or an scp-style name, of whatever protocol, and so no path."""
    return _SCHEME.match(text) is not None or _SCP.fullmatch(text) is not None


def with_checksum(git: GitUrl, checksum: str) -> GitUrl:
    """`git` that must come out as the commit beginning with `checksum`. Raises GitUrlError."""
    if not checksum:
        return git
    if not _COMMIT.fullmatch(checksum):
        raise GitUrlError(f"the checksum {checksum!r} is no commit; write its hex digits")
    if git.checksum and git.checksum != checksum:
        raise GitUrlError(f"two checksums that differ: {checksum} and {git.checksum}")
    return replace(git, checksum=checksum, ref=git.ref or checksum)


def _cut(text: str) -> tuple[str, str, str]:
    """`text` before its query or fragment, the mark, and the rest."""
    at = min((index for index in (text.find("?"), text.find("#")) if index >= 0), default=len(text))
    return text[:at], text[at : at + 1], text[at + 1 :]


def _scp(text: str) -> GitUrl | None:
    found = _SCP.fullmatch(text)
    if found is None:
        return None
    user, host, path, query, fragment = found.groups()
    if not path or path.startswith("-"):
        raise GitUrlError(f"{text!r} has no path that git could be given")
    return _asked(_checked(f"{user}@{host}:{path}"), "", query or "", fragment or "", "")


def _url(text: str) -> GitUrl | None:
    before, _, fragment = text.partition("#")
    before, _, query = before.partition("?")
    scheme, _, rest = before.partition("://")
    scheme = scheme.lower()
    place, slash, path = rest.partition("/")
    user, _, host = place.rpartition("@")
    if scheme in ("http", "https") and not path.rstrip("/").endswith(".git"):
        return None
    if not _HOST.fullmatch(host):
        raise GitUrlError(f"{host!r} is no host that git could be given")
    if not path:
        raise GitUrlError(f"{scheme}://{host} names no repository")
    if scheme == "ssh":
        if user.startswith("-"):
            raise GitUrlError(f"{user!r} is no user that ssh could be given")
        return _asked(
            _checked(f"ssh://{user + '@' if user else ''}{host}{slash}{path}"), "", query, fragment, ""
        )
    remote = _checked(f"{scheme}://{host}{slash}{path.rstrip('/')}")
    return _asked(remote, user, query, fragment, text)


def _checked(remote: str) -> str:
    if re.search(r"[\x00-\x20\x7f]", remote):
        raise GitUrlError("a repository's URL holds no blanks and no control characters")
    return remote


def _asked(remote: str, userinfo: str, query: str, fragment: str, text: str) -> GitUrl:
    ref, _, subdir = _unquoted(fragment).partition(":")
    options = _options(query)
    checksum = _one(options, "checksum", "commit")
    named = {
        "ref": {ref, options.get("ref", "")},
        "tag": {_full("refs/tags/", options.get("tag", ""))},
        "branch": {_full("refs/heads/", options.get("branch", ""))},
    }
    refs = sorted(set().union(*named.values()) - {""})
    if len(refs) > 1:
        raise GitUrlError(f"refs that contradict each other: {' and '.join(refs)}")
    git = GitUrl(
        remote,
        _valid_ref(refs[0]) if refs else checksum,
        _valid_subdir(_same("subdir", subdir, options.get("subdir", ""))),
        "",
        _boolean(options, "keep-git-dir"),
        _boolean(options, "submodules") is not False,
        _mtime(options) == "commit",
        bool(_boolean(options, "fetch-by-commit")),
        userinfo,
    )
    if git.by_commit and not _FULL_COMMIT.fullmatch(checksum):
        raise GitUrlError("fetch-by-commit needs checksum=<the whole commit>")
    return with_checksum(git, checksum)


def _options(query: str) -> dict[str, str]:
    known = (
        *("ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules", "mtime"),
        "fetch-by-commit",
    )
    found: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        name, value = _unquoted(name), _unquoted(value)
        if name not in known:
            raise GitUrlError(f"the query has an unknown key {name!r}; it knows {', '.join(known)}")
        if name in found:
            raise GitUrlError(f"the query has {name!r} twice")
        if not value and name not in ("keep-git-dir", "submodules", "fetch-by-commit"):
            raise GitUrlError(f"the query's {name!r} has no value")
        found[name] = value
    return found


def _unquoted(text: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote

    return unquote(text)


def _one(options: dict[str, str], *names: str) -> str:
    values = {options[name] for name in names if name in options}
    if len(values) > 1:
        raise GitUrlError(f"{' and '.join(names)} contradict each other")
    return next(iter(values), "")


def _full(prefix: str, name: str) -> str:
    return name if not name or name.startswith(prefix) else prefix + name


def _same(what: str, *values: str) -> str:
    given = {each for each in values if each}
    if len(given) > 1:
        raise GitUrlError(f"two values for {what}: {' and '.join(sorted(given))}")
    return next(iter(given), "")


def _boolean(options: dict[str, str], name: str) -> bool | None:
    if name not in options:
        return None
    if options[name] not in _BOOLEANS:
        raise GitUrlError(f"{name} is true or false, not {options[name]!r}")
    return _BOOLEANS[options[name]]


def _mtime(options: dict[str, str]) -> str:
    value = options.get("mtime", "checkout")
    if value not in ("checkout", "commit"):
        raise GitUrlError(f"mtime is checkout or commit, not {value!r}")
    return value


def _valid_ref(ref: str) -> str:
    """`ref`, when git-check-ref-format(1) would let it through."""
    if _BAD_REF.search(ref) or len(ref) > 1024:
        raise GitUrlError(f"{ref[:80]!r} is no name of a branch, tag or commit")
    return ref


def _valid_subdir(subdir: str) -> str:
    parts = [part for part in subdir.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in subdir or subdir.startswith("-"):
        raise GitUrlError(f"the directory {subdir!r} does not lie inside the repository")
    return "/".join(parts)

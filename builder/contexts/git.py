"""Git repositories: which commit a ref is, and its files in a directory. The git program does the talking.

The repository, its server and its URL may be anybody's (SECURITY.md S50-S52). git gets an empty configuration
of ours and nobody else's, no hooks, templates, filters or credential helpers, and only the protocols below;
what comes from outside stands behind `--` or was checked by `builder.giturl`. Secrets go by the environment,
never on a command line, and to their own host only; with one at work no redirect is followed (S84).
"""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote

from builder.errors import BuildCancelled, ContextError, FetchFailed
from builder.giturl import GitUrl
from oci.durable import locked, make_directory, remove_tree
from oci.registry.config import is_loopback
from oci.registry.redact import redact

Secret: TypeAlias = Callable[[str], "bytes | None"]

_COMMITTER = re.compile(rb"^committer .* (\d+) [+-]\d{4}$", re.MULTILINE)
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_HEX = re.compile(r"[0-9a-f]{4,64}")
_DEEPEST = 10
"""How deep submodules may nest."""

_SETTINGS = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "GIT_SSH_COMMAND": (
        "ssh -F /dev/null -oBatchMode=yes -oStrictHostKeyChecking=yes -oForwardAgent=no "
        "-oClearAllForwardings=yes -oPermitLocalCommand=no"
    ),
    "GIT_SSH_VARIANT": "ssh",
    "HOME": os.devnull,
    "LC_ALL": "C",
}
_CONFIG = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.attributesFile": os.devnull,
    "core.excludesFile": os.devnull,
    "core.autocrlf": "false",
    "core.protectNTFS": "true",
    "core.symlinks": "true",
    "credential.helper": "",
    "safe.directory": "*",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "advice.detachedHead": "false",
    "submodule.recurse": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
}
_PASSED_ON = (
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
)
"""Of our own environment, what git needs to reach the world."""


def look(directory: str, *words: str, what: str, trusted: bool = True) -> subprocess.CompletedProcess[bytes]:
    """What git says of a checkout of this machine; `what` needs to know. With `trusted` False git refuses the
    checkout of another owner, whose settings may name programs. Raises ContextError when there is no git.
    """
    environment = _environment({} if trusted else {"safe.directory": ""}, "https")
    command = ["git", "--no-pager", "-C", directory, *words]
    try:
        return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True)
    except FileNotFoundError:
        raise ContextError(f"{what} needs git, which is not installed") from None


def commit_time(directory: str) -> int:
    """The committer's time of HEAD in the checkout that holds `directory`, in seconds since 1970.

    Raises ContextError when there is no checkout, no commit, or no git.
    """
    done = look(directory, "cat-file", "commit", "HEAD", what="--timestamp commit")
    match = _COMMITTER.search(done.stdout.partition(b"\n\n")[0])
    if done.returncode or match is None:
        reason = done.stderr.decode("utf-8", "replace").strip().removeprefix("fatal: ") or "no commit"
        raise ContextError(
            f"--timestamp commit: {directory!r} has no commit checked out ({reason})",
            hint="give the seconds themselves: --timestamp 1700000000",
        )
    return int(match[1])


@dataclass(frozen=True, slots=True)
class Resolved:
    """A commit and, where it was found by one, the full name of its ref."""

    commit: str
    ref: str = ""


class Repositories:
    """The repositories of one build; each is fetched at most once. Use it in `with`: checkouts go with it.

    `scratch` is where they lie meanwhile. `secret` finds GIT_AUTH_HEADER and GIT_AUTH_TOKEN, by host or in
    general; `agent` is the socket of an ssh agent that may be asked, empty for none. `plain` are the hosts
    that may be reached by plain http, besides this machine.
    """

    def __init__(
        self,
        scratch: str,
        secret: Secret | None = None,
        agent: str = "",
        plain: frozenset[str] = frozenset(),
        offline: bool = False,
    ) -> None:
        self._scratch = scratch
        self._secret = secret or (lambda _: None)
        self._agent = agent
        self._plain = plain
        self._offline = offline
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._resolved: dict[tuple[str, str], Resolved] = {}
        self._checkouts: dict[tuple[str, str, bool], str] = {}
        self._times: dict[str, int] = {}
        self._places: list[tuple[str, int]] = []
        self._running: set[subprocess.Popen[bytes]] = set()
        self._cancelled = False

    def __enter__(self) -> Repositories:
        return self

    def __exit__(self, *exc: object) -> None:
        self.cancel()
        for path, lock in self._places:
            remove_tree(path)
            os.close(lock)

    def cancel(self) -> None:
        """End what runs; nothing begins any more. From any thread."""
        with self._lock:
            self._cancelled = True
            for process in self._running:
                _kill(process)

    def commit(self, git: GitUrl) -> str:
        """The commit that `git` means now. Raises FetchFailed; also when it is not what its checksum says."""
        with self._of(git):
            return self._resolve(git).commit

    def checkout(self, git: GitUrl, keep: bool) -> str:
        """The directory of the commit's files, or of `git.subdir`. Raises FetchFailed, ContextError."""
        with self._of(git):
            found = self._resolve(git)
            key = (found.commit, git.remote, keep)
            if key not in self._checkouts:
                self._checkouts[key] = self._made(git, found, keep)
            return _inside(self._checkouts[key], git)

    def moment(self, git: GitUrl) -> int:
        """The committer's time of what was checked out, in seconds since 1970."""
        return self._times[self.commit(git)]

    # ---- inside ----

    def _of(self, git: GitUrl) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(git.remote, threading.Lock())

    def _resolve(self, git: GitUrl) -> Resolved:
        if git.scheme == "http" and not is_loopback(git.host) and git.host not in self._plain:
            raise FetchFailed(
                f"{git.remote}: plain http shows and trusts everybody on the way",
                hint="write https:// instead",
            )
        key = (git.remote, git.ref)
        if git.by_commit:
            return Resolved(git.checksum)
        if git.commit:
            found = Resolved(git.commit)
        elif key in self._resolved:
            found = self._resolved[key]
        else:
            found = self._resolved[key] = self._asked(git)
        if not found.commit.startswith(git.checksum):
            raise FetchFailed(
                f"{git} is commit {found.commit}, which is not what its checksum says: {git.checksum}"
            )
        return found

    def _asked(self, git: GitUrl) -> Resolved:
        """What the server says of a ref: branches before tags, tags by the commit they are of."""
        self._check_online(git)
        wanted = [git.ref, f"{git.ref}^{{}}"] if git.ref else ["HEAD"]
        listed = dict[str, str]()
        for row in self._git(git, "ls-remote", "--quiet", "--", git.remote, *wanted).splitlines():
            commit, _, name = row.partition("\t")
            if _COMMIT.fullmatch(commit):
                listed[name] = commit
        short = git.ref or "HEAD"
        for name in (short, f"refs/heads/{short}", f"refs/tags/{short}", f"refs/{short}"):
            for found in (f"{name}^{{}}", name):
                if found in listed:
                    return Resolved(listed[found], name)
        if _HEX.fullmatch(git.ref):
            return self._abbreviated(git)
        raise FetchFailed(
            f"{git.remote} has no branch or tag {git.ref!r}" if git.ref else f"{git.remote} has no commit"
        )

    def _abbreviated(self, git: GitUrl) -> Resolved:
        """The commit that begins with some digits: known only when everything was fetched."""
        place = self._repository(git)
        self._fetch_all(git, place)
        with suppress(FetchFailed):
            name = self._git(git, "rev-parse", "--verify", "--quiet", f"{git.ref}^{{commit}}", at=place)
            return Resolved(name.strip())
        raise FetchFailed(f"{git.remote} has no branch, tag or commit {git.ref!r}")

    def _check_online(self, git: GitUrl) -> None:
        if self._offline:
            raise FetchFailed(f"{git.remote}: not asked, because of --offline")

    def _made(self, git: GitUrl, found: Resolved, keep: bool) -> str:
        self._check_online(git)
        place = self._repository(git)
        self._fetch(git, found, place)
        self._git(git, "checkout", "--quiet", "--force", "--detach", found.commit, at=place)
        text = self._git(git, "cat-file", "commit", found.commit, at=place)
        self._times[found.commit] = _time_in(text.encode("utf-8", "surrogateescape"))
        if git.commit_times:
            _set_times(place, self._times[found.commit])
        if git.submodules:
            self._submodules(git, place, place, 0)
        if keep:
            self._git(git, "config", "remote.origin.url", git.remote, at=place)
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(place, ".git", "FETCH_HEAD"))
        else:
            _drop_git(place)
        return place

    def _repository(self, git: GitUrl) -> str:
        """A new empty repository."""
        os.makedirs(self._scratch, 0o700, exist_ok=True)
        place, lock = locked(self._scratch, make_directory)
        with self._lock:
            self._places.append((place, lock))
        checkout = os.path.join(place, "checkout")
        self._git(git, "init", "--quiet", "--template=", "--", checkout)
        os.chmod(checkout, 0o755)
        return checkout

    def _fetch(self, git: GitUrl, found: Resolved, place: str) -> None:
        """Bring the commit, without its past where the server can do that."""
        for what in (found.commit, found.ref):
            with suppress(FetchFailed):
                if what:
                    self._git(
                        git, "fetch", "--quiet", "--depth=1", "--no-tags", "--", git.remote, what, at=place
                    )
                    if self._has(git, found.commit, place):
                        return
        self._fetch_all(git, place)
        if not self._has(git, found.commit, place):
            raise FetchFailed(f"{git.remote} does not have the commit {found.commit} on any branch or tag")

    def _fetch_all(self, git: GitUrl, place: str) -> None:
        refs = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
        self._git(git, "fetch", "--quiet", "--no-tags", "--", git.remote, *refs, at=place)

    def _has(self, git: GitUrl, commit: str, place: str) -> bool:
        try:
            self._git(git, "cat-file", "-e", f"{commit}^{{commit}}", at=place)
        except FetchFailed:
            return False
        return True

    def _submodules(self, git: GitUrl, place: str, top: str, depth: int) -> None:
        """Fetch the submodules of the checkout `place`, each only from where a repository may be."""
        if not os.path.lexists(os.path.join(place, ".gitmodules")):
            return
        if depth >= _DEEPEST:
            raise FetchFailed(f"{git.remote}: submodules are nested more than {_DEEPEST} deep")
        listing = self._git(
            git, "config", "--file", ".gitmodules", "--null", "--get-regexp", r"\.(url|path)$", at=place
        )
        rows = [row.partition("\n") for row in listing.split("\0") if row]
        for name, _, value in rows:
            if name.endswith(".url"):
                _check_submodule(git, value)
        self._git(git, "remote", "add", "origin", git.remote, at=place) if depth == 0 else None
        update = ("submodule", "--quiet", "update", "--init", "--force", "--checkout")
        try:
            self._git(git, *update, "--depth=1", at=place)
        except FetchFailed:
            self._git(git, *update, at=place)  # servers of plain files have no shallow copies
        for name, _, value in rows:
            below = os.path.join(place, value)
            if name.endswith(".path") and os.path.realpath(below).startswith(top + "/"):
                self._submodules(git, below, top, depth + 1)

    def _git(self, git: GitUrl, *words: str, at: str = "") -> str:
        """Run git; what it printed. Raises FetchFailed with its reason."""
        where = ["-C", at] if at else []
        environment = _environment(self._authorized(git), git.scheme, self._agent)
        command = ["git", "--no-pager", *where, *words]
        try:
            process = self._started(command, environment)
        except FileNotFoundError:
            raise FetchFailed(f"{git.remote}: git is needed for this, and not installed") from None
        try:
            out, err = process.communicate()
        finally:
            with self._lock:
                self._running.discard(process)
        if self._cancelled:
            raise BuildCancelled("the build was cancelled")
        if process.returncode:
            raise FetchFailed(f"{git.remote}: {_reason(err, words[0])}", hint=_advice(err, git))
        return out.decode("utf-8", "surrogateescape")

    def _started(self, command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._cancelled:
                raise BuildCancelled("the build was cancelled")
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                umask=0o022,
                cwd="/",
            )
            self._running.add(process)
            return process

    def _authorized(self, git: GitUrl) -> dict[str, str]:
        """The settings that carry a credential to the repository's own host, and nowhere else (I33, S84)."""
        if git.scheme not in ("http", "https"):
            return {}
        header = _header(git, self._secret)
        if not header:
            return {}
        return {
            f"http.{git.scheme}://{git.host}/.extraHeader": f"Authorization: {header}",
            "http.followRedirects": "false",
        }


def _header(git: GitUrl, secret: Secret) -> str:
    for name in (f"GIT_AUTH_HEADER.{git.host}", "GIT_AUTH_HEADER"):
        if value := secret(name):
            return value.decode("latin-1").strip()
    for name in (f"GIT_AUTH_TOKEN.{git.host}", "GIT_AUTH_TOKEN"):
        if value := secret(name):
            return "basic " + b64encode(b"x-access-token:" + value.strip()).decode()
    if git.userinfo:
        user, _, password = git.userinfo.partition(":")
        return "basic " + b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    return ""


def _environment(settings: Mapping[str, str], scheme: str, agent: str = "") -> dict[str, str]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= _SETTINGS
    environment["PATH"] = os.environ.get("PATH", os.defpath)
    environment["GIT_ALLOW_PROTOCOL"] = "https:ssh:git" + (":http" if scheme == "http" else "")
    if agent:
        environment["SSH_AUTH_SOCK"] = agent
    config = {**_CONFIG, **settings}
    environment["GIT_CONFIG_COUNT"] = str(len(config))
    for number, (key, value) in enumerate(config.items()):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    return environment


def _check_submodule(git: GitUrl, url: str) -> None:
    """A submodule comes from beside its repository, or by a protocol that one may have (S51)."""
    scheme, sep, rest = url.partition("://")
    place = rest.partition("/")[0].rpartition("@")[2]
    relative = url.startswith(("./", "../"))
    scp = not sep and re.fullmatch(r"[\w.-]+@[A-Za-z0-9][\w.-]*:[^-].*", url)
    known = sep and (
        scheme in ("https", "ssh", "git")
        or (scheme == "http" and git.scheme == "http" and is_loopback(place))
    )
    if not (relative or scp or (known and place and not place.startswith("-"))):
        raise FetchFailed(
            f"{git.remote} has a submodule at {redact(url, 200)!r}, which is no place to fetch from",
            hint="?submodules=false leaves submodules out",
        )


def _inside(place: str, git: GitUrl) -> str:
    """`git.subdir` of a checkout, if every part of it is a directory there and no link (S52)."""
    for part in git.subdir.split("/") if git.subdir else ():
        place = os.path.join(place, part)
        try:
            kind = os.lstat(place).st_mode
        except OSError:
            raise ContextError(f"{git.remote} has no directory {git.subdir} at {git.ref or 'HEAD'}") from None
        if not stat.S_ISDIR(kind):
            raise ContextError(f"{git.subdir} of {git.remote} is no directory (or lies behind a link)")
    return place


def _drop_git(place: str) -> None:
    """Remove `.git` of a checkout and of the submodules in it."""
    for directory, names, files in os.walk(place):
        if ".git" in names:
            names.remove(".git")
            remove_tree(os.path.join(directory, ".git"))
        if ".git" in files:
            os.unlink(os.path.join(directory, ".git"))


def _set_times(place: str, seconds: int) -> None:
    for directory, names, files in os.walk(place, topdown=False):
        if not directory.startswith(os.path.join(place, ".git")):
            for name in (*names, *files):
                os.utime(os.path.join(directory, name), (seconds, seconds), follow_symlinks=False)
    os.utime(place, (seconds, seconds))


def _time_in(commit: bytes) -> int:
    match = _COMMITTER.search(commit.partition(b"\n\n")[0])
    return int(match[1]) if match else 0


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _reason(stderr: bytes, what: str) -> str:
    lines = [line for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ERROR:", "ssh:"))]
    text = "; ".join((told or lines)[-3:]) or f"git {what} failed"
    return redact(text.replace("fatal: ", ""), 400)


def _advice(stderr: bytes, git: GitUrl) -> str:
    if b"could not read Username" in stderr or b"Authentication failed" in stderr:
        return f"give a secret with the id GIT_AUTH_TOKEN.{git.host} (or GIT_AUTH_TOKEN)"
    if b"Host key verification failed" in stderr:
        return f"put the key of {git.host} into ~/.ssh/known_hosts"
    if b"Permission denied (publickey" in stderr:
        return "let the build ask an ssh agent: --ssh default"
    return ""

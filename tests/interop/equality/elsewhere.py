"""Contexts that come from elsewhere, and files behind URLs, for cases that have them: all on this machine."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from equality.case import Case
from judges.files import Entry, File, pack_tree, write_tree
from sites import git_daemon

_GIT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
}


@contextmanager
def elsewhere(case: Case, place: str) -> Iterator[tuple[Case, str, bytes]]:
    """The case with addresses in place, what to build in place of its directory, and its standard input."""
    text = case.dockerfile if isinstance(case.dockerfile, str) else case.dockerfile.decode()
    packed = (
        pack_tree({**case.files, case.dockerfile_name: File(text)}, "gz") if case.context != "git" else b""
    )
    with ExitStack() as stack:
        if case.web or case.context == "url":
            root = os.path.join(place, "web")
            write_tree(root, {**case.web, "context.tar.gz": File(packed)})
            address = stack.enter_context(_served(root))
            case = _addressed(case, "{web}", address)
            if case.context == "url":
                yield case, f"{address}/context.tar.gz", b""
                return
        if case.repository:
            address = stack.enter_context(_repository(case.repository, place))
            case = _addressed(case, "{repository}", address)
        if case.context == "git":
            files = {**case.files, case.dockerfile_name: File(text)}
            yield case, stack.enter_context(_repository(files, place)) + case.fragment, b""
        elif case.context == "text":
            yield case, "-", text.encode()
        elif case.context == "stdin":
            yield case, "-", packed
        else:
            yield case, os.path.join(place, "context"), b""


def _addressed(case: Case, name: str, address: str) -> Case:
    def said(text: str) -> str:
        return text.replace(name, address)

    assert isinstance(case.dockerfile, str)
    return replace(
        case,
        dockerfile=said(case.dockerfile),
        args=[*map(said, case.args)],
        history=None if case.history is None else [*map(said, case.history)],
        newer={said(theirs): said(ours) for theirs, ours in case.newer.items()},
    )


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """The cases say what was fetched."""


@contextmanager
def _served(root: str) -> Iterator[str]:
    for directory, _, names in os.walk(root):
        for name in names:
            os.utime(os.path.join(directory, name), (1_500_000_000, 1_500_000_000))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=root))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def _repository(files: Mapping[str, Entry], place: str) -> Iterator[str]:
    root = os.path.join(place, "repositories")
    write_tree(os.path.join(root, "r.git"), files)
    for words in (("init", "-q", "-b", "main", "."), ("add", "-A", "-f", "."), ("commit", "-q", "-m", "x")):
        subprocess.run(["git", *words], cwd=os.path.join(root, "r.git"), env=_GIT, check=True)
    with git_daemon(Path(root)) as address:
        yield f"git://{address}/r.git"

"""Repositories: what a ref is, what comes out, and that a hostile one runs nothing (SECURITY.md S50-S52)."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sites import Repository, Site, git_daemon, site

from builder.contexts.git import Repositories, _environment
from builder.errors import BuildCancelled, ContextError, FetchFailed
from builder.giturl import GitUrl, GitUrlError, parse

EPOCH = 1_600_000_000


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repositories")


@pytest.fixture(scope="module")
def daemon(top: Path) -> Iterator[str]:
    with git_daemon(top) as address:
        yield address


@pytest.fixture(scope="module")
def commits(top: Path) -> dict[str, str]:
    """A repository `app.git` with two branches, tags, a subdirectory, a link and a program."""
    app = Repository(top, "app.git")
    first = app.commit({"a": "one", "sub/deep/b": "b", "run.sh": "#!/bin/sh\n"})
    app.git("tag", "light")
    app.git("tag", "-a", "-m", "x", "heavy")
    (app.path / "link").symlink_to("sub")
    second = app.commit({"a": "two"})
    app.git("checkout", "-q", "-b", "other", first)
    app.git("tag", "both", second)
    app.git("branch", "both")
    third = app.commit({"a": "three"})
    app.git("checkout", "-q", "main")
    return {"first": first, "second": second, "third": third}


@pytest.fixture
def repositories(tmp_path: Path) -> Iterator[Repositories]:
    with Repositories(str(tmp_path / "scratch")) as found:
        yield found
    assert os.listdir(tmp_path / "scratch") == [] if (tmp_path / "scratch").exists() else True


def url(daemon: str, rest: str) -> GitUrl:
    found = parse(f"git://{daemon}/{rest}")
    assert found is not None
    return found


REFS = [
    ("", "second"), ("#main", "second"), ("#other", "third"), ("#light", "first"), ("#heavy", "first"),
    ("#refs/tags/heavy", "first"), ("#refs/heads/other", "third"), ("#heads/other", "third"),
    ("#both", "first"), ("?tag=both", "second"), ("?branch=both", "first"),
]  # fmt: skip


@pytest.mark.parametrize(("rest", "expected"), REFS)
def test_refs(
    daemon: str, commits: dict[str, str], repositories: Repositories, rest: str, expected: str
) -> None:
    assert repositories.commit(url(daemon, f"app.git{rest}")) == commits[expected]


def test_commits_whole_and_abbreviated(
    daemon: str, commits: dict[str, str], repositories: Repositories
) -> None:
    first = commits["first"]
    assert repositories.commit(url(daemon, f"app.git#{first}")) == first
    assert repositories.commit(url(daemon, f"app.git#{first[:8]}")) == first
    place = repositories.checkout(url(daemon, f"app.git#{first}"), False)
    assert Path(place, "a").read_text() == "one"


def test_what_is_not_there(daemon: str, commits: dict[str, str], repositories: Repositories) -> None:
    for rest, message in [
        ("app.git#gone", "no branch or tag 'gone'"),
        ("app.git#abcdef", "no branch, tag or commit 'abcdef'"),
        ("app.git#" + "0" * 40, "on any branch or tag"),
        ("none.git", "none.git"),
    ]:
        with pytest.raises(FetchFailed, match=message):
            repositories.checkout(url(daemon, rest), False)
    with pytest.raises(ContextError, match="no directory gone at main"):
        repositories.checkout(url(daemon, "app.git#main:gone"), False)


def test_checksums(daemon: str, commits: dict[str, str], repositories: Repositories) -> None:
    short = commits["second"][:9]
    assert repositories.commit(url(daemon, f"app.git?checksum={short}#main")) == commits["second"]
    with pytest.raises(FetchFailed, match="not what its checksum says"):
        repositories.commit(url(daemon, f"app.git?checksum={short}#other"))
    with pytest.raises(FetchFailed, match="not what its checksum says"):
        repositories.commit(url(daemon, f"app.git?checksum={short}#{commits['first']}"))
    moved = url(daemon, f"app.git?checksum={commits['first']}&fetch-by-commit=1#main")
    assert Path(repositories.checkout(moved, False), "a").read_text() == "one"


def test_what_comes_out(daemon: str, commits: dict[str, str], repositories: Repositories) -> None:
    old = os.umask(0o077)
    try:
        place = Path(repositories.checkout(url(daemon, "app.git"), False))
    finally:
        os.umask(old)
    modes = {
        each.name: stat.S_IMODE(each.lstat().st_mode) for each in place.iterdir() if not each.is_symlink()
    }
    assert modes == {"a": 0o644, "run.sh": 0o755, "sub": 0o755}
    assert os.readlink(place / "link") == "sub"
    assert Path(repositories.checkout(url(daemon, "app.git#main:sub/deep"), False), "b").read_text() == "b"


def test_the_git_directory_stays_when_asked(
    daemon: str, commits: dict[str, str], repositories: Repositories
) -> None:
    place = Path(repositories.checkout(url(daemon, "app.git"), True))
    assert (place / ".git/HEAD").read_text().strip() == commits["second"]
    assert not (place / ".git/hooks").exists()
    assert f"url = git://{daemon}/app.git" in (place / ".git/config").read_text()


def test_times_of_the_commit(daemon: str, commits: dict[str, str], repositories: Repositories) -> None:
    place = Path(repositories.checkout(url(daemon, "app.git?mtime=commit"), False))
    assert {int(each.lstat().st_mtime) for each in place.rglob("*")} == {EPOCH}


def test_one_build_fetches_a_commit_once(
    daemon: str, commits: dict[str, str], repositories: Repositories
) -> None:
    places = {
        repositories.checkout(url(daemon, f"app.git{ref}"), False) for ref in ("", "#main", "?branch=main")
    }
    assert len(places) == 1


def test_submodules(top: Path, daemon: str, commits: dict[str, str], repositories: Repositories) -> None:
    library = Repository(top, "library.git")
    library.commit({"l": "library"})
    outer = Repository(top, "outer.git")
    outer.git("submodule", "--quiet", "add", f"git://{daemon}/library.git", "lib")
    with open(outer.path / ".gitmodules", "a") as file:
        file.write('[submodule "beside"]\n\tpath = app\n\turl = ../app.git\n')
    outer.git("update-index", "--add", "--cacheinfo", f"160000,{commits['first']},app")
    (outer.path / "app").mkdir()
    (outer.path / "o").write_text("outer")
    outer.git("add", ".gitmodules", "o")
    outer.git("commit", "-q", "-m", "x")
    place = Path(repositories.checkout(url(daemon, "outer.git"), False))
    assert (place / "lib/l").read_text() == "library"
    assert (place / "app/a").read_text() == "one"
    assert not list(place.rglob(".git"))
    without = Path(repositories.checkout(url(daemon, "outer.git?submodules=0"), True))
    assert not (without / "lib/l").exists()


def test_dumb_http(tmp_path: Path, top: Path, commits: dict[str, str], repositories: Repositories) -> None:
    """A server of plain files, which has no shallow copies; http is for this machine only."""
    app = Repository(tmp_path / "source", "dumb.git")
    app.commit({"a": "dumb"})
    app.publish_dumb(tmp_path / "www", "dumb.git")
    with site() as server:
        serve(server, tmp_path / "www")
        git = parse(server.url("dumb.git#main"))
        assert git is not None
        assert Path(repositories.checkout(git, False), "a").read_text() == "dumb"
    with pytest.raises(FetchFailed, match="plain http"):
        repositories.commit(GitUrl("http://example.com/r.git"))


def serve(server: Site, top: Path) -> None:
    for path in top.rglob("*"):
        if path.is_file():
            server.files[str(path.relative_to(top))] = path.read_bytes()


def test_credentials_go_to_their_host_and_onto_no_command_line(tmp_path: Path) -> None:
    app = Repository(tmp_path / "source", "p.git")
    app.commit({"a": "private"})
    app.publish_dumb(tmp_path / "www", "p.git")
    secrets = {"GIT_AUTH_TOKEN": b"canary\n"}
    header = "basic eC1hY2Nlc3MtdG9rZW46Y2FuYXJ5"
    with site() as server, Repositories(str(tmp_path / "scratch"), secrets.get) as private:
        serve(server, tmp_path / "www")
        server.wanted = dict.fromkeys(server.files, header)
        git = parse(server.url("p.git"))
        assert git is not None
        place = private.checkout(git, True)
        assert Path(place, "a").read_text() == "private"
        kept = b"".join(path.read_bytes() for path in Path(place).rglob("*") if path.is_file())
        assert b"canary" not in kept
        assert header.encode() not in kept
        with Repositories(str(tmp_path / "scratch")) as public:
            with pytest.raises(FetchFailed) as caught:
                public.commit(git)
        assert f"GIT_AUTH_TOKEN.{server.address}" in caught.value.hint
        with site() as other:
            server.redirects = {path: other.url(path) for path in server.files}
            with Repositories(str(tmp_path / "scratch"), secrets.get) as sent_on, pytest.raises(FetchFailed):
                sent_on.commit(git)
            assert other.seen == []


def test_cancelling_ends_what_runs(tmp_path: Path) -> None:
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        repositories = Repositories(str(tmp_path))
        threading.Timer(0.3, repositories.cancel).start()
        with pytest.raises(BuildCancelled):
            repositories.commit(GitUrl(f"git://127.0.0.1:{silent.getsockname()[1]}/x"))


# ---- the hostile ones ----


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Path]:
    """A file that must not appear: what hostile repositories try to make."""
    path = tmp_path / "pwned"
    yield path
    assert not path.exists()


def test_a_submodule_of_this_machine(top: Path, daemon: str, repositories: Repositories, trap: Path) -> None:
    """SECURITY.md S51."""
    secret = Repository(top, "secret")
    secret.commit({"s": "of this machine"})
    for number, place in enumerate(
        (str(secret.path), f"file://{secret.path}", f"ext::touch {trap}", "-u./x", "ssh://-oProxyCommand=x/y")
    ):
        hostile = Repository(top, f"hostile-submodule-{number}.git")
        hostile.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
        modules = f'[submodule "sub"]\n\tpath = sub\n\turl = "{place}"\n'
        (hostile.path / ".gitmodules").write_text(modules)
        hostile.git("add", ".gitmodules")
        hostile.git("commit", "-q", "-m", "x")
        with pytest.raises(FetchFailed, match=r"submodule|path"):
            repositories.checkout(url(daemon, f"hostile-submodule-{number}.git"), False)


def test_a_submodule_that_runs_its_update(
    top: Path, daemon: str, repositories: Repositories, trap: Path
) -> None:
    """SECURITY.md S51."""
    library = Repository(top, "plain.git")
    library.commit({"l": "x"})
    hostile = Repository(top, "hostile-update.git")
    hostile.git("submodule", "--quiet", "add", f"git://{daemon}/plain.git", "sub")
    with open(hostile.path / ".gitmodules", "a") as file:
        file.write(f"\tupdate = !touch {trap}\n")
    hostile.commit({})
    try:
        repositories.checkout(url(daemon, "hostile-update.git"), False)
    except FetchFailed:
        pass  # git refuses such a file, or we override what it says


def test_filters_run_nothing(top: Path, daemon: str, repositories: Repositories, trap: Path) -> None:
    """SECURITY.md S51."""
    hostile = Repository(top, "hostile-filter.git")
    hostile.commit({"f": "text", "big.bin": "version https://git-lfs.github.com/spec/v1\n"})
    (hostile.path / ".gitattributes").write_text("f filter=evil\n*.bin filter=lfs diff=lfs\n")
    (hostile.path / ".gitconfig").write_text(f'[filter "evil"]\n\tsmudge = touch {trap}\n')
    hostile.commit({})
    place = Path(repositories.checkout(url(daemon, "hostile-filter.git"), False))
    assert (place / "f").read_text() == "text"
    assert (place / "big.bin").read_text().startswith("version https://git-lfs")


def test_our_users_own_settings_do_not_count(
    top: Path,
    daemon: str,
    tmp_path: Path,
    repositories: Repositories,
    trap: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SECURITY.md S51."""
    app = Repository(top, "settings.git")
    app.commit({"f": "text", ".gitattributes": "f filter=mine\n"})
    (tmp_path / ".gitconfig").write_text(
        f'[filter "mine"]\n\tsmudge = touch {trap}\n[core]\n\thooksPath = {tmp_path}\n'
        f'[url "ext::touch {trap} "]\n\tinsteadOf = git://\n'
    )
    (tmp_path / "post-checkout").write_text(f"#!/bin/sh\ntouch {trap}\n")
    (tmp_path / "post-checkout").chmod(0o755)
    for name, value in {
        "HOME": str(tmp_path),
        "GIT_CONFIG_GLOBAL": str(tmp_path / ".gitconfig"),
        "GIT_DIR": "/nonexistent",
        "GIT_TEMPLATE_DIR": str(tmp_path),
        "GIT_EXTERNAL_DIFF": f"touch {trap}",
        "GIT_SSH_COMMAND": f"touch {trap}",
        "GIT_PROXY_COMMAND": f"touch {trap}",
    }.items():
        monkeypatch.setenv(name, value)
    place = Path(repositories.checkout(url(daemon, "settings.git"), False))
    assert (place / "f").read_text() == "text"


def test_a_subdirectory_behind_a_link(top: Path, daemon: str, repositories: Repositories) -> None:
    """SECURITY.md S52."""
    hostile = Repository(top, "hostile-link.git")
    (hostile.path / "etc").symlink_to("/etc")
    hostile.commit({"real/x": "x", "file": "y"})
    for subdir in ("etc", "etc/ssl", "file"):
        with pytest.raises(ContextError, match="no directory"):
            repositories.checkout(url(daemon, f"hostile-link.git#main:{subdir}"), False)


def test_a_checkout_that_writes_into_git(
    top: Path, daemon: str, repositories: Repositories, trap: Path
) -> None:
    """Trees with entries that git itself must refuse: `.git` in other spellings, `..`, hooks of our own."""
    hostile = Repository(top, "hostile-tree.git")
    (hostile.path / "payload").write_text(f"#!/bin/sh\ntouch {trap}\n")
    blob = hostile.git("hash-object", "-w", "payload")
    for name in (".git/hooks/post-checkout", ".GIT/hooks/post-checkout", "../escape"):
        tree = blob
        mode = "100755"
        for part in reversed(name.split("/")):
            listing = f"{mode} {'tree' if mode == '40000' else 'blob'} {tree}\t{part}\0".encode()
            tree = _tree(hostile, listing)
            mode = "40000"
        commit = hostile.git("commit-tree", "-m", "x", tree)
        hostile.git("update-ref", "refs/heads/evil", commit)
        with pytest.raises(FetchFailed, match=r"invalid path|\.git"):
            repositories.checkout(url(daemon, f"hostile-tree.git#{commit}"), False)


def _tree(repository: Repository, listing: bytes) -> str:
    """A tree object that no `git add` would make."""
    import subprocess

    mode, _, rest = listing.rstrip(b"\0").split(b" ", 2)
    digest, _, name = rest.partition(b"\t")
    raw = mode + b" " + name + b"\0" + bytes.fromhex(digest.decode())
    command = ["git", "hash-object", "-t", "tree", "-w", "--stdin", "--literally"]
    done = subprocess.run(command, cwd=repository.path, input=raw, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.mark.parametrize(
    "ref", ["--upload-pack=touch pwned", "-c core.x", "a b", "a..b", "@{-1}", "x\n", ":/x"]
)
def test_refs_that_are_options(ref: str) -> None:
    """SECURITY.md S50."""
    with pytest.raises(GitUrlError):
        parse(f"git://127.0.0.1:1/x?ref={ref}")


def test_s51_what_git_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself: several keep the same thing out, and no repository shows that one is missing."""
    for name in ("GIT_CONFIG_GLOBAL", "HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_PARAMETERS", "GIT_EXEC_PATH"):
        monkeypatch.setenv(name, "/somewhere")
    told = _environment({}, "https")
    wanted = {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "HOME": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_ALLOW_PROTOCOL": "https:ssh:git",
    }
    assert wanted.items() <= told.items()
    assert not {"XDG_CONFIG_HOME", "GIT_CONFIG_PARAMETERS", "GIT_EXEC_PATH"} & told.keys()
    assert "http" in _environment({}, "http")["GIT_ALLOW_PROTOCOL"].split(":")
    count = int(told["GIT_CONFIG_COUNT"])
    config = {told[f"GIT_CONFIG_KEY_{n}"]: told[f"GIT_CONFIG_VALUE_{n}"] for n in range(count)}
    quiet = {"core.hooksPath": "/dev/null", "core.fsmonitor": "false", "core.attributesFile": "/dev/null"}
    assert (quiet | {"credential.helper": ""}).items() <= config.items()

"""Terminals of ordinary users: `run -it` and the shell in a failed step, with lent ids and with one."""

from __future__ import annotations

import os
import sys
import tarfile
from typing import Any

import pytest

pytestmark = pytest.mark.root


def import_base(user: Any) -> None:
    path = user.home / "base.tar"
    with tarfile.open(path, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for name in ("sh", "cat", "tty", "id", "stty", "echo", "ls", "false"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    os.chmod(path, 0o644)
    done = user.pybuild("import", str(path), "bb")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("who", ["lent", "bare"])
def test_terminals(request: pytest.FixtureRequest, typist: Any, who: str) -> None:
    user: Any = request.getfixturevalue(who)
    import_base(user)
    context = user.home / "failing"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("FROM bb\nRUN echo made > /made; false\n")
    for path in (context, context / "Dockerfile"):
        os.chown(path, user.entry.pw_uid, user.entry.pw_gid)
    pybuild = user.command(sys.executable, "-m", "builder.cli.main")
    with typist(*pybuild, "run", "-it", "--network=none", "bb", "sh", env=user.environment) as person:
        enter(person)
        assert person.ask("tty; stty size; id -u") == "/dev/pts/0\n30 100\n0\n"
        person.type("exit 3\r")
        assert person.end() == 3 and person.attributes() == person.before
    build = ("build", "--network=none", "--on-failure=shell", str(context))
    with typist(*pybuild, *build, env=user.environment) as person:
        person.expect("is kept\n")
        enter(person)
        assert person.ask("tty; cat /made; echo more > /made") == "/dev/pts/0\nmade\n"
        person.type("exit\r")
        assert person.end() == 1 and person.attributes() == person.before


def enter(person: Any) -> None:
    """Wait for the prompt, and have it and the echo taken away."""
    person.expect("# ")
    person.type("PS1=; stty -echo\r")
    person.expect("echo")
    person.ask("true")

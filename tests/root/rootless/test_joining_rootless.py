"""A joining process and a freeze by ordinary users: with lent ids, and with one id for all."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.root

DRIVER = """
import json, os, shutil
from builder import isolation
top = {top!r}
found = isolation.enter("auto", os.path.dirname(top))
from builder.sandbox.freeze import freeze, members, thaw
from builder.sandbox.run import Launcher
from builder.sandbox.spec import Bind, Overlay, Owners, Sandbox, Terminal
for name in ("root/bin", "root/tmp", "root/etc", "empty", "upper", "work"):
    os.makedirs(f"{{top}}/{{name}}")
shutil.copy("/bin/busybox", f"{{top}}/root/bin")
for applet in ("sh", "sleep", "cat", "chown", "touch", "id", "ls", "readlink", "grep", "mkdir", "stat"):
    os.symlink("busybox", f"{{top}}/root/bin/{{applet}}")
owners = Owners(f"{{top}}/upper", f"{{top}}/notes") if found.maps.single else None
root = Overlay((f"{{top}}/root", f"{{top}}/empty"), f"{{top}}/upper", f"{{top}}/work", userxattr=True)
env, said, null = (("PATH", "/bin"),), {{}}, os.open("/dev/null", os.O_WRONLY)

def joined(launcher, running, script, **rest):
    reading, writing = os.pipe()
    sandbox = Sandbox(Bind("/"), ("sh", "-c", script), env, owners=owners, **rest)
    with launcher.join(running, sandbox, output_fd=writing) as one:
        os.close(writing)
        text = b"".join(iter(lambda: os.read(reading, 65536), b"")).decode()
        ended = one.wait()
    os.close(reading)
    assert ended.status == 0, (ended, text, running.wait())
    return text

with Launcher() as launcher:
    box = Sandbox(root, ("sleep", "8700"), env, hostname="boxy", network={network!r}, owners=owners)
    with launcher.begin(box, output_fd=null, tell_pid=True) as running:
        said["sees"] = joined(launcher, running, "cat /proc/1/cmdline /proc/sys/kernel/hostname; id -u")
        look = "grep -E '^(Cap|Seccomp:)' /proc/self/status"
        mine = joined(launcher, running, look)
        said["status"] = mine == joined(launcher, running, look.replace("self", "1"))
        spaces = "for n in mnt pid net ipc uts cgroup; do readlink /proc/{{}}/ns/$n; done"
        said["inside"] = joined(launcher, running, spaces.format("self")) == joined(
            launcher, running, spaces.format(1))
        script = "cd /tmp; touch f; chown 33:34 f; sleep 8701 > /dev/null 2>&1 &"
        joined(launcher, running, script + "until grep -q 8701 /proc/[0-9]*/cmdline; do sleep 0.01; done")
        said["owner"] = joined(launcher, running, "cd /tmp; touch g; chown 5:6 g; echo done")
        terminal = Sandbox(Bind("/"), ("sh", "-c", "readlink /proc/self/fd/0"), env, terminal=Terminal(),
                           owners=owners)
        with launcher.join(running, terminal, output_fd=None) as one:
            master = one.terminal()
            said["terminal"] = os.read(master, 100).decode()
            one.wait()
        freeze(running.pid)
        said["frozen"] = [open(f"/proc/{{each.pid}}/stat").read().rpartition(") ")[2][0]
                          for each in members(running.pid)]
        thaw(running.pid)
        said["thawed"] = joined(launcher, running, "echo again")
        with launcher.join(running, Sandbox(Bind("/"), ("sleep", "8702"), env), output_fd=null) as one:
            assert one.pid
            running.signal(9)
            said["ends"] = [running.wait().status, one.wait().status]
from builder.sandbox.owners import noted
said["noted"] = [bytes(noted(f"{{top}}/upper/tmp/{{name}}")).decode() for name in "fg"]
said["owned"] = [os.stat(f"{{top}}/upper/tmp/{{name}}").st_uid for name in "fg"]
print(json.dumps(said))
"""


@pytest.mark.parametrize("network", ["none", "host"])
@pytest.mark.parametrize("who", ["lent", "bare"])
def test_s92_joining(request: pytest.FixtureRequest, who: str, network: str) -> None:
    """With one id, what is given away is noted by a process of its own, also for what it leaves behind."""
    user: Any = request.getfixturevalue(who)
    said = json.loads(user.python(DRIVER.format(top=str(user.home / f"joining-{network}"), network=network)))
    assert said["sees"] == "sleep\0008700\0boxy\n0\n"
    assert said["status"] and said["inside"]
    assert said["terminal"] == "/dev/pts/0\r\n" and said["owner"] == "done\n" and said["thawed"] == "again\n"
    assert said["frozen"] == ["T", "T"]
    assert said["ends"] == [137, 137]
    single = who == "bare"
    assert said["noted"] == (["33:34", "5:6"] if single else ["0:0", "0:0"])
    assert said["owned"] == ([0, 0] if single else [33, 5])

"""The base images the interop tests build from, made here out of busybox: no registry is ever asked.

`busybox-test:latest` is a small, deliberately untidy root file system: users with supplementary groups,
symlinks to directories and files, hard links, a setuid file, odd modes. `tools-test:latest` adds setcap,
getcap, setfattr and getfattr with the libraries they need. `config-test:latest` is the same tree with every
config field set. Archives are in `docker save` form, so that Docker and pybuild load the very same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from typing import Any

from judges.files import Dir, Entry, File, Files, Hard, Link, pack_tree

BUSYBOX = "busybox-test:latest"
TOOLS = "tools-test:latest"
CONFIGURED = "config-test:latest"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_CREATED = "2020-02-02T02:02:02Z"
_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/:/bin/false
web:x:33:33:web:/srv:/bin/false
app:x:1000:1000:app:/home/app:/bin/sh
plain:x:1500:100:no group of its own:/home/plain:/bin/sh
"""
_GROUP = """\
root:x:0:
daemon:x:1:
audio:x:29:app
web:x:33:app
users:x:100:
app:x:1000:
extra:x:2000:web,app
"""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

BASE_CONFIG: Mapping[str, Any] = {"Env": [PATH], "Cmd": ["sh"]}
FULL_CONFIG: Mapping[str, Any] = {
    "User": "app",
    "ExposedPorts": {"8080/tcp": {}},
    "Env": [PATH, "FROM_BASE=yes", "LANG=C"],
    "Entrypoint": ["/bin/echo"],
    "Cmd": ["from", "base"],
    "Volumes": {"/var/data": {}},
    "WorkingDir": "/home/app",
    "Labels": {"org.example.base": "1", "keep": "base"},
    "StopSignal": "SIGQUIT",
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000},
    "Shell": ["/bin/ash", "-ec"],
}


def architecture() -> str:
    """This machine's architecture, in Go's words."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


@cache
def busybox_tree() -> dict[str, Entry]:
    """The root file system of `busybox-test`, parents before what is in them."""
    busybox = _busybox()
    tree: dict[str, Entry] = {
        name: Dir() for name in ("bin", "dev", "etc", "home", "opt", "proc", "srv", "sys", "usr")
    }
    tree |= {"tmp": Dir(0o1777), "root": Dir(0o700), "var": Dir(), "var/data": Dir(0o750, (33, 33))}
    tree |= {"home/app": Dir(0o755, (1000, 1000)), "home/app/.profile": File("app\n", 0o600, (1000, 1000))}
    tree |= {"etc/passwd": _PASSWD, "etc/group": _GROUP, "etc/motd": "hello\n"}
    with open(busybox, "rb") as program:
        tree["bin/busybox"] = File(program.read(), 0o755)
    tree |= {f"bin/{applet}": Link("busybox") for applet in _applets(busybox)}
    tree |= {
        "opt/dir": Dir(),
        "opt/dir/a": "a of the base\n",
        "opt/dir/b": File("b of the base\n", 0o640, (33, 100)),
        "opt/dir/deep": Dir(0o2775, (0, 100)),
        "opt/dir/deep/c": "c of the base\n",
        "opt/dirlink": Link("dir"),
        "opt/abslink": Link("/opt/dir"),
        "opt/filelink": Link("dir/a"),
        "opt/dangling": Link("nowhere"),
        "opt/one": "two names\n",
        "opt/two": Hard("opt/one"),
        "opt/setuid": File("s\n", 0o4755),
        "opt/setgid": File("g\n", 0o2755, (0, 33)),
    }
    return tree


@cache
def tools_tree() -> dict[str, Entry]:
    """`busybox-test` with the programs that set capabilities and extended attributes."""
    tree = dict(busybox_tree())
    for program in ("setcap", "getcap", "setfattr", "getfattr"):
        path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if path is None:
            raise FileNotFoundError(
                f"`{program}` is not installed: `make test` installs libcap2-bin and attr"
            )
        with open(path, "rb") as file:
            tree[f"bin/{program}"] = File(file.read(), 0o755)
        for library in _libraries(path):
            _add_with_parents(tree, library)
    return tree


def image_archive(name: str) -> bytes:
    """One of the images above as `docker save` would write it."""
    trees = {BUSYBOX: busybox_tree, TOOLS: tools_tree, CONFIGURED: busybox_tree}
    settings = FULL_CONFIG if name == CONFIGURED else BASE_CONFIG
    return docker_archive(name, trees[name](), settings, author="base author" if name == CONFIGURED else "")


def docker_archive(name: str, files: Files, settings: Mapping[str, Any], author: str = "") -> bytes:
    """An image of one layer, in `docker save` form, tagged `name`."""
    layer = pack_tree(files)
    config = _config(layer, settings, author)
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    return pack_tree(
        {config_name: File(config), "layer.tar": File(layer), "manifest.json": File(json.dumps(manifest))}
    )


def oci_layout(files: Files, settings: Mapping[str, Any], tag: str = "latest") -> dict[str, Entry]:
    """An image of one layer as the files of an OCI layout directory (image-spec, image-layout.md)."""
    layer = pack_tree(files)
    config = _config(layer, settings, "")
    blobs: dict[str, Entry] = {}

    def descriptor(media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
        name = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{name}"] = File(data)
        return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data), **more}

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    }
    top = descriptor(
        "application/vnd.oci.image.manifest.v1+json",
        json.dumps(manifest).encode(),
        annotations={"org.opencontainers.image.ref.name": tag},
    )
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [top]}
    return {"oci-layout": '{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index), **blobs}


def _config(layer: bytes, settings: Mapping[str, Any], author: str) -> bytes:
    document = {
        "created": _CREATED,
        "architecture": architecture(),
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": _CREATED, "created_by": "busybox and friends"}],
    }
    if author:
        document["author"] = author
    return json.dumps(document).encode()


def _busybox() -> str:
    path = shutil.which("busybox")
    if path is None:
        raise FileNotFoundError("`busybox` is not installed: `make test` installs busybox-static")
    return path


def _applets(busybox: str) -> list[str]:
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return sorted(set(listed) - {"busybox"})


def _libraries(program: str) -> list[str]:
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return re.findall(r"(/[^ ]+) \(0x", listed)


def _add_with_parents(tree: dict[str, Entry], path: str) -> None:
    name = path.lstrip("/")
    parts = name.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        tree.setdefault("/".join(parts[:depth]), Dir())
    with open(path, "rb") as file:
        tree[name] = File(file.read(), 0o755)

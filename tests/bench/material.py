"""What is built: base images, contexts and Dockerfiles, equal for both sides."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile

from pybuild import CHECKOUT
from workarea import WorkArea

FILES, DIRECTORIES, FILE_SIZE = 40_000, 800, 3_000
BIG_FILE = 1_000_000_000
BLOCK = 1 << 20

ONE_RUN = "FROM {base}\nARG UNIQUE\nRUN echo $UNIQUE > /made\n"
COPY_ALL = "FROM {base}\nARG UNIQUE\nCOPY . /context/\n"


def busybox_base(area: WorkArea) -> str:
    """A root file system of the distribution's static busybox, as a tar: the cheapest step there is."""
    path = os.path.join(area.path, "busybox.tar")
    applets = subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
    with tarfile.open(path, "w") as tar:
        for name in ("bin", "etc", "tmp", "proc", "sys", "dev"):
            tar.addfile(_entry(name, tarfile.DIRTYPE, 0o755))
        for name in sorted(set(applets) - {"busybox"}):
            link = _entry(f"bin/{name}", tarfile.SYMTYPE, 0o777)
            link.linkname = "busybox"
            tar.addfile(link)
        for name, content in (("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"), ("etc/group", b"root:x:0:\n")):
            file = _entry(name, tarfile.REGTYPE, 0o644)
            file.size = len(content)
            tar.addfile(file, io.BytesIO(content))
        with open("/bin/busybox", "rb") as program:
            file = _entry("bin/busybox", tarfile.REGTYPE, 0o755)
            file.size = os.fstat(program.fileno()).st_size
            tar.addfile(file, program)
    return path


def debian_base() -> str:
    """The distribution's minimal root file system, as a tar; made once per checkout."""
    made = subprocess.run(
        [os.path.join(CHECKOUT, "scripts", "make-debian-base")], check=True, stdout=subprocess.PIPE, text=True
    )
    return made.stdout.strip()


def many_files(area: WorkArea) -> str:
    """A context of 40,000 files of 3,000 bytes in 800 directories, every second one beyond compressing."""
    root = os.path.join(area.path, "many")
    chance, text = random.Random(40_000), _text(random.Random(1), 1 << 20)
    for directory in range(DIRECTORIES):
        path = os.path.join(root, f"part{directory // 40:02}", f"dir{directory:03}")
        os.makedirs(path)
        for number in range(FILES // DIRECTORIES):
            with open(os.path.join(path, f"file{number:02}.txt"), "wb") as file:
                at = chance.randrange(len(text) - FILE_SIZE)
                file.write(chance.randbytes(FILE_SIZE) if number % 2 else text[at : at + FILE_SIZE])
    return root


def big_file(area: WorkArea) -> str:
    """A context of one file of 1 GB: blocks of text and of random bytes by turns."""
    root = area.directory("big")
    chance = random.Random(1_000)
    texts = [_text(chance, BLOCK) for _ in range(8)]
    with open(os.path.join(root, "big.bin"), "wb") as file:
        left, number = BIG_FILE, 0
        while left:
            block = (chance.randbytes(BLOCK) if number % 2 else texts[number // 2 % 8])[:left]
            file.write(block)
            left, number = left - len(block), number + 1
    return root


def empty(area: WorkArea) -> str:
    """A context with nothing in it."""
    return area.directory("empty")


def dockerfile(area: WorkArea, name: str, text: str) -> str:
    """`text` in a file outside every context."""
    path = os.path.join(area.directory("dockerfiles"), name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def many_runs(base: str, count: int) -> str:
    """A Dockerfile of `count` steps that each write a line."""
    return f"FROM {base}\nARG UNIQUE\n" + "".join(f"RUN echo {n} > /step{n}\n" for n in range(count))


def ten_steps(base: str) -> str:
    """A Dockerfile of ten steps, the whole context among them."""
    return f"FROM {base}\nCOPY . /context/\nWORKDIR /context\n" + "".join(
        f"RUN echo {n} > /step{n}\n" for n in range(8)
    )


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, 1_700_000_000
    return entry


def _text(chance: random.Random, size: int) -> bytes:
    """Words by chance: gzip makes a third or a quarter of it."""
    words = ["".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 9))) for _ in range(2_000)]
    out = io.BytesIO()
    while out.tell() < size:
        out.write(" ".join(chance.choices(words, k=200)).encode() + b"\n")
    return out.getvalue()[:size]

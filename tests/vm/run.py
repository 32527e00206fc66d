"""Run tests in a virtual machine: Debian's own kernel, systemd, and nothing but cgroups of version 2.

    python tests/vm/run.py [--arch amd64|arm64] [--suite bookworm] [--cache DIR] [--fresh] [-- COMMAND ...]

COMMAND runs as root in /opt/pybuild, where this tree lies with its environment; without one the tests in
`INSIDE` do. What it prints is printed, and its exit code is this program's. Needed, as root: mmdebstrap,
mke2fs (e2fsprogs), busybox-static and qemu-system-x86 or qemu-system-arm.
The machine has no network. Its parts are kept in the cache directory; only the tree is copied each time.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
THERE = "/opt/pybuild"
PACKAGES = {
    "amd64": "python3,busybox-static,uidmap,passt,slirp4netns,fuse-overlayfs,iproute2,nftables,systemd-sysv,"
    "dbus,dbus-user-session,libpam-systemd,kmod,gcc,libc6-dev,strace,acl,attr,libcap2-bin,git,ca-certificates,"
    "procps,linux-image-cloud-amd64",
    "arm64": "python3,busybox-static,gcc,libc6-dev,iproute2,procps,strace,util-linux,linux-image-cloud-arm64",
}
QEMU = {
    "amd64": ("qemu-system-x86_64", "-machine", "q35", "ttyS0"),
    "arm64": ("qemu-system-aarch64", "-machine", "virt", "ttyAMA0"),
}
NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
)
PYTEST = ".venv/bin/python -m pytest -q -p no:cacheprovider "
INSIDE = {
    "amd64": "tests/root/rootless/test_scopes.py tests/root/test_limits.py tests/root/test_filter.py "
    "tests/root/test_usual_processes.py "
    "tests/root/test_confinement.py",
    "arm64": "-p no:hypothesispytest tests/root/test_filter.py tests/root/test_sandbox.py",
}
DISK_MIB = 6144
ENDED = "pybuild-vm: exit code "
INIT = """#!/bin/busybox sh
busybox mkdir -p /proc /sys /dev /new
busybox mount -t devtmpfs none /dev
busybox mount -t proc none /proc
for each in {modules}; do [ -e /$each.ko ] && busybox insmod /$each.ko; done
until [ -b /dev/vda ]; do busybox sleep 0.1; done
busybox mount -t ext4 /dev/vda /new
busybox umount /proc
exec busybox switch_root /new {first}
"""
ALONE = """#!/bin/busybox sh
# The first process where packages are unpacked but not configured.
mount() { busybox mount "$@"; }
mount -t devtmpfs none /dev; mount -t proc none /proc; mount -t sysfs none /sys; mount -t tmpfs none /tmp
busybox mkdir -p /dev/pts /dev/shm; mount -t devpts none /dev/pts; mount -t tmpfs none /dev/shm
mount -t cgroup2 none /sys/fs/cgroup
for each in overlay fuse tun; do busybox modprobe $each; done
busybox ip link set lo up
cd %s && HOME=/root PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 busybox sh .vm-command
busybox poweroff -f
"""
UNIT = """[Unit]
Description=tests
After=multi-user.target systemd-logind.service
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/{tty}
Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
WorkingDirectory={there}
ExecStart=/bin/sh {there}/.vm-command
ExecStopPost=/bin/systemctl poweroff --force --force
[Install]
WantedBy=multi-user.target
"""


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--arch", choices=sorted(QEMU), default="amd64")
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--cache", default=os.path.join(tempfile.gettempdir(), "pybuild-vm"))
    parser.add_argument("--fresh", action="store_true", help="make the parts anew")
    parser.add_argument("--kvm", action="store_true", help="not emulated: nested virtualisation may hang")
    parser.add_argument("--memory", type=int, default=2048, metavar="MIB")
    parser.add_argument("command", nargs="*")
    given = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("a root file system is made by root only")
    cache = Path(given.cache, f"{given.suite}-{given.arch}")
    if given.fresh:
        shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    root = base(cache, given.suite, given.arch)
    install(root, given.arch, shlex.join(given.command) or PYTEST + INSIDE[given.arch])
    initrd(cache, root)
    disk(cache, root)
    try:
        return boot(cache, root, given.arch, given.memory, given.kvm)
    finally:
        (cache / "disk.img").unlink()


def base(cache: Path, suite: str, arch: str) -> Path:
    """The directory with Debian in it."""
    root, tar = cache / "root", cache / "root.tar"
    if root.is_dir():
        return root
    if not tar.exists():
        native = arch == NATIVE.get(os.uname().machine)
        variant = "minbase" if native else "extract"  # nothing of another machine's runs here
        command = ["mmdebstrap", f"--variant={variant}", f"--architectures={arch}"]
        _run(*command, f"--include={PACKAGES[arch]}", suite, str(tar))
    partial = cache / "root.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    _run("tar", "-C", str(partial), "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", str(tar))
    _complete(partial)
    partial.rename(root)
    return root


def _complete(root: Path) -> None:
    """What packages make when they are configured, and our first process needs."""
    if (root / "sbin/init").exists():
        return
    for name in ("proc", "sys", "dev", "root", "run", "tmp", "var/tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "bin/sh").unlink(missing_ok=True)
    (root / "bin/sh").symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    for modules in (root / "lib/modules").iterdir():
        _run("busybox", "depmod", "-b", str(root), modules.name)


def install(root: Path, arch: str, command: str) -> None:
    """Put the tree, its environment and what runs at start in place."""
    there = root / THERE.lstrip("/")
    shutil.rmtree(there, ignore_errors=True)
    listed = _output("git", "-C", str(TREE), "ls-files", "-co", "--exclude-standard", "-z").split("\0")
    for name in filter(None, listed):
        if (TREE / name).is_file():
            (there / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TREE / name, there / name)
    _environment(there)
    (there / ".vm-command").write_text(
        f"export PYBUILD_VM=1; cat /proc/version; {command}; echo; echo '{ENDED}'$?; sync; sleep 0.3\n"
    )
    alone = root / "pybuild-init"
    alone.write_text(ALONE % THERE)
    alone.chmod(0o755)
    tty = QEMU[arch][3]
    if not (root / "sbin/init").exists():
        return
    unit = root / "etc/systemd/system/pybuild-vm.service"
    unit.write_text(UNIT.format(tty=tty, there=THERE))
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    (wanted / unit.name).unlink(missing_ok=True)
    (wanted / unit.name).symlink_to(f"/etc/systemd/system/{unit.name}")
    for name in (f"serial-getty@{tty}", "getty@tty1", "systemd-timesyncd", "apt-daily", "e2scrub_reap"):
        mask = root / f"etc/systemd/system/{name}.service"
        mask.unlink(missing_ok=True)
        mask.symlink_to("/dev/null")
    (root / "etc/modules-load.d/pybuild.conf").write_text("overlay\nfuse\ntun\nloop\nbfq\nveth\nbridge\n")
    _tester(root)


def _environment(there: Path) -> None:
    """The tree's environment, as if it had been made in `there`."""
    ours = TREE / ".venv"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copytree(ours / "lib" / version, there / ".venv/lib" / version, symlinks=True)
    (there / ".venv/bin").mkdir()
    for name in ("python", "python3"):
        (there / ".venv/bin" / name).symlink_to("/usr/bin/python3")
    shutil.copy2(ours / "pyvenv.cfg", there / ".venv/pyvenv.cfg")
    shutil.copy2(ours / "bin/pybuild", there / ".venv/bin/pybuild")
    named = [*(there / ".venv/lib" / version).glob("site-packages/*.pth"), there / ".venv/bin/pybuild"]
    for path in named:
        path.write_text(path.read_text().replace(str(TREE), THERE))


def _tester(root: Path) -> None:
    """An ordinary user who is always logged in, with subordinate ids."""
    if "tester:" in (root / "etc/passwd").read_text():
        return
    for name, line in (
        ("passwd", "tester:x:1000:1000::/home/tester:/bin/bash"),
        ("group", "tester:x:1000:"),
        ("shadow", "tester:*:19000:0:99999:7:::"),
        ("subuid", "tester:100000:65536"),
        ("subgid", "tester:100000:65536"),
    ):
        with (root / "etc" / name).open("a") as file:
            file.write(line + "\n")
    (root / "home/tester").mkdir()
    os.chown(root / "home/tester", 1000, 1000)
    linger = root / "var/lib/systemd/linger"
    linger.mkdir(parents=True, exist_ok=True)
    (linger / "tester").touch()


def initrd(cache: Path, root: Path) -> None:
    """What finds the disk: a shell and the modules that Debian's kernel needs for it."""
    top = cache / "initrd"
    shutil.rmtree(top, ignore_errors=True)
    (top / "bin").mkdir(parents=True)
    shutil.copy(root / "bin/busybox", top / "bin/busybox")
    for path in (root / "lib/modules").glob("*/kernel/drivers/**/virtio*.ko"):
        if path.stem in MODULES:
            shutil.copy(path, top / path.name)
    first = "/sbin/init" if (root / "sbin/init").exists() else "/pybuild-init"
    (top / "init").write_text(INIT.format(modules=" ".join(MODULES), first=first))
    (top / "init").chmod(0o755)
    listing = (
        "find . | cpio --quiet -o -H newc" if shutil.which("cpio") else "find . | busybox cpio -o -H newc"
    )
    with (cache / "initrd.img").open("wb") as file:
        subprocess.run(listing, shell=True, cwd=top, stdout=file, stderr=subprocess.DEVNULL, check=True)


def disk(cache: Path, root: Path) -> None:
    """An ext4 with all of `root`."""
    image = cache / "disk.img"
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(DISK_MIB << 20)
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-d", str(root), str(image))


def boot(cache: Path, root: Path, arch: str, memory: int, kvm: bool) -> int:
    """Start the machine and pass on what it says. The exit code of the command in it."""
    program, *machine, tty = QEMU[arch]
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    words = f"console={tty} quiet loglevel=3 systemd.show_status=0 panic=-1 ipv6.disable=0"
    command = [program, *machine, "-m", str(memory), "-smp", "2", "-nographic", "-no-reboot", "-nic", "none"]
    command += ["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg,thread=multi", "-cpu", "max"]
    command += ["-kernel", str(kernel), "-initrd", str(cache / "initrd.img"), "-append", words]
    command += ["-drive", f"file={cache}/disk.img,if=virtio,format=raw,cache=unsafe"]
    code = 1
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as qemu:
        assert qemu.stdout is not None
        for line in qemu.stdout:
            if found := re.match(f"{ENDED}(\\d+)", line):
                code = int(found[1])
            print(line, end="", flush=True)
    return code


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())

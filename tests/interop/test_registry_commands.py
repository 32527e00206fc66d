"""The commands that talk to registries, with docker-registry; docker and skopeo read what we wrote."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from itertools import count, pairwise

import bcrypt
import pytest
from judges.dockerd import Docker
from judges.dockerregistry import DockerRegistry, docker_registry
from judges.pybuild import Pybuild
from specimens import noise

from builder.images import Images
from builder.state import StateDir
from oci.image import Image
from oci.layout import Layout
from oci.model import Platform
from oci.reference import Reference

pytestmark = pytest.mark.interop

PROGRAM = os.path.join(sysconfig.get_path("scripts"), "pybuild")
ARM = Platform("linux", "arm64")


@pytest.fixture(scope="module")
def directory(memory_dir: str) -> Iterator[str]:
    path = f"{memory_dir}/commands"
    os.mkdir(path)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def plain(directory: str) -> Iterator[DockerRegistry]:
    with docker_registry(f"{directory}/plain") as registry:
        yield registry


@pytest.fixture(scope="module")
def certificates(directory: str) -> str:
    """An authority, a certificate of its making for 127.0.0.1, and a htpasswd of me:secret."""
    where = f"{directory}/certificates"
    os.mkdir(where)
    with open(f"{where}/names", "w", encoding="utf-8") as file:
        file.write("subjectAltName=IP:127.0.0.1\n")
    for line in (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority",
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=127.0.0.1",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -out server.pem -days 2 -extfile names",
    ):
        subprocess.run(["openssl", *line.split()], cwd=where, check=True, capture_output=True)
    with open(f"{where}/htpasswd", "wb") as users:
        users.write(b"me:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4, b"2a")) + b"\n")
    return where


@pytest.fixture(scope="module")
def secure(directory: str, certificates: str) -> Iterator[DockerRegistry]:
    tls = {"certificate": f"{certificates}/server.pem", "key": f"{certificates}/server.key"}
    auth = {"htpasswd": {"realm": "test", "path": f"{certificates}/htpasswd"}}
    with docker_registry(f"{directory}/secure", tls=tls, auth=auth) as registry:
        yield registry


@pytest.fixture
def pybuild(directory: str) -> Iterator[Pybuild]:
    """The command with an empty store."""
    root = f"{directory}/store"
    yield Pybuild(root)
    shutil.rmtree(root, ignore_errors=True)


def put(pybuild: Pybuild, name: str, *sizes: int, platform: Platform | None = None, seed: int = 1) -> Image:
    """An image of noise in the store."""
    with StateDir(pybuild.root) as state, state.lease():
        images = Images(state)
        image = noise(images.layout.blobs, *sizes, platform=platform, seed=seed)
        images.tag(Reference.parse(name), image.descriptor)
        return image


def empty(pybuild: Pybuild) -> None:
    shutil.rmtree(pybuild.root)


def out(pybuild: Pybuild, *args: str) -> str:
    return pybuild.run(*args).stdout.decode()


def skopeo(*args: str) -> str:
    done = subprocess.run(["skopeo", *args], capture_output=True, text=True)
    assert done.returncode == 0, (args, done.stderr)
    return done.stdout


def is_whole(pybuild: Pybuild, image: Image) -> bool:
    blobs = Layout.open(pybuild.root).blobs
    for digest in blobs:
        blobs.verify(digest)
    return all(
        each.digest in blobs for each in (*image.layers, image.manifest.value.config, image.descriptor)
    )


# ---- there and back ----


def test_push_and_pull(pybuild: Pybuild, plain: DockerRegistry) -> None:
    name = plain.name("there/and/back:v1")
    image = put(pybuild, name, 300_000, 2000, 10)
    done = pybuild.run("push", name)
    line = f"v1: digest: {image.descriptor.digest} size: {image.descriptor.size}\n"
    assert done.stdout.decode() == line and b"pushing" in done.stderr
    assert json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name}"))["Digest"] == str(
        image.descriptor.digest
    )
    done = pybuild.run("push", "-q", name)
    assert (done.stdout.decode(), done.stderr) == (f"{name}\n", b"")
    empty(pybuild)
    done = pybuild.run("pull", name)
    assert done.stdout.decode() == f"{name}\n" and b"Downloaded newer image" in done.stderr
    assert is_whole(pybuild, image)
    count = len(plain.requests())
    assert b"up to date" in pybuild.run("pull", name).stderr
    assert [method for method, _, _ in plain.requests(count)] == ["GET"] * 2, "greeting and manifest"
    assert out(pybuild, "pull", "-q", f"{name.rpartition(':')[0]}@{image.descriptor.digest}").count("@") == 1


def test_docker_runs_what_we_built_and_pushed(
    pybuild: Pybuild, plain: DockerRegistry, docker: Docker, busybox_archive: str
) -> None:
    pybuild.run("load", "-i", busybox_archive)
    base, app = plain.name("busybox:1"), plain.name("app:1")
    pybuild.run("tag", "busybox-test", base)
    pybuild.run("push", base)
    context = f"{pybuild.root}-context"
    os.mkdir(context)
    with open(f"{context}/Dockerfile", "w", encoding="utf-8") as file:
        file.write(f'FROM {base}\nLABEL a=b\nENV SAID=hello\nCMD ["sh", "-c", "echo $SAID"]\n')
    empty(pybuild)
    count = len(plain.requests())
    pybuild.run("build", "-t", app, "--push", context)
    asked = plain.requests(count)
    layers = [path for method, path, _ in asked if method == "GET" and "/blobs/" in path]
    assert len(layers) == 1, "the base's config alone"
    assert [status for method, path, status in asked if method == "POST" and "mount=" in path] == [201]
    assert sum(method in ("PUT", "PATCH") and "/blobs/" in path for method, path, _ in asked) <= 2
    docker.run("pull", app)
    assert docker.run("run", "--rm", "--network=none", app).stdout == b"hello\n"
    assert docker.run("rmi", app) and out(pybuild, "run", "--network", "none", app) == "hello\n"
    # And what docker built and pushed is a base for us.
    docker.run("pull", base)
    docker.run("tag", base, plain.name("from-docker:1"))
    docker.run("push", plain.name("from-docker:1"))
    with open(f"{context}/Dockerfile", "w", encoding="utf-8") as file:
        file.write(f"FROM {plain.name('from-docker:1')}\nRUN echo made > /made\n")
    pybuild.run("build", "--network", "none", "-t", "made", context)
    assert out(pybuild, "run", "--network", "none", "made", "cat", "/made") == "made\n"
    shutil.rmtree(context)


def test_all_tags(pybuild: Pybuild, plain: DockerRegistry) -> None:
    repository = plain.name("many")
    one, other = put(pybuild, f"{repository}:1", 1000), put(pybuild, f"{repository}:2", 2000)
    pybuild.run("tag", f"{repository}:1", f"{repository}:latest")
    put(pybuild, plain.name("others:1"), 10)
    assert out(pybuild, "push", "--all-tags", repository).count("digest:") == 3
    assert out(pybuild, "tags", repository).split() == ["1", "2", "latest"]
    told = json.loads(out(pybuild, "tags", "--format", "json", f"docker://{repository}"))
    assert told == {"Repository": repository, "Tags": ["1", "2", "latest"]}
    empty(pybuild)
    assert len(out(pybuild, "pull", "-a", repository).split()) == 3
    assert is_whole(pybuild, one) and is_whole(pybuild, other)
    for args in (["push", "-a", f"{repository}:1"], ["pull", "-a", f"{repository}:1"]):
        done = pybuild.run(*args, check=False)
        assert done.returncode == 2 and b"without a tag" in done.stderr


def test_indexes(pybuild: Pybuild, plain: DockerRegistry) -> None:
    """Two images in two repositories become one index; their layers never come here."""
    images = [put(pybuild, plain.name("amd:1"), 70_000, 10)]
    images.append(put(pybuild, plain.name("arm:1"), 90_000, 20, platform=ARM))
    pybuild.run("push", plain.name("amd:1"))
    pybuild.run("push", plain.name("arm:1"))
    empty(pybuild)
    name = plain.name("multi:1")
    digest = out(pybuild, "manifest", "create", name, plain.name("amd:1"), plain.name("arm:1")).strip()
    shown = json.loads(out(pybuild, "manifest", "inspect", f"store:{name}"))
    assert [each["platform"]["architecture"] for each in shown["manifests"]] == ["amd64", "arm64"]
    count = len(plain.requests())
    assert digest in out(pybuild, "manifest", "push", name)
    assert not [path for method, path, _ in plain.requests(count) if method == "GET" and "/blobs/sha" in path]
    raw = pybuild.run("manifest", "inspect", "--raw", name).stdout
    assert raw.decode() == skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    verbose = json.loads(out(pybuild, "manifest", "inspect", "-v", name))
    assert verbose["Descriptor"]["digest"] == digest and verbose["Manifest"] == json.loads(raw)
    told = json.loads(out(pybuild, "inspect", "--remote", "--platform", "linux/arm64", name))
    assert told[0]["Id"] == str(images[1].id) and told[0]["Architecture"] == "arm64"
    empty(pybuild)
    pybuild.run("pull", "--platform", "linux/arm64", name)
    assert is_whole(pybuild, images[1]) and images[0].layers[0].digest not in Layout.open(pybuild.root).blobs
    pybuild.run("pull", "--all-platforms", name)
    assert is_whole(pybuild, images[0]) and is_whole(pybuild, images[1])
    assert digest in out(pybuild, "images", "--digests", "--no-trunc")
    pybuild.run("push", "-q", name)  # an index, whole


def test_deletion(pybuild: Pybuild, plain: DockerRegistry) -> None:
    name = plain.name("gone:1")
    image = put(pybuild, name, 100, seed=77)
    pybuild.run("push", "-q", name)
    pinned = f"{plain.name('gone')}@{image.descriptor.digest}"
    done = pybuild.run("manifest", "delete", plain.name("gone"), check=False)
    assert done.returncode == 2 and b"which one is to go" in done.stderr
    done = pybuild.run("manifest", "delete", name, check=False)  # this registry deletes no tags
    assert done.returncode == 3 and f"manifest delete {plain.name('gone')}@DIGEST".encode() in done.stderr
    assert out(pybuild, "manifest", "delete", pinned) == f"Deleted {pinned}\n"
    done = pybuild.run("manifest", "delete", pinned, check=False)
    assert done.returncode == 3 and b"MANIFEST_UNKNOWN" in done.stderr


def test_an_index_is_amended(pybuild: Pybuild, plain: DockerRegistry) -> None:
    put(pybuild, "amd", 500)
    old, new = put(pybuild, "arm", 600, platform=ARM), put(pybuild, "arm-new", 700, platform=ARM)
    name = plain.name("amended:1")
    pybuild.run("manifest", "create", "--annotation", "a=b", name, "amd", "arm")
    done = pybuild.run("manifest", "create", name, "arm", "arm-new", check=False)
    assert done.returncode == 2 and b"both have an image for linux/arm64" in done.stderr
    amend = ("manifest", "create", "--append", "--annotation", "c=d")
    tried = json.loads(out(pybuild, *amend, "--dry-run", name, "arm-new"))
    assert json.loads(out(pybuild, "manifest", "inspect", f"store:{name}"))["annotations"] == {"a": "b"}
    pybuild.run(*amend, name, "arm-new")
    shown = json.loads(out(pybuild, "manifest", "inspect", f"store:{name}"))
    digests = {each["digest"] for each in shown["manifests"]}
    assert str(new.descriptor.digest) in digests and str(old.descriptor.digest) not in digests
    assert shown["annotations"] == {"a": "b", "c": "d"} and len(digests) == 2
    assert tried == shown
    pybuild.run("manifest", "push", "--purge", name)
    assert json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")) == shown
    done = pybuild.run("manifest", "push", name, check=False)
    assert done.returncode == 1 and b"manifest create" in done.stderr


# ---- copy ----


def test_copy_goes_everywhere(pybuild: Pybuild, plain: DockerRegistry, directory: str) -> None:
    image = put(pybuild, "app:1", 20_000, 30)
    digest = str(image.descriptor.digest)
    there = f"{directory}/places"
    os.mkdir(there)
    places = [
        "store:app:1",
        f"docker://{plain.name('copied:1')}",
        plain.name("copied:2"),
        f"oci:{there}/layout:tag",
        f"oci-archive:{there}/a.oci.tar",
        f"docker-archive:{there}/a.docker.tar",
        f"dir:{there}/dir",
        "store:back:1",
        f"dir:{there}/dir2",
        f"docker-archive:{there}/b.docker.tar:named:7",
        f"docker-archive:{there}/c.docker.tar:other:8",
        f"oci:{there}/layout2",
        plain.name("copied:3"),
    ]
    for source, target in pairwise(places):
        assert out(pybuild, "copy", "-q", source, target).strip() == digest, (source, target)
    assert is_whole(pybuild, image)
    for judged in (f"oci:{there}/layout:tag", f"oci-archive:{there}/a.oci.tar", f"dir:{there}/dir"):
        assert json.loads(skopeo("inspect", judged))["Digest"] == digest, judged
    told = json.loads(skopeo("inspect", "--config", f"docker-archive:{there}/b.docker.tar"))
    assert told["rootfs"]["diff_ids"] == [str(each) for each in image.config.value.diff_ids]
    # And what skopeo wrote is read.
    skopeo("copy", "--src-tls-verify=false", f"docker://{plain.name('copied:3')}", f"dir:{there}/skopeo")
    assert out(pybuild, "copy", f"dir:{there}/skopeo", "store:skopeo").strip() == digest
    piped = pybuild.run("copy", "-q", "store:app:1", "oci-archive:-").stdout
    assert (
        pybuild.run("copy", "-q", "oci-archive:-", "store:piped", stdin=piped).stdout.decode().strip()
        == digest
    )
    shutil.rmtree(there)


def test_copy_of_an_index(pybuild: Pybuild, plain: DockerRegistry, directory: str) -> None:
    put(pybuild, "amd", 500)
    arm = put(pybuild, "arm", 600, platform=ARM)
    digest = out(pybuild, "manifest", "create", "multi", "amd", "arm").strip()
    there = f"{directory}/index"
    for target in (
        f"dir:{there}/dir",
        f"oci:{there}/layout:1",
        plain.name("index:1"),
        f"oci-archive:{there}/a",
    ):
        os.makedirs(there, exist_ok=True)
        assert out(pybuild, "copy", "-q", "store:multi", target).strip() == digest
        assert (
            out(
                pybuild, "copy", "-q", target.removesuffix(":1") if "oci:" in target else target, "store:x"
            ).strip()
            == digest
        )
        only = out(pybuild, "copy", "-q", "--platform", "linux/arm64", target, "store:one").strip()
        assert only == str(arm.descriptor.digest)
    skopeo("copy", "--all", f"dir:{there}/dir", f"oci:{there}/judged:1")
    done = pybuild.run("copy", "--platform", "linux/s390x", f"dir:{there}/dir", "store:none", check=False)
    assert done.returncode == 1 and b"there is linux/amd64, linux/arm64" in done.stderr
    shutil.rmtree(there)


def test_copy_says_what_it_cannot(pybuild: Pybuild, directory: str) -> None:
    put(pybuild, "app", 5)
    for source, target, code, said in (
        ("store:nope", "store:x", 1, b"no image"),
        ("oci:/nonexistent", "store:x", 2, b"no image layout"),
        ("oci-archive:/nonexistent", "store:x", 2, b"No such file"),
        ("dir:/nonexistent", "store:x", 1, b"no manifest.json"),
        ("store:app", "oci:", 2, b"names no directory"),
        ("store:app", "UPPER", 2, b"lower case"),
        ("store:app", f"docker-archive:{directory}", 2, b"is a directory"),
        ("store:app", f"dir:{directory}", 2, b"not empty"),
    ):
        done = pybuild.run("copy", "-q", source, target, check=False)
        assert done.returncode == code and said in done.stderr, (source, target, done.stderr)


# ---- passwords and certificates ----


def logged_in(pybuild: Pybuild) -> dict[str, object]:
    with open(f"{pybuild.root}/.docker/config.json", encoding="utf-8") as file:
        found: dict[str, object] = json.load(file)["auths"]
        return found


def test_login(pybuild: Pybuild, secure: DockerRegistry, certificates: str) -> None:
    """SECURITY.md S67."""
    name = secure.name("private:1")
    put(pybuild, name, 400)
    config = f"{certificates}/config.toml"
    with open(config, "w", encoding="utf-8") as file:
        file.write(f'[registry."{secure.address}"]\nca = ["{certificates}/ca.pem"]\n')
    home = f"{pybuild.root}-home"
    trust = ("--config", config)
    environ = {"PATH": os.environ["PATH"], "HOME": home}

    def run(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        line = [PROGRAM, "--root", pybuild.root, *trust, *args]
        return subprocess.run(line, input=stdin, capture_output=True, text=True, env=environ, timeout=60)

    done = run("push", name)
    assert done.returncode == 4 and f"pybuild login {secure.address}" in done.stderr, done
    wrong = run("login", "-u", "me", "--password-stdin", secure.address, stdin="wrong\n")
    assert wrong.returncode == 4 and not os.path.exists(f"{home}/.docker"), wrong
    done = run("login", "-u", "me", "--password-stdin", f"https://{secure.address}/", stdin="secret\n")
    assert done.stdout == "Login Succeeded\n" and f"{home}/.docker/config.json" in done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert stat.S_IMODE(os.stat(f"{home}/.docker/config.json").st_mode) == 0o600
    again = run("login", secure.address)
    assert again.stdout == "Login Succeeded\n" and "that are kept" in again.stderr
    assert run("push", "-q", name).returncode == 0
    assert run("tags", secure.name("private")).stdout == "1\n"
    assert run("inspect", "--remote", name).returncode == 0
    assert run("logout", secure.address).stdout == f"Removed login credentials for {secure.address}\n"
    assert run("logout", secure.address).stdout == f"Not logged in to {secure.address}\n"
    assert run("tags", secure.name("private")).returncode == 4
    given = run("tags", "--creds", "me:secret", secure.name("private"))
    assert given.stdout == "1\n" and "command line" in given.stderr
    argv = run("login", "-u", "me", "-p", "secret", "--authfile", f"{home}/auth.json", secure.address)
    assert "--password-stdin" in argv.stderr and argv.stdout == "Login Succeeded\n"
    assert run("tags", "--authfile", f"{home}/auth.json", secure.name("private")).stdout == "1\n"
    for args, said in (
        (["login", "--password-stdin", secure.address], "goes with --username"),
        (["login", secure.address], "no terminal"),
        (["login", "-u", "me", "--password-stdin", secure.address], "holds no password"),
        (["login", "no/registry"], "no registry"),
        (["tags", "--creds", "me", secure.name("private")], "no terminal"),
    ):
        done = run(*args)
        assert done.returncode == 2 and said in done.stderr, (args, done)
    # Without the authority nothing is believed, unless one says so.
    trust = ("--config", "/dev/null")
    done = run("tags", "--authfile", f"{home}/auth.json", secure.name("private"))
    assert done.returncode == 3 and "certificate" in done.stderr
    done = run("tags", "--tls-verify=false", "--authfile", f"{home}/auth.json", secure.name("private"))
    assert done.stdout == "1\n" and "not verified" in done.stderr
    shutil.rmtree(home)


def test_certificates_and_credentials_of_one_command(
    pybuild: Pybuild, secure: DockerRegistry, certificates: str
) -> None:
    """Nothing is configured and nobody is logged in: --cert-dir and --creds are enough, for each command."""
    trust = f"{pybuild.root}-certs.d"
    os.mkdir(trust)
    shutil.copy(f"{certificates}/ca.pem", f"{trust}/ca.crt")
    base, built = secure.name("with/creds:1"), secure.name("with/creds:2")
    image = put(pybuild, base, 400)
    with_both = ("--cert-dir", trust, "--creds", "me:secret")
    assert b"certificate" in pybuild.run("push", base, check=False).stderr
    assert pybuild.run("push", "--cert-dir", trust, base, check=False).returncode == 4
    pybuild.run("push", *with_both, base)
    empty(pybuild)
    pybuild.run("pull", *with_both, base)
    assert is_whole(pybuild, image)
    empty(pybuild)
    context = f"{pybuild.root}-context"
    os.mkdir(context)
    with open(f"{context}/Dockerfile", "w", encoding="utf-8") as file:
        file.write(f"FROM {base}\nENV A=b\n")
    done = pybuild.run("build", "--cert-dir", trust, "--creds", "me:secret", context, check=False)
    assert done.returncode == 2 and b"which registry" in done.stderr
    done = pybuild.run("build", *with_both, "--push", "-t", built, context)
    assert b"command line" in done.stderr and b"secret" not in done.stderr
    host = f"{secure.address}=me:secret"
    pybuild.run("build", "--cert-dir", trust, "--creds", host, "--pull", "-t", "local", context)
    pybuild.run("copy", *with_both, f"docker://{built}", f"docker://{secure.name('with/copy:1')}")
    ends = ("--src-creds", "me:secret", "--src-cert-dir", trust)
    pybuild.run("copy", *ends, f"docker://{built}", f"oci:{trust}/layout:x")
    assert out(pybuild, "tags", *with_both, secure.name("with/creds")) == "1\n2\n"
    for path in (trust, context):
        shutil.rmtree(path)


# ---- many layers, and ends ----


def test_forty_layers(pybuild: Pybuild, plain: DockerRegistry) -> None:
    name = plain.name("forty:1")
    image = put(pybuild, name, *(20_000 + n for n in range(40)))
    pybuild.run("push", "-q", name)
    empty(pybuild)
    pybuild.run("pull", "-q", name)
    assert is_whole(pybuild, image)


@pytest.mark.parametrize("verb", ["pull", "push"])
def test_killed_at_any_point(pybuild: Pybuild, plain: DockerRegistry, verb: str) -> None:
    """The next run completes; what was in the store stays sound, and nothing partial is visible."""
    kill_and_complete(pybuild, plain, verb, 8)


@pytest.mark.corpus
@pytest.mark.parametrize("verb", ["pull", "push"])
def test_killed_at_fifty_points(pybuild: Pybuild, plain: DockerRegistry, verb: str) -> None:
    kill_and_complete(pybuild, plain, verb, 50)


def kill_and_complete(pybuild: Pybuild, plain: DockerRegistry, verb: str, times: int) -> None:
    """Kill it so many times, each attempt going on where the last one ended; then let one through."""
    chance = random.Random(verb)
    seed = len(verb) + ord(verb[2])
    names = (plain.name(f"killed-{verb}-{times}:{number}") for number in count())
    name = next(names)
    image = put(pybuild, name, *(2_000_000 + n for n in range(8)), seed=seed)
    if verb == "pull":
        pybuild.run("push", "-q", name)
        empty(pybuild)
    killed = 0
    while killed < times:
        line = [PROGRAM, "--root", pybuild.root, verb, "-q", name]
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.02, 0.35))
        process.kill()
        through = process.wait() == 0
        killed += not through
        assert_nothing_partial(pybuild, image, name, verb)
        if through and verb == "pull":
            empty(pybuild)
        elif through:
            seed += 1000  # other blobs: these would be there already
            name = next(names)
            image = put(pybuild, name, *(2_000_000 + n for n in range(8)), seed=seed)
    pybuild.run(verb, "-q", name)
    assert is_whole(pybuild, image)
    tmp = f"{pybuild.root}/tmp"
    assert not os.path.exists(tmp) or not os.listdir(tmp)
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{pybuild.root}-read")
    shutil.rmtree(f"{pybuild.root}-read")


def assert_nothing_partial(pybuild: Pybuild, image: Image, name: str, verb: str) -> None:
    """What is visible at the target is whole."""
    if verb == "pull":
        if os.path.exists(f"{pybuild.root}/blobs"):
            blobs = Layout.open(pybuild.root).blobs
            for digest in blobs:
                blobs.verify(digest)
            assert image.descriptor.digest not in blobs or is_whole(pybuild, image)
    elif pybuild.run("inspect", "--remote", name, check=False).returncode == 0:
        skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{pybuild.root}-read")
        shutil.rmtree(f"{pybuild.root}-read")


def test_what_is_not_there(pybuild: Pybuild, plain: DockerRegistry) -> None:
    put(pybuild, plain.name("here:1"), 5)
    for args, code, said in (
        (["pull", plain.name("nope:1")], 3, b"MANIFEST_UNKNOWN"),
        (["push", plain.name("nope:1")], 1, b"no image"),
        (["push", plain.name("hera:1")], 1, f"did you mean {plain.name('here:1')}".encode()),
        (["push", "-a", plain.name("nope")], 1, b"has a name in"),
        (["tags", plain.name("nope")], 3, b"NAME_UNKNOWN"),
        (["pull", "127.0.0.1:1/x"], 3, b"nothing listens"),
        (["inspect", "--remote", plain.name("nope:1")], 3, b"MANIFEST_UNKNOWN"),
        (["manifest", "inspect", plain.name("nope:1")], 3, b"MANIFEST_UNKNOWN"),
        (["manifest", "create", "x", plain.name("nope:1")], 3, b"MANIFEST_UNKNOWN"),
        (["pull", "--platform", "a", "--all-platforms", "x"], 2, b"cannot both be"),
        (["pull", "UPPER"], 2, b"lower case"),
    ):
        done = pybuild.run(*args, check=False)
        assert done.returncode == code and said in done.stderr, (args, done)

"""`pybuild build`: from flags to a BuildRequest, and from what was built to what people get."""

from __future__ import annotations

import io
import json
import os
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

import builder.building as engine
from builder.building import BuildRequest, Built
from builder.cli import values
from builder.cli.results import metadata
from builder.contexts.ahead import Ahead
from builder.contexts.git import commit_time
from builder.errors import ContextError, StepFailed, UsageError
from builder.events import Emit, StepDone, StepStarted, Warning_
from builder.finishing import Annotation, Finish
from builder.limiting import Limiting
from builder.sandbox.spec import Limits
from builder.secrets import Agent, Secret
from oci.digest import Digest
from oci.model import Descriptor

Pybuild = Any
ID = Digest.of(b"image")
INDEX = Descriptor.of("application/vnd.oci.image.index.v1+json", b"index")
MANIFEST = Descriptor.of("application/vnd.oci.image.manifest.v1+json", b"manifest")


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[BuildRequest]:
    """The requests that reach the engine, which builds nothing here."""
    seen: list[BuildRequest] = []

    def build(request: BuildRequest, emit: Emit, ahead: Ahead | None, *, on_failure: object = None) -> Built:
        seen.append(request)
        emit(StepStarted("a", 1, "[1/1] FROM base", 0.0))
        emit(StepDone("a", 0.0, 0.0, cached=True))
        if "fail" in request.targets:
            raise StepFailed("RUN exited with 3", status=3)
        if request.labels:
            emit(Warning_("Rule", "it is broken", "Dockerfile:3", ">>> a\n    b"))
        return Built(ID, MANIFEST, request.tags, ref="pybuild/local/name")

    monkeypatch.setattr(engine, "build", build)
    return seen


@pytest.fixture
def context(tmp_path: Path) -> str:
    path = tmp_path / "context"
    path.mkdir()
    (path / "Dockerfile").write_text("FROM scratch\n")
    return str(path)


def test_the_plainest_build(pybuild: Pybuild, requests: list[BuildRequest], context: str) -> None:
    ran = pybuild(context)
    assert (ran.code, ran.out) == (0, f"{ID}\n"), "unnamed: its id is all one can call it by"
    assert ran.err == "\n#1 [1/1] FROM base\n#1 CACHED\n"
    (request,) = requests
    assert request == BuildRequest(context=context, root=pybuild.root)


def test_every_flag(
    pybuild: Pybuild, requests: list[BuildRequest], context: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_ENV", "e")
    monkeypatch.delenv("NOT_SET", raising=False)
    ran = pybuild(
        "build", "-f", f"{context}/Dockerfile", "-t", "a:1", "--tag", "b", "-o", "type=oci,dest=x.tar",
        "--output", "type=cacheonly", "--build-arg", "A=1=2", "--build-arg", "FROM_ENV", "--build-arg",
        "NOT_SET", "--target", "t", "--no-cache", "--no-cache-filter", "s1,s2", "--no-cache-filter", "s3",
        "--build-context", "c=/d", "--label", "l=v=w", "--label", "bare", "--platform", "linux/arm64",
        "--network", "bridge", "--add-host", "h:1.2.3.4",
        "--add-host", "v6=[::1]", "--add-host", "gw:host-gateway", "--secret", "id=s,src=/s", "--ssh", "k=/k",
        "--allow", "network.host", "--shm-size", "1g", "--ulimit", "nofile=10:20",
        "--ulimit", "core=-1", "--timestamp", "7", "--jobs", "3", "--keep-going", "--pull", "--load", "--rm",
        "-m", "1g", "--memory-swap", "-1", "-c", "512", "--cpu-period", "50000", "--cpu-quota", "25000",
        "--cpuset-cpus", "0-1,3", "--cpuset-mems", "0", "--blkio-weight", "500", "--cgroup-parent", "/ci",
        "--resource", "pids=90", "--resource", 'scope=step,memory=512m,"cpuset-cpus=0,1"',
        "--timeout", "1h30m", "--step-timeout", "90", "--best-effort",
        "--security-opt", "no-new-privileges:true", "--security-opt", "apparmor=x",
        "--provenance=false", "--sbom", "false", "--progress", "plain", context,
    )  # fmt: skip
    assert (ran.code, ran.out) == (0, ""), ran.err
    assert "note: --security-opt apparmor=x has no effect" in ran.err
    (request,) = requests
    assert request.security_opts == ("no-new-privileges",)
    assert request.dockerfile == f"{context}/Dockerfile" and request.tags == ("a:1", "b")
    assert [(each.type, each.dest) for each in request.outputs] == [("oci", "x.tar"), ("cacheonly", "")]
    assert request.build_args == {"A": "1=2", "FROM_ENV": "e"} and request.targets == ("t",)
    assert request.no_cache and request.no_cache_filter == {"s1", "s2", "s3"}
    assert request.contexts == {"c": "/d"} and request.labels == {"l": "v=w", "bare": ""}
    assert (request.platforms, request.network) == (("linux/arm64",), "default")
    assert request.extra_hosts == (
        ("h", "1.2.3.4"),
        ("v6", "::1"),
        ("gw", "host-gateway"),
    ) and request.allow == {"network.host"}
    assert request.secrets == (Secret("s", "/s"),) and request.ssh == (Agent("k", ("/k",)),)
    assert request.shm_size == 1 << 30 and request.ulimits == (("nofile", 10, 20), ("core", -1, -1))
    assert (request.clock, request.jobs, request.keep_going) == (7, 3, True)
    whole = Limits(1 << 30, -1, 512, 50_000, 25_000, "0-1,3", "0", 90, 500)
    assert request.limits == Limiting(whole, Limits(512 << 20, cpus="0,1", wall_s=90.0), "ci", True)
    assert request.timeout_s == 5400.0


def test_switches_with_a_value(pybuild: Pybuild, requests: list[BuildRequest], context: str) -> None:
    on = ["--no-cache=true", "--pull=always", "--keep-going=1", "--rm=true", "--no-rm=false", "--load=T"]
    off = ["--squash=false", "--push=0", "--rm=false", "--force-rm=false", "--pull=missing", "--check=false"]
    assert pybuild("build", *on, context).code == 0
    assert pybuild("build", *off, context).code == 0
    assert [(each.no_cache, each.pull, each.keep_going) for each in requests] == [
        (True, True, True),
        (False, False, False),
    ]


def test_a_value_is_no_switch(pybuild: Pybuild, requests: list[BuildRequest], context: str) -> None:
    pybuild.ok("build", "--label", "--rm=false", "-qt", "--squash=1", "-q", "--label=--push=true", context)
    assert requests[0].labels == {"--rm": "false", "--push": "true"}
    assert requests[0].tags == ("--squash=1",)
    ran = pybuild("build", "--", "--rm=false")
    assert ran.code != 0 and "'--rm=false' is no directory" in ran.err


def test_flags_of_buildah(
    pybuild: Pybuild, requests: list[BuildRequest], context: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", "there")
    ran = pybuild(
        "build", "--env", "A=b", "--env", "HERE", "--retry", "2", "--retry-delay", "3s", "--layers=true",
        "--rewrite-timestamp", "--isolation", "oci", "--skip-unused-stages=false", "--unsetannotation", "x",
        "--attest", "type=provenance,disabled=true", "--format", "docker",
        "-o", "type=oci,dest=x.tar,annotation.org.Key=v,annotation-manifest-descriptor[linux/amd64].k=w",
        context,
    )  # fmt: skip
    assert ran.code == 0 and "annotations of a base are not inherited" in ran.err, ran
    (request,) = requests
    assert request.finish.env == (("A", "b"), ("HERE", "there")) and request.every_stage
    assert (request.access.retries, request.access.retry_delay_s) == (2, 3.0)
    assert request.outputs[0].options == {"oci-mediatypes": "false"}
    assert [(each.place, each.key, each.value) for each in request.finish.annotations] == [
        ("manifest", "org.Key", "v"),
        ("manifest-descriptor", "k", "w"),
    ]


def test_docker_types_are_for_outputs(pybuild: Pybuild, requests: list[BuildRequest], context: str) -> None:
    assert "the store has OCI's types" in pybuild("build", "--format=docker", context).err
    assert "note" not in pybuild("build", "--format=docker", "--push", "-t", "x", context).err
    assert [each.outputs[0].options for each in requests if each.outputs] == [{"oci-mediatypes": "false"}]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--cache-to", "type=local"], "cache import and export"),
        (["--push"], "no name to push to"),
        (["--annotation", "index:a=b"], "has no index"),
        (["--annotation", "a"], "no [TYPE:]KEY=VALUE"),
        (["--unset", "env"], "names no setting"),
        (["--build-arg-file", "/nonexistent"], "cannot be read"),
        (["-m", "1m"], "less than 6m"),
        (["--memory-swap", "1g"], "needs --memory"),
        (["-m", "1g", "--memory-swap", "1m"], "cannot be below"),
        (["--cpus", "0"], "0.01 to"),
        (["--cpus", "1", "--cpu-quota", "1000"], "excludes"),
        (["--cpu-shares", "1"], "2 to 262144"),
        (["--cpu-period", "1"], "1000 to 1000000"),
        (["--cpuset-cpus", "all"], "0-2,7"),
        (["--pids-limit", "many"], "a whole number"),
        (["--blkio-weight", "9"], "10 to 1000"),
        (["--device-read-bps", "1m"], "DEVICE:RATE"),
        (["--device-read-bps", "/nonexistent:1m"], "No such file"),
        (["--device-write-iops", "/dev/null:1"], "no block device"),
        (["--resource", "memory"], "there are blkio-weight"),
        (["--resource", "cpuset-cpus=0,1"], "quoted"),
        (["--resource", "scope=host,memory=1g"], "scope=build|step"),
        (["--cgroup-parent", "a/../b"], "no path of a cgroup"),
        (["--timeout", "soon"], "1h30m"),
        (["--step-timeout", "0"], "no time"),
        (["--attest", "type=sbom"], "attestations"),
        (["--volume", "/a:/b"], "--build-context NAME=DIR"),
        (["--cap-add", "NET_ADMIN"], "--security=insecure"),
        (["--dns", "1.1.1.1"], "--add-host"),
        (["--userns-uid-map=0:1:2"], "--isolation rootless"),
        (["--save-stages"], "-t STAGE=NAME"),
        (["--from", "x"], "docker-image://"),
        (["--runtime", "runc"], "no OCI runtime"),
        (["--rm=maybe"], "--rm=maybe is neither true nor false"),
        (["--pull=never"], "--offline asks no registry"),
        (["-o", "type=image,annotation-index.a=b"], "has no index"),
        (["--provenance", "mode=max"], "attestations"),
        (["--platform", "linux/amd64,linux/a/b/c"], "no platform"),
        (
            ["--platform", "linux/amd64,linux/arm64", "-o", "type=docker,dest=-"],
            "for one platform, not for 2",
        ),
        (["--build-arg", "BUILDKIT_MULTI_PLATFORM=maybe"], "true or false"),
        (["--target", "a,b", "-t", "x"], "say whose name it is: -t a=x"),
        (["-t", "a=x", "-t", "b=x"], "to name two images: a and b"),
        (["-t", "=x"], "no stage before the ="),
        (["-t", "a=x", "-t", "b=y", "-o", "type=oci,dest=x,name=z"], "there are several: a, b"),
        (["-o", "type=local,dest=.,mode=delete", "--allow", "buildx.local.delete"], "would delete"),
        (["-t", "a=x", "--target", "b", "--push"], "no name to push to"),
        (["-o", "type=registry"], "no name to push to"),
        (["--ulimit", "files=3"], "there are core, cpu"),
        (["--security-opt", "seccomp=mine.json"], "is not known"),
        (["--ulimit", "nofile=9:3"], "above the hard"),
        (["--shm-size", "lots"], "64m"),
        (["--add-host", "h:not-an-ip"], "db:10.0.0.5"),
        (["--build-context", "x"], "NAME=VALUE"),
        (["--build-arg", "=x"], "no name"),
        (["--timestamp", "yesterday"], "date +%s"),
        (["--timestamp", "commit"], "no commit"),
        (["--iidfile", "/nonexistent/x"], "does not exist"),
        (["--progress", "loud"], "rawjson"),
        (["--network", "other"], "bridge"),
        (["extra"], "unexpected extra argument"),
    ],
)
def test_usage_errors(pybuild: Pybuild, context: str, args: list[str], said: str) -> None:
    ran = pybuild("build", *args, context)
    assert ran.code == 2 and said in ran.err and ran.out == "", ran
    assert not os.path.exists(pybuild.root), "nothing was begun"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["build"], "needs a context"),
        (["/nonexistent"], "no directory"),
        (["imagess"], "did you mean pybuild images?"),
        (["https://example.org/x.git?rev=1"], "unknown key 'rev'"),
        (["ftp://example.org/x"], "no place a context can come from"),
        (["-f", "-", "-"], "both come from standard input"),
    ],
)
def test_contexts_that_cannot_be(pybuild: Pybuild, args: list[str], said: str) -> None:
    ran = pybuild(*args)
    assert ran.code == 2 and said in ran.err


def test_a_dockerfile_on_standard_input(
    pybuild: Pybuild, requests: list[BuildRequest], context: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"FROM scratch\n")))
    pybuild.ok("-f", "-", context)
    assert (requests[0].context, requests[0].dockerfile) == (context, "-")
    assert (requests[0].dockerfile_text, requests[0].stdin) == (b"FROM scratch\n", None)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"FROM scratch\n")))
    pybuild.ok("-", "-f", "in/Dockerfile", "--ignorefile", "i")
    assert (requests[1].context, requests[1].dockerfile, requests[1].ignorefile) == (
        "-",
        "in/Dockerfile",
        "i",
    )
    assert requests[1].stdin is not None, "archive or Dockerfile: whoever reads it finds out"


def test_what_is_still_changed_of_the_image(
    pybuild: Pybuild, requests: list[BuildRequest], context: str, tmp_path: Path
) -> None:
    (tmp_path / "args").write_text("A=file\nB=file\n")
    pybuild.ok(
        "--unset", "env.A,cmd", "--unsetenv", "B", "--unsetlabel", "l", "--squash", "--annotation", "k=v",
        "--build-arg-file", str(tmp_path / "args"), "--build-arg", "A=line", context,
    )  # fmt: skip
    assert requests[0].finish == Finish(
        ("env.A", "cmd", "env.B", "label.l"), True, (Annotation("manifest", "k", "v"),)
    )
    assert requests[0].build_args == {"A": "line", "B": "file"}


def test_results(pybuild: Pybuild, requests: list[BuildRequest], context: str, tmp_path: Path) -> None:
    iid, path = tmp_path / "iid", tmp_path / "metadata.json"
    iid.write_text("old")
    ran = pybuild("-q", "-t", "x", "--iidfile", str(iid), "--metadata-file", str(path), context)
    assert (ran.code, ran.out, ran.err) == (0, f"{ID}\n", "")
    assert iid.read_text() == str(ID)
    document = json.loads(path.read_text())
    assert document["containerimage.config.digest"] == str(ID) and document["image.name"] == "x"
    assert document["containerimage.descriptor"]["digest"] == document["containerimage.digest"]
    assert pybuild("-q", "-o", "-", context).out == "", "standard output is the tar"
    ran = pybuild("-q", "--target", "fail", "--iidfile", str(iid), context)
    assert (ran.code, ran.out, ran.err) == (1, "", "error: RUN exited with 3\n")
    assert not iid.exists(), "an old id must not pass for this build's"


def test_metadata_as_buildx_writes_it(
    pybuild: Pybuild,
    requests: list[BuildRequest],
    context: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the steps ran in is there too (S97)."""
    path = tmp_path / "metadata.json"
    pybuild.ok("-q", "-t", "x", "--metadata-file", str(path), context)
    assert list(json.loads(path.read_text())) == [
        "buildx.build.ref", "containerimage.config.digest", "containerimage.descriptor",
        "containerimage.digest", "image.name", "pybuild.isolation",
    ]  # fmt: skip
    assert json.loads(path.read_text())["pybuild.isolation"]["rung"] in (1, 2, 3, 4, 5)
    monkeypatch.setenv("BUILDX_METADATA_WARNINGS", "true")
    pybuild.ok("-q", "-t", "x", "--label", "warn", "--metadata-file", str(path), context)
    (warning,) = json.loads(path.read_text())["buildx.build.warnings"]
    assert b64decode(warning["short"]) == b"Rule: it is broken (line 3)" and warning["level"] == 1
    assert warning["range"] == [{"start": {"line": 3}, "end": {"line": 3}}]
    assert warning["sourceInfo"] == {"filename": "Dockerfile"}
    assert [b64decode(line) for line in warning["detail"]] == [b">>> a", b"    b"]


def test_metadata_of_several(tmp_path: Path) -> None:
    one, two = Built(ID, MANIFEST, ("a",), ref="r"), Built(MANIFEST.digest, INDEX, ("b",), ref="r")
    found = metadata(Built(ID, MANIFEST, targets={"first": one, "second": two}))
    assert list(found) == ["first", "second"] and found["first"] == metadata(one)
    assert "containerimage.config.digest" not in metadata(two), "an index has no config"


def test_the_platform_of_the_environment(
    pybuild: Pybuild, requests: list[BuildRequest], context: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "linux/arm64")
    pybuild.ok(context)
    pybuild.ok("--platform", "linux/amd64,local", "--platform", "linux/s390x", context)
    assert [each.platforms for each in requests] == [
        ("linux/arm64",),
        ("linux/amd64", "local", "linux/s390x"),
    ]


def test_one_file_for_one_id(
    pybuild: Pybuild, requests: list[BuildRequest], context: str, tmp_path: Path
) -> None:
    ran = pybuild("-t", "a=x", "-t", "b=y", "--iidfile", str(tmp_path / "iid"), context)
    assert ran.code == 2 and "--metadata-file has them all" in ran.err and not requests


def test_rawjson_goes_to_standard_error(pybuild: Pybuild, requests: list[BuildRequest], context: str) -> None:
    ran = pybuild("--progress", "rawjson", "-t", "x", context)
    assert [json.loads(line)["type"] for line in ran.err.splitlines()] == ["step-started", "step-done"]


def test_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    assert values.clock(None, {}, ".") == 1
    assert values.clock(None, {"SOURCE_DATE_EPOCH": "2"}, ".") == 2
    assert values.clock("3", {"SOURCE_DATE_EPOCH": "2"}, ".") == 3
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "")
    assert values.clock(None, {}, ".") is None
    arguments: dict[str, str] = {}
    assert values.clock("context", arguments, ".") is None and arguments == {"SOURCE_DATE_EPOCH": "context"}
    for wrong in ("-1", "1.5", "x", "999999999999"):
        with pytest.raises(UsageError):
            values.clock(wrong, {}, ".")


def test_the_commits_time_without_anybodys_settings(tmp_path: Path) -> None:
    def git(*args: str) -> None:
        environment = {
            "PATH": os.environ["PATH"], "GIT_COMMITTER_DATE": "1600000000 +0200", "HOME": str(tmp_path),
            "GIT_AUTHOR_DATE": "1500000000 +0000",
        }  # fmt: skip
        command = ["git", "-c", "user.name=committer > 5 +0000", "-c", "user.email=e@example.org", *args]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)

    git("init")
    git("commit", "--allow-empty", "-m", "subject\n\ncommitter x <y> 99 +0000")
    marker = tmp_path / "ran"
    git("config", "core.pager", f"touch {marker}")
    git("config", "core.fsmonitor", f"touch {marker}")
    (tmp_path / "below").mkdir()
    assert commit_time(str(tmp_path)) == commit_time(str(tmp_path / "below")) == 1_600_000_000
    assert not marker.exists()
    with pytest.raises(ContextError, match="no commit"):
        commit_time("/")


@pytest.mark.parametrize(
    ("written", "count"),
    [("64m", 64 << 20), ("1G", 1 << 30), ("512", 512), ("1.5k", 1536), ("2gb", 2 << 30), ("8KiB", 8192)],
)
def test_sizes(written: str, count: int) -> None:
    assert values.size("--shm-size", written) == count


def test_named_contexts_of_platforms() -> None:
    texts = ("a=.", "a::arm64=b", "x/y:1::linux/arm64/v8=c", "u=https://h/r.git#a::b")
    assert values.contexts(texts) == {
        "a": ".",
        "a::linux/arm64": "b",
        "x/y:1::linux/arm64": "c",
        "u": "https://h/r.git#a::b",
    }
    for text in ("a::=b", "a::linux/no/such/thing=b", "a"):
        with pytest.raises(UsageError, match="--build-context"):
            values.contexts((text,))

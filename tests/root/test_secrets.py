"""Secrets reach the step that mounts them and nothing else: no layer, record, log, event or message."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from naps import until

from builder.errors import BuildError, StepFailed, UsageError
from builder.secrets import MOST_BYTES, Secret, Secrets

if TYPE_CHECKING:
    from conftest import Workshop

pytestmark = pytest.mark.root

CANARY = f"canary-{os.urandom(8).hex()}-of-a-secret".encode()
GIVEN = (Secret("s", value=CANARY),)


def assert_nowhere(shop: Workshop, *more: str) -> None:
    """The canary stands in no file of the store (layers unpacked too), no file of `more`, and no event."""
    seen = 0
    for top in (shop.root, *more):
        for folder, _, names in os.walk(top):
            for name in names:
                path = os.path.join(folder, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    with open(path, "rb") as file:
                        content = file.read()
                    seen += 1
                    assert CANARY not in content, path
                    if content[:2] == b"\x1f\x8b":
                        assert CANARY not in gzip.decompress(content), path
    assert seen > 3
    assert CANARY.decode() not in repr(shop.events)


def test_the_search_finds_what_is_there(shop: Workshop) -> None:
    """SECURITY.md S62."""
    shop.build("FROM base\nRUN --mount=type=secret,id=s cp /run/secrets/s /leaked\n", secrets=GIVEN)
    with pytest.raises(AssertionError, match=r"/(snapshots|blobs)/"):
        assert_nowhere(shop)


def test_a_secret_is_a_file_in_memory_and_a_variable(shop: Workshop) -> None:
    """SECURITY.md S62."""
    built = shop.build(
        "FROM base\nWORKDIR /w\n"
        "RUN --mount=type=secret,id=s --mount=type=secret,target=here/s,uid=3,gid=4,mode=0440 "
        "--mount=type=secret,id=s,env=TOKEN --mount=type=secret,id=s,env=BOTH,target=/both "
        "stat -c '%n %a %u %g %s' /run/secrets/s here/s /both; stat -f -c %T /run/secrets/s /both; "
        'test "$TOKEN" = "$(cat /run/secrets/s)" && test "$BOTH" = "$(cat here/s)" && ls /run/secrets; '
        "echo x > /both || true\n"
        "RUN ls -A / && env\n",
        secrets=GIVEN,
        outputs=shop.tar(),
    )
    size = len(CANARY)
    shown = shop.output()
    assert f"/run/secrets/s 400 0 0 {size}\nhere/s 440 3 4 {size}\n/both 400 0 0 {size}\n" in shown
    assert "tmpfs\ntmpfs\ns\n" in shown and "Read-only" in shown and "TOKEN" not in shown
    assert not {"run", "both", "w/here"} & set(shop.files(built)), "no mount point stays"
    assert_nowhere(shop, str(shop.exported.parent))


def test_a_secrets_value_is_in_no_key(shop: Workshop) -> None:
    """SECURITY.md S62."""
    dockerfile = "FROM base\nRUN --mount=type=secret,id=s,required true && touch /x\n"
    first = shop.build(dockerfile, secrets=GIVEN)
    assert shop.build(dockerfile, secrets=(Secret("s", value=b"other"),)).image_id == first.image_id
    assert shop.ran() == []
    shop.build(dockerfile.replace(",required", ""), secrets=GIVEN)
    assert len(shop.ran()) == 1, "how it is mounted is"


def test_what_is_not_given(shop: Workshop) -> None:
    shop.build("FROM base\nRUN --mount=type=secret,id=s --mount=type=secret,id=t,env=T ls /run; env\n")
    assert "secrets" not in shop.output() and "T=" not in shop.output()
    with pytest.raises(UsageError, match="'s' is required") as caught:
        shop.build("FROM base\nRUN --mount=type=secret,id=s,required true\n")
    assert "--secret id=s" in caught.value.hint and caught.value.at and caught.value.at.first == 2


def test_a_failed_step_leaves_nothing(shop: Workshop) -> None:
    """SECURITY.md S62."""
    with pytest.raises(StepFailed) as caught:
        shop.build(
            "FROM base\nRUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S "
            'test -n "$S" && cat /run/secrets/s > /dev/null && exit 3\n',
            secrets=GIVEN,
        )
    assert caught.value.status == 3 and CANARY.decode() not in repr(caught.value) + str(caught.value.log)
    assert_nowhere(shop)


def test_a_secret_that_cannot_be_a_variable_is_not_in_the_message(shop: Workshop) -> None:
    with pytest.raises(BuildError) as caught:
        shop.build(
            "FROM base\nRUN --mount=type=secret,id=s,env=S true\n",
            secrets=(Secret("s", value=CANARY + b"\0"),),
        )
    said = f"{caught.value} {caught.value.hint}"
    assert "NUL" in said and CANARY.decode() not in said
    assert_nowhere(shop)


def test_a_step_that_cannot_start_says_nothing_of_the_secret(shop: Workshop) -> None:
    with pytest.raises(BuildError) as caught:
        shop.build('FROM base\nRUN --mount=type=secret,id=s,env=S ["/nothing"]\n', secrets=GIVEN)
    assert CANARY.decode() not in f"{caught.value} {caught.value.hint} {caught.value.log}"


def test_a_bad_mount_point_says_nothing_of_the_secret(shop: Workshop) -> None:
    with pytest.raises(BuildError, match="/proc") as caught:
        shop.build("FROM base\nRUN --mount=type=secret,id=s,target=/proc/x true\n", secrets=GIVEN)
    assert CANARY.decode() not in f"{caught.value} {caught.value.hint}"
    assert_nowhere(shop)


@pytest.mark.parametrize(
    "before", ["mkdir -p /run/secrets && touch /run/secrets/mine", "ln -s /tmp /run", "true"]
)
def test_what_the_image_has_at_the_mount_point_stays_as_it_is(shop: Workshop, before: str) -> None:
    """SECURITY.md S65."""
    built = shop.build(
        f"FROM base\nRUN mkdir /tmp && {before}\nRUN --mount=type=secret,id=s wc -c /run/secrets/s\n",
        secrets=GIVEN,
    )
    image = shop.image(built)
    assert [each.empty_layer for each in image.config.value.history][-1], "the step changed nothing"
    assert_nowhere(shop)


def command(shop: Workshop, dockerfile: str, *more: str) -> subprocess.Popen[bytes]:
    shop.write("Dockerfile", dockerfile)
    secret = os.path.join(shop.context.parent, "secret")
    with open(secret, "wb") as file:
        file.write(CANARY)
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "builder.cli.main", "-D", "--root", shop.root, "build", "--network=none"),
            *("--secret", f"id=s,src={secret}", "--secret", "id=e,env=CANARY", *more, str(shop.context)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "CANARY": CANARY.decode()},
    )


USES = "--mount=type=secret,id=s --mount=type=secret,id=e,env=E"


def test_no_output_of_the_command_shows_a_secret(shop: Workshop, tmp_path: Path) -> None:
    """SECURITY.md S66."""
    out = tmp_path / "out"
    out.mkdir()
    for progress in ("plain", "rawjson"):
        run = command(
            shop,
            f'FROM base\nRUN {USES} test -n "$E" && cat /run/secrets/s > /dev/null && touch /{progress}\n',
            *("-t", "x", f"--metadata-file={out}/meta", f"--iidfile={out}/iid", f"--progress={progress}"),
            *("-o", f"type=oci,dest={out}/image.tar", "-o", f"type=local,dest={out}/files"),
        )
        stdout, stderr = run.communicate()
        assert run.returncode == 0, stderr
        assert CANARY not in stdout + stderr
    assert json.loads((out / "meta").read_text())
    assert_nowhere(shop, str(out))
    for words in (["history", "--no-trunc", "x"], ["inspect", "x"]):
        shown = subprocess.run(
            [sys.executable, "-m", "builder.cli.main", "--root", shop.root, *words],
            capture_output=True,
            check=True,
        )
        assert shown.stdout and CANARY not in shown.stdout + shown.stderr


def test_a_killed_builder_leaves_nothing(shop: Workshop) -> None:
    """SECURITY.md S62."""
    begun = (
        f'FROM base\nRUN {USES} --mount=type=cache,target=/c test -n "$E" && touch /c/begun /x && sleep 60\n'
    )
    run = command(shop, begun)
    until(lambda: any("begun" in names for _, _, names in os.walk(os.path.join(shop.root, "caches"))))
    steps = holders()
    run.kill()
    stdout, stderr = run.communicate()
    assert CANARY not in stdout + stderr
    assert steps, "the step has it"
    until(lambda: not holders())
    assert_nowhere(shop)


def holders() -> list[str]:
    """Processes other than this one and the builder whose environment holds the canary."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                variables = file.read().split(b"\0")
        except OSError:
            continue
        if b"E=" + CANARY in variables:
            found.append(pid)
    return found


# ---- where values come from ----


def test_files_are_checked_before_anything_is_built(shop: Workshop, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(CANARY + bytes(MOST_BYTES))
    for path, said in [
        ("/nonexistent", "No such file"),
        (str(tmp_path), "directory"),
        (str(large), "larger"),
    ]:
        with pytest.raises(UsageError, match=said) as caught:
            shop.build("FROM nothing-like-it\n", secrets=(Secret("s", path=path),))
        assert CANARY.decode() not in str(caught.value)
    with pytest.raises(UsageError, match="larger"):
        Secrets([Secret("s", value=bytes(MOST_BYTES + 1))])


def test_a_pipe_is_read_once_and_when_it_is_wanted(tmp_path: Path) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    secrets = Secrets([Secret("s", path=pipe), Secret("gone", path=pipe), Secret("gone", value=b"later one")])
    writer = threading.Thread(target=lambda: Path(pipe).write_bytes(CANARY))
    writer.start()
    found: list[Any] = [secrets.value("s"), secrets.value("s")]
    writer.join()
    assert found == [CANARY, CANARY]
    assert secrets.value("gone") == b"later one" and secrets.value("none") is None


def test_a_secret_is_not_shown_when_it_is_printed() -> None:
    assert CANARY.decode() not in repr(GIVEN)


def test_a_value_that_counts_runs_its_steps_again_and_is_nowhere(shop: Workshop) -> None:
    """`--secret ...,cache-key=hash` (D25): neither the value nor a plain hash of it is in the store."""
    from hashlib import md5, sha1, sha256

    dockerfile = (
        "FROM base\nRUN --mount=type=secret,id=s true\nRUN --mount=type=secret,id=t true\nRUN touch /x\n"
    )
    counted = (Secret("s", value=CANARY, counts=True), Secret("t", value=b"t"))
    shop.build(dockerfile, secrets=counted)
    assert len(shop.ran()) == 3
    shop.build(dockerfile, secrets=counted)
    assert shop.ran() == []
    shop.build(dockerfile, secrets=(Secret("s", value=b"other", counts=True), Secret("t", value=b"u")))
    assert len(shop.ran()) == 3, "and what stands on it"
    shop.build(dockerfile, secrets=counted)
    assert shop.ran() == [], "the first value is still known"
    shop.build(dockerfile.replace("touch /x", "touch /y"), secrets=(*counted[:1], Secret("t", value=b"v")))
    assert shop.ran() == ["RUN touch /y"]
    assert_nowhere(shop)
    hashes = [make(CANARY).digest() for make in (md5, sha1, sha256)]
    for folder, _, names in os.walk(shop.root):
        for path in (Path(folder, name) for name in names):
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            for each in hashes:
                assert each not in content and each.hex().encode() not in content, path


def test_the_key_of_marks(shop: Workshop, tmp_path: Path) -> None:
    dockerfile = "FROM base\nRUN --mount=type=secret,id=s true\n"
    key = Path(shop.root, "secret-marks.key")
    shop.build(dockerfile, secrets=GIVEN)
    assert not key.exists(), "nobody asked for it"
    counted = (Secret("s", value=CANARY, counts=True),)
    shop.build(dockerfile, secrets=counted)
    assert shop.ran() != [] and key.stat().st_mode & 0o7777 == 0o600 and len(key.read_bytes()) == 32
    key.write_bytes(b"short")
    shop.build(dockerfile, secrets=counted)
    assert shop.ran() != [] and len(key.read_bytes()) == 32, "another key, other marks"
    shop.build(dockerfile, secrets=counted)
    assert shop.ran() == []
    shop.build(dockerfile)
    assert shop.ran() == [], "one that is not given is as it always was: nothing counts"


def test_a_value_that_counts_beside_a_part_of_another_stage(shop: Workshop) -> None:
    dockerfile = (
        "FROM base AS one\nRUN mkdir /d; echo 1 > /d/f\nFROM base\n"
        "RUN --mount=from=one,source=/d,target=/d --mount=type=secret,id=s,env=S true\n"
    )
    for value, ran in ((b"a", 2), (b"b", 1), (b"a", 0)):
        shop.build(dockerfile, secrets=(Secret("s", value=value, counts=True),))
        assert len(shop.ran()) == ran, value

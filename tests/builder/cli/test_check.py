"""`--check` and `--call`: what people read, what programs read, and the exit code. No store is made."""

from __future__ import annotations

import io
import json
import os
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_registry import Registry, serving

from builder.cli.check import Call
from builder.cli.progress_plain import Plain
from builder.cli.progress_tty import View
from builder.errors import UsageError
from builder.events import StepStarted, Warning_
from oci.image import Image
from oci.model import ImageConfig, RunConfig
from oci.platforms import host

Pybuild = Any
DOCKERFILE = """\
# VERSION of the tool
ARG VERSION=1
# build it
FROM missing:$VERSION AS build
RUN --mount=type=cache,target=/c --mount=type=secret,id=s,required=true --mount=type=ssh x
FROM scratch as Final
CMD x
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM scratch as final\nCMD x\n")
    (tmp_path / ".dockerignore").write_text("secret\n")
    return tmp_path


def test_findings_with_their_lines(pybuild: Pybuild, context: Path) -> None:
    ran = pybuild("build", "--check", str(context))
    assert (ran.code, ran.err) == (1, "")
    assert ran.out == (
        "Check complete, 2 warnings have been found!\n"
        "\n"
        "WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/\n"
        "'as' and 'FROM' keywords' casing do not match\n"
        "Dockerfile:1\n"
        "--------------------\n"
        "1 | >>> FROM scratch as final\n"
        "2 |     CMD x\n"
        "3 |\n"
        "--------------------\n"
        "\n"
        "WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/\n"
        "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals\n"
        "Dockerfile:2\n"
        "--------------------\n"
        "1 |     FROM scratch as final\n"
        "2 | >>> CMD x\n"
        "3 |\n"
        "--------------------\n"
    )
    assert not os.path.exists(pybuild.root), "a check makes no store"


def test_nothing_found_and_one_found(pybuild: Pybuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY a b\n")
    ran = pybuild("--check", str(context))
    assert (ran.code, ran.out, ran.err) == (0, "Check complete, no warnings found.\n", "")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY secret b\n")
    ran = pybuild("--call=check", str(context))
    assert ran.code == 1 and ran.out.startswith(
        "Check complete, 1 warning has been found!\n\nWARNING: CopyIgnoredFile"
    )
    assert pybuild("--call", "check,ignorestatus=true", str(context)).code == 0


def test_a_base_that_is_not_here_is_noted(pybuild: Pybuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM missing\nCOPY $x b\n")
    ran = pybuild("build", "--check", "--offline", str(context))
    assert (ran.code, ran.out) == (0, "Check complete, no warnings found.\n")
    assert (
        ran.err.startswith("note: the base docker.io/library/missing:latest is not here")
        and "UndefinedVar" in ran.err
    )


def serve(registry: Registry, name: str, config: ImageConfig) -> str:
    """An image without layers in a registry; its whole name."""
    image = Image.of(config)
    for part in (image.manifest, image.config):
        registry.blobs[name, str(part.digest)] = part.content
    digest = str(image.manifest.digest)
    registry.manifests[name, digest] = (image.descriptor.media_type, image.manifest.content)
    registry.tags[name, "1"] = digest
    return f"{registry.address}/{name}:1"


def test_a_base_of_a_registry_is_looked_at_and_not_kept(pybuild: Pybuild, context: Path) -> None:
    with serving(Registry()) as registry:
        config = ImageConfig(replace(host(), architecture="riscv64"), RunConfig(env=("KNOWN=1",)))
        name = serve(registry, "team/base", config)
        (context / "Dockerfile").write_text(f"FROM {name}\nCOPY $KNOWN $KNWON b/\n")
        ran = pybuild("--check", str(context))
        assert (ran.code, ran.err) == (1, "")
        assert "Usage of undefined variable '$KNWON' (did you mean $KNOWN?)" in ran.out
        assert "InvalidBaseImagePlatform" in ran.out and "2 warnings have been found" in ran.out
        assert not os.path.exists(pybuild.root), "and no store is made"
        asked = len(registry.seen)
        assert (
            pybuild("build", "--check", "--offline", str(context)).code == 0 and len(registry.seen) == asked
        )
        pybuild.ok("images")
        assert pybuild("--check", str(context)).code == 1
        assert pybuild.ok("images", "-q") == "", "a check names nothing"
    ran = pybuild("--check", str(context))
    assert ran.code == 0 and f"note: the base {name} is not here" in ran.err


def test_a_registry_that_is_out_of_reach_is_asked_once(pybuild: Pybuild, context: Path) -> None:
    def refuse(handler: Any) -> bool:
        handler.send(503)
        return True

    with serving(Registry(hooks=[refuse])) as registry:
        bases = "".join(f"FROM {registry.address}/base:{number}\n" for number in range(5))
        (context / "Dockerfile").write_text(bases)
        ran = pybuild("--check", str(context))
        assert ran.code == 0 and ran.err.count("is not here") == 5
        assert {seen.path for seen in registry.seen if "/base/" in seen.path} <= {"/v2/base/manifests/0"}
        assert registry.seen


def test_a_named_context_that_is_not_here_is_like_a_base(pybuild: Pybuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM other\n")
    args = ("build", "--check", "--offline", "--build-context", "other=docker-image://missing", str(context))
    assert pybuild(*args).code == 0
    assert pybuild("--check", "--build-context", "other=/nonexistent", str(context)).code == 2


def test_a_file_that_cannot_be_built_is_an_error_after_the_findings(pybuild: Pybuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch as a\nEXPOSE x\n")
    ran = pybuild("--check", str(context))
    assert ran.code == 2 and "1 warning has been found" in ran.out
    assert ran.err.startswith("Dockerfile:2: EXPOSE x: `x` is no port\n")
    ran = pybuild("--call=check,format=json", str(context))
    document = json.loads(ran.out)
    assert (ran.code, ran.err) == (2, "")
    assert document["buildError"] == {
        "message": "EXPOSE x: `x` is no port",
        "location": {"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]},
    }


def test_findings_as_json(pybuild: Pybuild, context: Path) -> None:
    ran = pybuild("--check", "--call=check,format=json", str(context))
    document = json.loads(ran.out)
    assert (ran.code, list(document)) == (1, ["warnings", "sources"])
    assert document["warnings"][0] == {
        "ruleName": "FromAsCasing",
        "description": "The 'as' keyword should match the case of the 'from' keyword",
        "url": "https://docs.docker.com/go/dockerfile/rule/from-as-casing/",
        "detail": "'as' and 'FROM' keywords' casing do not match",
        "location": {"ranges": [{"start": {"line": 1}, "end": {"line": 1}}]},
    }
    (source,) = document["sources"]
    assert (source["filename"], source["language"]) == ("Dockerfile", "Dockerfile")
    assert b64decode(source["data"]) == b"FROM scratch as final\nCMD x\n"


def test_the_outline(pybuild: Pybuild, context: Path) -> None:
    (context / "Dockerfile").write_text(DOCKERFILE)
    ran = pybuild("--call=outline", "--target", "build", "--build-arg", "VERSION=2", str(context))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        "TARGET:      build\n"
        "DESCRIPTION: it\n"
        "\n"
        "BUILD ARG   VALUE     DESCRIPTION\n"
        "VERSION     2         of the tool\n"
        "\n"
        "SECRET    REQUIRED\n"
        "s         true\n"
        "\n"
        "SSH       REQUIRED\n"
        "default\n"
        "\n"
        "CACHE\n"
        "/c\n"
    )
    document = json.loads(pybuild.ok("--call=outline,format=json", "--target", "build", str(context)))
    line = {"ranges": [{"start": {"line": 5}, "end": {"line": 5}}]}
    assert document["args"] == [
        {
            "name": "VERSION",
            "description": "of the tool",
            "value": "1",
            "location": {"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]},
        }
    ]
    assert document["secrets"] == [{"name": "s", "required": True, "location": line}]
    assert document["ssh"] == [{"name": "default", "location": line}]
    assert document["cache"] == [{"ID": "/c", "location": line}]
    assert (document["name"], document["description"]) == ("build", "it")
    assert [b64decode(each).decode() for each in document["sources"]] == [DOCKERFILE]


def test_the_targets(pybuild: Pybuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\n" + DOCKERFILE)
    ran = pybuild("--call=targets", str(context))
    assert ran.out == "TARGET            DESCRIPTION\n0\nbuild             it\nfinal (default)\n"
    (context / "Dockerfile").write_text(DOCKERFILE)
    document = json.loads(pybuild.ok("--call=targets,format=json", str(context)))
    assert list(document) == ["targets", "sources"]
    assert document["targets"] == [
        {
            "name": "build",
            "description": "it",
            "base": "missing:$VERSION",
            "location": {"ranges": [{"start": {"line": 4}, "end": {"line": 4}}]},
        },
        {
            "name": "final",
            "default": True,
            "base": "scratch",
            "location": {"ranges": [{"start": {"line": 6}, "end": {"line": 6}}]},
        },
    ]


def test_what_can_be_asked(pybuild: Pybuild, context: Path) -> None:
    text = pybuild.ok("--call=subrequests.describe", str(context))
    assert text.split("\n")[0] == "NAME                   VERSION   DESCRIPTION"
    document = json.loads(pybuild.ok("--call=subrequests.describe,format=json", str(context)))
    assert [(each["name"], each["version"], each["type"]) for each in document] == [
        (f"frontend.{name}", "1.0.0", "rpc")
        for name in ("lint", "outline", "targets", "subrequests.describe")
    ]
    assert all(f"{each['name'].removeprefix('frontend.')} " in text for each in document)


CALLS = [
    ("build", Call()),
    ("lint", Call("check")),
    ("check,format=json", Call("check", json=True)),
    ("outline,format=text", Call("outline")),
    ("check,ignorestatus=true", Call("check", ignore_status=True)),
    ("check,ignorestatus", Call("check", ignore_status=True)),
]


@pytest.mark.parametrize(("text", "call"), CALLS)
def test_calls(text: str, call: Call) -> None:
    assert Call.parse(text) == call


@pytest.mark.parametrize("text", ["checks", "check,json", "check,format=xml", "outline,a=b"])
def test_calls_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=f"--call={text.partition(',')[0]}"):
        Call.parse(text)


def test_standard_input(pybuild: Pybuild, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(b"FROM scratch as a\n")

    monkeypatch.setattr("sys.stdin", Stdin)
    ran = pybuild("--check", "-")
    assert ran.code == 1 and "Dockerfile:1" in ran.out


def test_lint_is_the_check(pybuild: Pybuild, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch as a\n")
    ran = pybuild("lint", str(tmp_path))
    assert ran.code == 1 and "FromAsCasing" in ran.out


def test_the_views_show_a_warning_once_with_its_lines() -> None:
    warning = Warning_("Code", "what is wrong", "Dockerfile:2", "1 |     FROM a\n2 | >>> \x1b[2Jx")
    out = io.BytesIO()
    Plain(out).emit(warning)
    shown = "warning: Code: what is wrong (Dockerfile:2)\n   1 |     FROM a\n   2 | >>> \\x1b[2Jx\n"
    assert out.getvalue().decode() == shown
    view, screen = View(), Console(file=io.StringIO(), width=60, height=20)
    view.emit(warning)
    view.emit(StepStarted("a", 1, "[1/1] RUN x", 0.0))
    screen.print(view)
    assert ">>>" not in screen.file.getvalue(), "the steps need the screen while they run"
    view.finish()
    screen.print(view)
    drawn = screen.file.getvalue()
    assert drawn.count(">>>") == 1 and "\x1b[2J" not in drawn and "WARN Code: what is wrong" in drawn

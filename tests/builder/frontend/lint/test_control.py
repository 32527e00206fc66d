"""Which checks count, in a build and under `--check`, and what `# syntax=` does: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.errors import ContextError, DockerfileError, UsageError
from builder.frontend.check import check
from builder.frontend.lint.linter import MAX_FINDINGS
from builder.frontend.lint.nearest import nearest
from builder.frontend.lint.settings import Settings
from builder.frontend.reader import decode

Checker = Any
ARG = "BUILDKIT_DOCKERFILE_CHECK"
TWO = "FROM a AS Up\nCMD x\n"
"""StageNameCasing and JSONArgsRecommended."""
TELLS = ["StageNameCasing", "JSONArgsRecommended"]

SETTINGS = [
    ("", Settings()),
    (" skip = A , B ; error = T ", Settings(frozenset("AB"), frozenset(), True)),
    ("skip=all;experimental=A;error=false", Settings(frozenset({"all"}), frozenset("A"), False)),
    ("error=1", Settings(error=True)),
    ("skip=", Settings()),
]


@pytest.mark.parametrize(("text", "settings"), SETTINGS)
def test_settings(text: str, settings: Settings) -> None:
    assert Settings.parse(text) == settings


@pytest.mark.parametrize(
    "text", ["x", "skip", "error=yes", "error=", "Skip=A", "skip=A;", "skip=A,error=true;b=c"]
)
def test_settings_that_cannot_be_read(checker: Checker, text: str) -> None:
    with pytest.raises(DockerfileError, match="cannot be read") as caught:
        checker.plan(f"# check={text}\nFROM a\n")
    assert caught.value.at.first == 1 and "skip, error, experimental" in caught.value.hint
    with pytest.raises(DockerfileError, match=f"{ARG}="):
        checker.plan("FROM a", build_args={ARG: text})


DIRECTIVES = [
    ("", TELLS),
    ("# check=skip=all\n", []),
    ("# check=skip=StageNameCasing\n", TELLS[1:]),
    ("# syntax=docker/dockerfile:1\n# check=skip=JSONArgsRecommended, StageNameCasing\n", []),
    ("# check=skip=stagenamecasing\n", TELLS),
    ("# check=skip=NewerRule\n", TELLS),
    ("\n# check=skip=all\n", TELLS),
]


@pytest.mark.parametrize(("directive", "told"), DIRECTIVES)
def test_the_directive(checker: Checker, directive: str, told: list[str]) -> None:
    assert [rule for rule, _, _ in checker(directive + TWO)] == told
    checker.plan(directive + TWO)
    assert [each.code for each in checker.said] == told


def test_the_build_argument_takes_the_directives_place(checker: Checker) -> None:
    text = "# check=skip=StageNameCasing;error=true\n" + TWO
    checker.plan(text, build_args={ARG: "skip=JSONArgsRecommended"})
    assert [each.code for each in checker.said] == ["StageNameCasing"]


def test_findings_are_errors_where_that_was_asked(checker: Checker) -> None:
    with pytest.raises(DockerfileError) as caught:
        checker.plan("# check=error=true\n" + TWO)
    assert str(caught.value) == (
        "lint violation found for rules: StageNameCasing (line 2), JSONArgsRecommended (line 3)"
    )
    assert caught.value.exit_code == 2 and caught.value.at.first == 2 and "skip=" in caught.value.hint
    assert [each.code for each in checker.said] == TELLS, "and each is told before"
    checker.plan("# check=error=true\nFROM a\n")


def test_experimental_rules_speak_when_asked_for(checker: Checker) -> None:
    text = "# c\nFROM a AS b\n"
    for value, told in [
        ("", []),
        ("experimental=all", ["InvalidDefinitionDescription"]),
        ("experimental=InvalidDefinitionDescription;skip=all", ["InvalidDefinitionDescription"]),
        ("experimental=all;skip=InvalidDefinitionDescription", []),
    ]:
        checker.plan(text, build_args={ARG: value})
        assert [each.code for each in checker.said] == told


def test_all_means_our_own_rules_only_under_check(checker: Checker) -> None:
    text = "FROM a:latest\n"
    checker.plan(text, build_args={ARG: "experimental=all"})
    assert not checker.said
    checker.plan(text, build_args={ARG: "experimental=UnpinnedBase"})
    assert [each.code for each in checker.said] == ["UnpinnedBase"]
    assert [rule for rule, _, _ in checker(text, build_args={ARG: "experimental=all"})] == ["UnpinnedBase"]


def test_a_build_checks_the_stages_it_needs_and_a_check_all_of_them(checker: Checker) -> None:
    text = "FROM a AS b\nCMD x\nFROM a AS c\nCMD y\nFROM a AS d\nCMD z\nFROM c\n"
    checker.plan(text)
    assert [each.at for each in checker.said] == ["Dockerfile:4"]
    assert [line for _, _, line in checker(text)] == [2, 4, 6]
    assert [line for _, _, line in checker(text, target="b")] == [2]


def test_what_the_text_shows_is_told_of_every_stage(checker: Checker) -> None:
    checker.plan("FROM a AS Bb\nFROM a\n")
    assert [(each.code, each.at) for each in checker.said] == [("StageNameCasing", "Dockerfile:1")]
    assert checker.said[0].excerpt == "1 | >>> FROM a AS Bb\n2 |     FROM a\n3 |"


def test_each_finding_is_told_once(checker: Checker) -> None:
    text = "FROM a AS b\nCOPY $x ${x} /\nCMD y\nFROM b AS c\nFROM b\nCOPY --from=c x y\n"
    checker.plan(text)
    assert [(each.code, each.at) for each in checker.said] == [
        ("UndefinedVar", "Dockerfile:2"),
        ("JSONArgsRecommended", "Dockerfile:3"),
    ]


def test_one_rule_does_not_go_on_without_end(checker: Checker) -> None:
    assert len(checker("FROM a\n" + "COPY $some /\n" * 300)) == MAX_FINDINGS


def test_warnings_come_before_the_error_they_explain(checker: Checker) -> None:
    with pytest.raises(DockerfileError, match="empty once"):
        checker.plan("ARG BASE=a\nFROM $BAES\n")
    assert [each.code for each in checker.said] == ["UndefinedArgInFrom", "InvalidDefaultArgInFrom"]


def test_a_check_tells_what_stops_the_build_and_what_it_found_before(checker: Checker) -> None:
    report = checker.report("FROM a AS Bb\nEXPOSE x\nCMD y\n")
    assert str(report.error) == "EXPOSE x: `x` is no port" and report.error.at.first == 2
    assert [each.rule.name for each in report.findings] == TELLS
    assert checker.report("FROM a\nFOO\n").error.at.first == 2
    with pytest.raises(UsageError, match="no stage"):
        checker.report("FROM a\n", target="b")


def test_an_ignore_file_that_cannot_be_read_is_an_error_like_any(checker: Checker) -> None:
    def broken() -> None:
        raise ContextError("no")

    source = decode(b"FROM a\nCOPY a b\n", "Dockerfile")
    assert str(check(source, replace(checker.options(), ignore=broken), checker.resolve).error) == "no"


def test_a_base_that_is_not_there_stops_no_check(checker: Checker) -> None:
    text = "FROM missing:1 AS b\nCMD x\nCOPY $x /\nFROM a\nCOPY $y /\nCOPY --from=missing:2 x y\n"
    report = checker.report(text)
    assert report.unknown == ("docker.io/library/missing:1", "docker.io/library/missing:2")
    assert [(each.rule.name, each.at.first) for each in report.findings] == [
        ("JSONArgsRecommended", 2),
        ("UndefinedVar", 5),
    ]


@pytest.mark.parametrize(
    ("directive", "args", "told"),
    [
        ("docker/dockerfile:1", {}, []),
        ("mirror.example/docker/dockerfile-upstream:master-labs", {}, []),
        ("example/other:1", {}, ["SyntaxNotUsed"]),
        ("example/other:1", {"BUILDKIT_SYNTAX": "dockerfile.v0"}, []),
    ],
)
def test_syntax_changes_nothing(
    checker: Checker, directive: str, args: dict[str, str], told: list[str]
) -> None:
    made = checker.plan(f"# syntax={directive}\nFROM a\nRUN x\n", build_args=args)
    assert [each.code for each in checker.said] == told
    assert made.target.digest == checker.plan("FROM a\nRUN x\n").target.digest


def test_syntax_cannot_download() -> None:
    code = (
        "import sys\n"
        "from builder.frontend.lower import PlanOptions, plan\n"
        "from builder.source import SourceFile\n"
        "from oci.image import Image\nfrom oci.model import ImageConfig, Platform\n"
        "host = Platform('linux', 'amd64')\n"
        "text = '# syntax=docker/dockerfile:1\\nFROM a\\nRUN x\\n'\n"
        "base = Image.of(ImageConfig(host))\n"
        "plan(SourceFile('Dockerfile', text), PlanOptions(host, host), lambda *_: base)\n"
        "print({'socket', 'ssl', 'requests', 'subprocess', 'http.client'} & set(sys.modules))\n"
    )
    root = Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env={"PATH": os.defpath}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_magic_build_arguments_are_known_and_shape_the_build(checker: Checker) -> None:
    names = "BUILDKIT_MULTI_PLATFORM BUILDKIT_INLINE_CACHE BUILDKIT_CONTEXT_KEEP_GIT_DIR BUILDKIT_SYNTAX "
    names += (
        "BUILDKIT_CACHE_MOUNT_NS BUILDKIT_BUILD_NAME BUILDKIT_SBOM_SCAN_CONTEXT SOURCE_DATE_EPOCH HTTP_PROXY"
    )
    checker.plan("FROM a\n", build_args=dict.fromkeys(names.split(), "1"))
    assert not checker.said
    made = checker.plan("FROM a\nRUN x\n", build_args={"BUILDKIT_SANDBOX_HOSTNAME": "here"})
    assert made.target.op.hostname == "here" and not checker.said
    assert checker.plan("FROM a\nRUN x\n").target.op.hostname == "buildkitsandbox"
    checker.plan("FROM a\n", build_args={"OTHER": "1"})
    assert [each.code for each in checker.said] == ["UnusedBuildArgs"]


NEAR = [
    ("VERSON", ["OTHER", "VERSION"], "VERSION"),
    ("PAHT", ["PATH"], "PATH"),
    ("version", ["VERSION"], ""),
    ("a", ["b"], ""),
    ("ab", ["cd", "ac"], "ac"),
    ("x" * 1000, ["x" * 999], ""),
]


@pytest.mark.parametrize(("word", "choices", "found"), NEAR)
def test_nearest(word: str, choices: list[str], found: str) -> None:
    assert nearest(word, choices) == found

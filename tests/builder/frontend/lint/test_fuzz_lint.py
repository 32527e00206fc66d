"""Any text has findings or a typed error, and soon; a check and a build find the same."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import BuildError
from builder.frontend.lint.registry import RULES

Checker = Any
EVERY = {"BUILDKIT_DOCKERFILE_CHECK": "experimental=" + ",".join(rule.name for rule in RULES)}
_PIECES = (
    *("FROM ", "from ", "ARG ", "ENV ", "LABEL ", "RUN ", "Run ", "COPY ", "ADD ", "WORKDIR ", "EXPOSE "),
    *("CMD ", "ENTRYPOINT ", "HEALTHCHECK CMD ", "ONBUILD ", "MAINTAINER ", "VOLUME ", "USER ", "SHELL "),
    *("STOPSIGNAL ", "a", "missing", "tool", "trigger", "scratch", " AS ", " as ", "Bb", "b", "$", "${", "}"),
    *(":-", "A", "TOKEN", "=", " ", "--platform=", "$TARGETPLATFORM", "linux/arm64", "--from=", "--chown="),
    *("--checksum=", "https://x/y", "\\", "`", "1/TCP", "1:2:3", "[", "]", '"', "'", ",", ".", "..", "/"),
    *("<<E", "\nE\n", "set -e", "apt-get install", "npm ci", "\n", "\n", "\n", "\\\n", "\\\n\n"),
    *("# A x\n", "# check=skip=all\n", "# escape=`\n", "\r\n", "é", "\x85", "\0"),
)  # fmt: skip
_TEXT = st.lists(st.sampled_from(_PIECES), max_size=30).map("".join)


@settings(max_examples=300, deadline=30_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_TEXT, st.booleans())
def test_any_text_is_checked(checker: Checker, text: str, with_from: bool) -> None:
    text = f"FROM a AS b\n{text}" if with_from else text
    report = checker.report(text, build_args=EVERY, ignore="*.md\n!x")
    for each in report.findings:
        event = each.warning()
        assert event.message and event.excerpt and 1 <= each.at.first <= each.at.last
    assert report.error is None or str(report.error)
    try:
        checker.plan(text, build_args=EVERY, ignore="*.md\n!x")
    except BuildError:
        return
    told = {(each.code, each.message, each.at) for each in checker.said}
    found = {(each.rule.name, each.message, str(each.at)) for each in report.findings}
    assert {each for each in told if each[0] not in ("UnusedBuildArgs", "LinkIsOrdinaryCopy")} <= found


def _filled(line: str) -> str:
    return "FROM a\n" + line * ((1 << 20) // len(line))


LARGE = {
    "findings": _filled("COPY $x /\n"),
    "commands": _filled("CMD x\n"),
    "stages that grow": "FROM a AS s0\n"
    + "".join(f"FROM s{n} AS s{n + 1}\nENV v{n}=1\n" for n in range(9_000)),
    "variables to suggest": "FROM a\n" + "".join(f"ENV a{n}=1\nUSER $b{n}\n" for n in range(9_000)),
    "comments": "FROM a\n" + "# c\n" * 200_000 + "ARG a\n" * 10_000,
    "growing variables": "FROM a\nENV a=xxxxxxxx\n" + "ENV a=$a$a\n" * 60,
    "a long script": "FROM a\nRUN <<E\n" + "apt-get -y \n" * 80_000 + "E\n",
    "a long command": "FROM a\nCOPY . .\nRUN " + "pip install " * 80_000,
    "set after set": "FROM a\nRUN <<E\n" + "set -x " * 150_000 + "\na\nE\n",
    "long secrets": "FROM a\nARG " + "key_" * 250_000,
}


@pytest.mark.parametrize("name", LARGE)
def test_a_megabyte_is_checked_soon(checker: Checker, name: str) -> None:
    start = time.process_time()
    checker.report(LARGE[name], build_args=EVERY)
    assert time.process_time() - start < 30

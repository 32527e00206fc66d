"""What a Dockerfile offers: targets, arguments, secrets, agents, caches, with their descriptions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builder.errors import DockerfileError, UsageError
from builder.frontend import outline as under_test
from builder.frontend.comments import above, description
from builder.frontend.lower import PlanOptions
from builder.frontend.outline import Outline, Parameter
from builder.frontend.reader import decode, read
from oci.model import Platform

AMD64 = Platform("linux", "amd64")
OPTIONS = PlanOptions(AMD64, AMD64)
TEXT = """\
# syntax=docker/dockerfile:1
# GO the toolchain
ARG GO=1.24
ARG UNUSED=1
ARG IMAGE=golang:$GO
ARG FLAGS=-v

# base is not for you
FROM scratch AS base
ARG IN_BASE=2
RUN --mount=type=secret,id=tok,required x

# build compiles
# everything
FROM ${IMAGE} AS Build
ARG FLAGS
# OUT where it goes
ARG OUT=/out/$FLAGS
RUN --mount=type=cache,target=/c --mount=type=cache,id=named,target=/d x
RUN --mount=type=ssh --mount=type=secret,target=/run/secrets/pip,required=false x
COPY --from=base a b

FROM alpine AS other
ARG NOT_BUILD=1
RUN --mount=type=ssh,id=late,required=true x

# x no name, no description
FROM --platform=$BUILDPLATFORM build
"""


def outline(target: str = "", **args: str) -> Outline:
    options = replace(OPTIONS, target=target, build_args=args)
    return under_test.outline(decode(TEXT.encode(), "Dockerfile"), options)


def shown(parameters: tuple[Parameter, ...]) -> list[tuple[str, int, str, str]]:
    return [(each.name, each.at.first, each.value, each.description) for each in parameters]


def test_the_arguments_a_target_uses_where_they_are_defined() -> None:
    found = outline("build")
    assert (found.name, found.description) == ("build", "compiles")
    assert shown(found.args) == [
        ("GO", 3, "1.24", "the toolchain"),
        ("IMAGE", 5, "golang:1.24", ""),
        ("FLAGS", 6, "-v", ""),
        ("IN_BASE", 10, "2", ""),
        ("OUT", 18, "/out/-v", "where it goes"),
    ]


def test_given_arguments_show_their_value() -> None:
    found = {each.name: each.value for each in outline("build", GO="1.25", OUT="/x", FLAGS="-w").args}
    assert found == {"GO": "1.25", "IMAGE": "golang:1.25", "FLAGS": "-w", "IN_BASE": "2", "OUT": "/x"}


def test_a_stages_own_default_goes_before_that_for_from() -> None:
    source = decode(b"ARG A=1\nFROM a$A\n# A mine\nARG A=2\n", "Dockerfile")
    assert shown(under_test.outline(source, OPTIONS).args) == [("A", 4, "2", "mine")]


def test_secrets_agents_and_caches() -> None:
    found = outline("build")
    assert [(each.name, each.required) for each in found.secrets] == [("tok", True), ("pip", False)]
    assert [(each.name, each.required) for each in found.ssh] == [("default", False)]
    assert [each.name for each in found.caches] == ["/c", "named"]


def test_the_default_target_is_the_last_and_only_what_it_needs_counts() -> None:
    found = outline()
    assert (found.name, found.description) == ("", "")
    assert "NOT_BUILD" not in [each.name for each in found.args]
    assert [each.name for each in outline("other").ssh] == ["late"]
    with pytest.raises(UsageError, match="no stage `nope`"):
        outline("nope")


def test_targets() -> None:
    found = under_test.targets(decode(TEXT.encode(), "Dockerfile"), OPTIONS)
    assert [(each.name, each.base, each.description, each.default, each.at.first) for each in found] == [
        ("base", "scratch", "is not for you", False, 9),
        ("build", "${IMAGE}", "compiles", False, 15),
        ("other", "alpine", "", False, 23),
        ("", "build", "", True, 28),
    ]
    assert found[3].platform == "$BUILDPLATFORM" and [each.index for each in found] == [0, 1, 2, 3]
    with pytest.raises(DockerfileError):
        under_test.targets(decode(b"FRM a", "Dockerfile"), OPTIONS)


def test_comments_are_those_right_above() -> None:
    document = read(decode(b"# escape=`\n# a b\n\n  #c d\n#  e \nFROM x AS c\nRUN y\n", "Dockerfile"))
    first, second = (line.at for line in document.lines)
    assert above(document, first) == ["c d", "e"] and above(document, second) == []
    assert description(document, first, "c") == "d"
    assert description(document, first, "e") == description(document, first, "") == ""
    directive = read(decode(b"# syntax=x y\nFROM a\n", "Dockerfile"))
    assert above(directive, directive.lines[0].at) == []

"""Every rule where it speaks and where it is silent. The examples of docs/checks are cases too."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.frontend.check import check
from builder.frontend.lint.registry import RULES
from builder.frontend.reader import decode

Checker = Any
CHECKS = Path(__file__).parents[4] / "docs" / "checks"
SETUPS = {"CopyIgnoredFile": ("dist\n", "dist\n!dist/app\n")}
"""The ignore files of the two examples."""
BUILDKIT = (
    "StageNameCasing FromAsCasing NoEmptyContinuation ConsistentInstructionCasing DuplicateStageName "
    "ReservedStageName JSONArgsRecommended MaintainerDeprecated UndefinedArgInFrom WorkdirRelativePath "
    "UndefinedVar MultipleInstructionsDisallowed LegacyKeyValueFormat InvalidBaseImagePlatform "
    "RedundantTargetPlatform SecretsUsedInArgOrEnv InvalidDefaultArgInFrom FromPlatformFlagConstDisallowed "
    "CopyIgnoredFile InvalidDefinitionDescription ExposeProtoCasing ExposeInvalidFormat"
)


def test_all_of_buildkits_rules_are_here_and_each_has_a_page() -> None:
    assert [rule.name for rule in RULES if not rule.ours] == BUILDKIT.split()
    assert [rule.name for rule in RULES if rule.experimental and not rule.ours] == [
        "InvalidDefinitionDescription"
    ]
    assert all(rule.experimental for rule in RULES if rule.ours)
    pages = {name.removesuffix(".md") for name in os.listdir(CHECKS)} - {"README"}
    assert pages == {rule.name for rule in RULES}
    index = (CHECKS / "README.md").read_text()
    assert re.findall(r"^\| \[(\w+)\]\(\1\.md\) \|", index, re.MULTILINE) == [rule.name for rule in RULES]


def test_a_rule_has_one_function_and_a_page_to_read() -> None:
    urls = {rule.name: rule.url for rule in RULES}
    assert urls["JSONArgsRecommended"] == "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
    assert urls["SecretsUsedInArgOrEnv"].endswith("/secrets-used-in-arg-or-env/")
    assert urls["AptListsKept"] == "docs/checks/AptListsKept.md"
    for rule in RULES:
        assert sum(each is not None for each in (rule.of_file, rule.of_line, rule.of_base)) == 1
        assert bool(rule.on) == (rule.of_line is not None)


def page(name: str) -> tuple[str, str, str]:
    """What a page says the rule says, of which example, and of which it does not."""
    text = (CHECKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    says, told, silent = re.findall(r"^```(?:text|dockerfile)\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
    return says, told, silent


@pytest.mark.parametrize("name", [rule.name for rule in RULES])
def test_the_examples_of_the_page(checker: Checker, name: str) -> None:
    says, told, silent = page(name)
    ignore, fewer = SETUPS.get(name, ("", ""))
    assert says in [message for message, _ in checker.of(name, told + "\n", ignore=ignore)]
    if name != "InvalidBaseImagePlatform":  # its example means another machine
        assert checker.of(name, silent + "\n", ignore=fewer) == []


ONLY_LAST = "instructions should not be used in the same stage because only the last one will be used"
SIGNALS = "to prevent unintended behavior related to OS signals"
NO_MAPPING = "EXPOSE instruction should not define an IP address or host-port mapping, found"
WRONG_PLATFORM = (
    'Base image tool was pulled with platform "linux/arm64", expected "linux/amd64" for current build'
)

CASES: list[tuple[str, str, list[tuple[str, int]]]] = [
    # StageNameCasing
    ("StageNameCasing", "FROM a AS Bb\nFROM a AS cc", [("Stage name 'Bb' should be lowercase", 1)]),
    (
        "StageNameCasing",
        "FROM --platform=$BUILDPLATFORM a AS B1",
        [("Stage name 'B1' should be lowercase", 1)],
    ),
    ("StageNameCasing", "FROM A.example/x AS b", []),
    # FromAsCasing
    ("FromAsCasing", "from a AS b", [("'AS' and 'from' keywords' casing do not match", 1)]),
    ("FromAsCasing", "FROM a As b", [("'As' and 'FROM' keywords' casing do not match", 1)]),
    ("FromAsCasing", "From a As b\nfrom a as c\nFROM a AS d\nFROM a", []),
    # NoEmptyContinuation: the last line of the instruction is named
    ("NoEmptyContinuation", "FROM a\nRUN b \\\n\n c \\\n d\nRUN e", [("Empty continuation line", 5)]),
    ("NoEmptyContinuation", "FROM a\nRUN b \\\n# c\n d\n\nRUN e", []),
    # ConsistentInstructionCasing
    (
        "ConsistentInstructionCasing",
        "from a\nrun b\nRUN c\nOnBuild run x",
        [
            ("Command 'RUN' should match the case of the command majority (lowercase)", 3),
            ("Command 'OnBuild' should match the case of the command majority (lowercase)", 4),
        ],
    ),
    (
        "ConsistentInstructionCasing",
        "FROM a\nrun b",
        [("Command 'run' should match the case of the command majority (uppercase)", 2)],
    ),
    ("ConsistentInstructionCasing", "arg a\narg b\narg c\nFROM a\nRUN b", []),
    # DuplicateStageName, ReservedStageName
    (
        "DuplicateStageName",
        "FROM a AS b\nFROM a AS B",
        [('Duplicate stage name "b", stage names should be unique', 2)],
    ),
    ("DuplicateStageName", "FROM a\nFROM a\nFROM a AS b", []),
    (
        "ReservedStageName",
        "FROM a AS Scratch",
        [('Stage name should not use the same name as reserved stage "scratch"', 1)],
    ),
    ("ReservedStageName", "FROM scratch\nFROM a AS scratch-2", []),
    # JSONArgsRecommended
    (
        "JSONArgsRecommended",
        "FROM a\nentrypoint x\ncmd [\"a\", 'b']",
        [
            (f"JSON arguments recommended for entrypoint {SIGNALS}", 2),
            (f"JSON arguments recommended for cmd {SIGNALS}", 3),
        ],
    ),
    ("JSONArgsRecommended", 'FROM a\nCMD ["a"]\nENTRYPOINT []\nHEALTHCHECK CMD x', []),
    ("JSONArgsRecommended", 'FROM a AS b\nSHELL ["/bin/bash", "-c"]\nCMD x\nFROM b\nCMD y', []),
    ("JSONArgsRecommended", "FROM bash\nCMD x", []),
    # MaintainerDeprecated
    (
        "MaintainerDeprecated",
        "FROM a\nFROM b\nMAINTAINER x",
        [("Maintainer instruction is deprecated in favor of using label", 3)],
    ),
    ("MaintainerDeprecated", "FROM a\nLABEL maintainer=x", []),
    # UndefinedArgInFrom
    ("UndefinedArgInFrom", "ARG A\nFROM a$XYZ", [("FROM argument 'XYZ' is not declared", 2)]),
    (
        "UndefinedArgInFrom",
        "FROM --platform=${BUILDPLATFROM:-linux/amd64} a",
        [("FROM argument 'BUILDPLATFROM' is not declared (did you mean BUILDPLATFORM?)", 1)],
    ),
    ("UndefinedArgInFrom", "ARG A\nFROM x${A}y\nFROM --platform=$TARGETOS/$TARGETARCH a", []),
    # WorkdirRelativePath
    (
        "WorkdirRelativePath",
        "FROM a\nWORKDIR b\nWORKDIR c",
        [('Relative workdir "b" can have unexpected results if the base image changes', 2)],
    ),
    (
        "WorkdirRelativePath",
        "FROM a\nENV D=b\nWORKDIR $D",
        [('Relative workdir "b" can have unexpected results if the base image changes', 3)],
    ),
    ("WorkdirRelativePath", "FROM a AS b\nENV D=/b\nWORKDIR $D\nWORKDIR c\nFROM b\nWORKDIR d", []),
    (
        "WorkdirRelativePath",
        "FROM trigger",
        [('Relative workdir "src" can have unexpected results if the base image changes', 1)],
    ),
    # UndefinedVar
    ("UndefinedVar", "FROM a\nCOPY $x ${x} /", [("Usage of undefined variable '$x'", 2)]),
    (
        "UndefinedVar",
        "FROM a\nENV A1=$b1 B2=2\nLABEL $c3=1\nVOLUME $d4\nUSER $e5\nWORKDIR /$f6\nADD --chown=$g7 a b",
        [
            ("Usage of undefined variable '$b1'", 2),
            ("Usage of undefined variable '$c3'", 3),
            ("Usage of undefined variable '$d4'", 4),
            ("Usage of undefined variable '$e5'", 5),
            ("Usage of undefined variable '$f6'", 6),
            ("Usage of undefined variable '$g7'", 7),
        ],
    ),
    (
        "UndefinedVar",
        "FROM a\nENV PTH=$PAHT:x",
        [("Usage of undefined variable '$PAHT' (did you mean $PATH?)", 2)],
    ),
    (
        "UndefinedVar",
        "FROM a\nENV L=${LD_LIBRARY_PATH:-/lib}",
        [("Usage of undefined variable '$LD_LIBRARY_PATH'", 2)],
    ),
    (
        "UndefinedVar",
        "FROM a\nARG long_1=1 long_2=$long_1 x=$nope_var",
        [("Usage of undefined variable '$nope_var'", 2)],
    ),
    ("UndefinedVar", "ARG G=1\nFROM a\nCOPY $G /", [("Usage of undefined variable '$G'", 3)]),
    (
        "UndefinedVar",
        "FROM a\nCOPY <<E <<'F' /\n$in_e 'q$in_q'\nE\n$in_f\nF",
        [("Usage of undefined variable '$in_e'", 2), ("Usage of undefined variable '$in_q'", 2)],
    ),
    ("UndefinedVar", "FROM a\nSTOPSIGNAL SIG${sig}TERM", [("Usage of undefined variable '$sig'", 2)]),
    ("UndefinedVar", "FROM a\nCOPY a$TARGETARCH /", [("Usage of undefined variable '$TARGETARCH'", 2)]),
    (
        "UndefinedVar",
        (
            "FROM a\nRUN echo $any\nCMD $any\nENTRYPOINT $any\nHEALTHCHECK CMD $any\n"
            "COPY '$any' \\$any $BASE_VAR /"
        ),
        [],
    ),
    ("UndefinedVar", "FROM a AS b\nARG A\nENV B=1\nFROM b\nCOPY x$A $B $PATH /", []),
    ("UndefinedVar", "FROM scratch\nCOPY a$PATH /", []),
    ("UndefinedVar", "FROM missing AS b\nCOPY $any /\nFROM b\nCOPY $any /", []),
    # MultipleInstructionsDisallowed: the earlier line is named
    (
        "MultipleInstructionsDisallowed",
        'FROM a\nCMD ["a"]\nENTRYPOINT ["a"]\nHEALTHCHECK NONE\ncmd ["b"]\nHEALTHCHECK CMD x\nCMD ["c"]',
        [
            (f"Multiple cmd {ONLY_LAST}", 2),
            (f"Multiple HEALTHCHECK {ONLY_LAST}", 4),
            (f"Multiple CMD {ONLY_LAST}", 5),
        ],
    ),
    ("MultipleInstructionsDisallowed", 'FROM a AS b\nCMD ["a"]\nFROM b\nCMD ["b"]\nENTRYPOINT ["c"]', []),
    # LegacyKeyValueFormat
    (
        "LegacyKeyValueFormat",
        "FROM a\nLABEL a b=c",
        [('"LABEL key=value" should be used instead of legacy "LABEL key value" format', 2)],
    ),
    ("LegacyKeyValueFormat", 'FROM a\nENV a=b c="d e"\nLABEL "a b"=c', []),
    # InvalidBaseImagePlatform
    ("InvalidBaseImagePlatform", "FROM tool", [(WRONG_PLATFORM, 1)]),
    ("InvalidBaseImagePlatform", "FROM a\nCOPY --from=tool x /", [(WRONG_PLATFORM, 2)]),
    ("InvalidBaseImagePlatform", "FROM --platform=linux/arm64 tool\nFROM a\nFROM missing", []),
    # RedundantTargetPlatform
    (
        "RedundantTargetPlatform",
        "FROM --platform=${TARGETPLATFORM} a",
        [
            (
                (
                    "Setting platform to predefined ${TARGETPLATFORM} in FROM is redundant as this is "
                    "the default behavior"
                ),
                1,
            )
        ],
    ),
    (
        "RedundantTargetPlatform",
        "FROM --platform=$BUILDPLATFORM a\nFROM --platform=$TARGETOS/$TARGETARCH a\nFROM a",
        [],
    ),
    # SecretsUsedInArgOrEnv
    (
        "SecretsUsedInArgOrEnv",
        "FROM a\nARG api_key x=1 AUTH\nENV DATABASE_PASSWORD=x secret_MESSAGE=y",
        [
            ('Do not use ARG or ENV instructions for sensitive data (ARG "api_key")', 2),
            ('Do not use ARG or ENV instructions for sensitive data (ARG "AUTH")', 2),
            ('Do not use ARG or ENV instructions for sensitive data (ENV "DATABASE_PASSWORD")', 3),
            ('Do not use ARG or ENV instructions for sensitive data (ENV "secret_MESSAGE")', 3),
        ],
    ),
    (
        "SecretsUsedInArgOrEnv",
        "ARG TOKEN\nFROM a\nARG PUBLIC_KEY KEYBOARD AUTHOR TOKEN_FILE\nENV KEY_VERSION=1 MONKEY=1",
        [],
    ),
    # InvalidDefaultArgInFrom
    (
        "InvalidDefaultArgInFrom",
        "ARG A=UPPER\nFROM $A/x:${B}",
        [("Default value for ARG $A/x:${B} results in empty or invalid base image name", 2)],
    ),
    ("InvalidDefaultArgInFrom", "ARG A=debian\nFROM $A:${B:-12} AS c\nFROM c\nFROM scratch", []),
    # FromPlatformFlagConstDisallowed
    (
        "FromPlatformFlagConstDisallowed",
        "FROM --platform=linux/arm64 a AS x",
        [('FROM --platform flag should not use constant value "linux/arm64"', 1)],
    ),
    (
        "FromPlatformFlagConstDisallowed",
        "FROM --platform=linux/arm64 a AS x-arm64\nFROM --platform=linux a AS linux-x",
        [],
    ),
    # InvalidDefinitionDescription
    (
        "InvalidDefinitionDescription",
        "# c\nARG A\n# d\nARG B=1 C\n# e\nFROM a AS f\n# A x\n# y\nARG A",
        [
            ("Comment for ARG should follow the format: `# A <description>`", 2),
            ("Comment for ARG should follow the format: `# <arg_key> <description>`", 4),
            ("Comment for FROM should follow the format: `# f <description>`", 6),
            ("Comment for ARG should follow the format: `# A <description>`", 9),
        ],
    ),
    (
        "InvalidDefinitionDescription",
        "# syntax=x\nARG A\n# c\n\nARG B\n# B c\nARG B C\n# x\nFROM a\n#f y\nFROM a AS f\n# z\nRUN x",
        [],
    ),
    # ExposeProtoCasing, ExposeInvalidFormat
    (
        "ExposeProtoCasing",
        "FROM a\nEXPOSE 1/tcp 2/Udp 3",
        [("Defined protocol '2/Udp' in EXPOSE instruction should be lowercase", 2)],
    ),
    (
        "ExposeProtoCasing",
        "FROM a\nENV P=TCP\nEXPOSE 1/$P",
        [("Defined protocol '1/TCP' in EXPOSE instruction should be lowercase", 3)],
    ),
    ("ExposeProtoCasing", "FROM a\nEXPOSE 1/tcp 2/udp 3/sctp 4", []),
    ("ExposeInvalidFormat", "FROM a\nEXPOSE 8080:80 81", [(f"{NO_MAPPING} '8080:80'", 2)]),
    ("ExposeInvalidFormat", "FROM a\nEXPOSE [::1]:80:80/udp", [(f"{NO_MAPPING} '[::1]:80:80/udp'", 2)]),
    ("ExposeInvalidFormat", "FROM a\nEXPOSE 80 81/udp 82-90", []),
]


@pytest.mark.parametrize(("rule", "text", "found"), CASES)
def test_a_rule_speaks_here_and_not_there(
    checker: Checker, rule: str, text: str, found: list[tuple[str, int]]
) -> None:
    assert checker.of(rule, text) == found


IGNORED = [
    ("*.md", "COPY a.md /", ["a.md"]),
    ("*.md", "COPY ./x/../a.md b /", ["a.md"]),
    ("*.md", "COPY *.md /", ["*.md"]),
    ("*.md", "COPY /a.md /", ["a.md"]),
    ("dist", "COPY dist/app dist2 /", ["dist/app"]),
    ("*", "COPY . /", ["."]),
    ("*", "COPY a b /", ["a", "b"]),
    ("*\n!b", "COPY . a b /", ["a"]),
    ("dist\n!dist/app", "COPY dist dist/app dist/other /", ["dist/other"]),
    ("d\n!*/keep", "COPY d /", []),
    ("a", "COPY --from=x a /", []),
    ("a*", "COPY <<a /x\nt\na", []),
    ("", "COPY a /", []),
]


@pytest.mark.parametrize(("ignore", "line", "told"), IGNORED)
def test_ignored_files(checker: Checker, ignore: str, line: str, told: list[str]) -> None:
    found = checker.of("CopyIgnoredFile", f"FROM a AS x\nFROM a\n{line}\n", ignore=ignore)
    assert found == [
        (f'Attempting to Copy file "{each}" that is excluded by .dockerignore', 3) for each in told
    ]


def test_ignored_files_of_add(checker: Checker) -> None:
    text = "FROM a\nENV F=a.md\nADD $F /"
    assert checker.of("CopyIgnoredFile", text, ignore="*.md") == [
        ('Attempting to Add file "a.md" that is excluded by .dockerignore', 3)
    ]


def test_the_ignore_file_is_read_only_for_a_copy_from_the_context(checker: Checker) -> None:
    def never() -> None:
        raise AssertionError("not needed")

    checker.plan("FROM a AS b\nRUN x\nFROM a\nCOPY --from=b x y", ignore="")
    options = checker.options()
    source = decode(b"FROM a AS b\nFROM a\nCOPY --from=b x y\nCOPY <<E /f\nE\n", "Dockerfile")
    assert check(source, replace(options, ignore=never), checker.resolve).error is None


OURS = [
    ("HeredocIgnoresErrors", "RUN <<E\na\nb\nE", 1),
    ("HeredocIgnoresErrors", "RUN <<E\n#!/bin/bash\na\nb\nE", 1),
    ("HeredocIgnoresErrors", "RUN <<E\n# only one\na && \\\n b\nE", 0),
    ("HeredocIgnoresErrors", "RUN <<E\nset -eux\na\nb\nE", 0),
    ("HeredocIgnoresErrors", "RUN <<E\nset -x -o errexit\na\nb\nE", 0),
    ("HeredocIgnoresErrors", "RUN <<E\n#!/bin/sh -e\na\nb\nE", 0),
    ("HeredocIgnoresErrors", "RUN <<E\n#!/usr/bin/python3\na\nb\nE", 0),
    ("HeredocIgnoresErrors", "RUN python3 <<E\na\nb\nE", 0),
    ("HeredocIgnoresErrors", 'SHELL ["bash", "-ec"]\nRUN <<E\na\nb\nE', 0),
    ("AptListsKept", "RUN apt-get -y install curl", 1),
    ("AptListsKept", "RUN <<E\napt install -y curl\nE", 1),
    ("AptListsKept", "RUN apt-get update", 0),
    ("AptListsKept", "RUN apt-get install x && rm -rf /var/lib/apt/lists/*", 0),
    ("CopyAllBeforeInstall", "COPY . .\nRUN pip install --no-cache-dir -r requirements.txt", 1),
    ("CopyAllBeforeInstall", "COPY ./ /app\nRUN go mod download", 1),
    ("CopyAllBeforeInstall", "RUN npm ci\nCOPY . .", 0),
    ("CopyAllBeforeInstall", "COPY . .\nRUN make", 0),
    ("CopyAllBeforeInstall", "COPY --from=x . .\nRUN npm ci", 0),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "lines", "count"), OURS)
def test_our_own_rules(checker: Checker, rule: str, lines: str, count: int) -> None:
    assert len(checker.of(rule, f"FROM a AS x\nFROM a\n{lines}\n")) == count


@pytest.mark.parametrize(
    ("base", "told"), [("a", 1), ("a:latest", 1), ("a:1", 0), (f"a@sha256:{'0' * 64}", 0)]
)
def test_unpinned_bases(checker: Checker, base: str, told: int) -> None:
    assert len(checker.of("UnpinnedBase", f"FROM {base} AS one\nFROM one\nFROM scratch")) == told
